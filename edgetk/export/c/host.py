"""What makes a shared library of a generated step: one object per instruction set, a choice at run time, a Makefile."""

from __future__ import annotations

import json

from edgetk.export.c.program import Program

#: by machine: instruction sets from the best to the plainest, what asks the processor for it, and the compiler's options
ISAS = {
    "x86_64": (
        (
            "avx512vnni",
            '__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")',
            "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512",
        ),
        ("avx2", '__builtin_cpu_supports("avx2")', "-mavx2"),
        ("portable", "1", "-DEDGETK_PORTABLE"),
    ),
    "aarch64": (
        ("neon", "(getauxval(AT_HWCAP) & (1ul << 20)) != 0", "-march=armv8.2-a+dotprod"),
        ("portable", "1", "-DEDGETK_PORTABLE"),
    ),
}


def library(program: Program) -> str:
    """The C interface of the shared library, the same for every model: text about it, reset, step, choice of instructions."""
    name, plan = program.name, program.plan
    about = {
        "name": name,
        "inputs": [{"name": b.name, "size": b.size} for b in plan.inputs],
        "outputs": [{"name": b.name, "size": b.size} for b in plan.outputs],
        "states": [{"name": b.name, "dtype": b.dtype, "size": b.size, "offset": at} for b, at in program.places],
        "state_bytes": program.state_bytes or 4,
        "macs": program.macs,
    }
    text = json.dumps(json.dumps(about))
    args = [f"inputs[{i}]" for i in range(len(plan.inputs))] + [f"outputs[{i}]" for i in range(len(plan.outputs))]
    params = ", ".join(["const float *"] * len(plan.inputs) + ["float *"] * len(plan.outputs))
    tables = []
    for machine, isas in ISAS.items():
        declared = "\n".join(
            f"void {name}_reset_{isa}({name}_state *);\nvoid {name}_step_{isa}({name}_state *, {params});" for isa, _, _ in isas
        )
        checks = "\n".join(f"static int has_{isa}(void) {{ return {check}; }}" for isa, check, _ in isas)
        rows = ",\n".join(f'  {{"{isa}", has_{isa}, {name}_reset_{isa}, {name}_step_{isa}}}' for isa, _, _ in isas)
        tables.append(
            f"#if defined(__{machine}__)\n{declared}\n{checks}\nstatic const implementation table[] = {{\n{rows}}};\n#endif"
        )
    return f"""/* {name} as a shared library: which of its builds runs is chosen when it is loaded. */
#include "{name}.h"

#include <stddef.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define PUBLIC __attribute__((visibility("default")))

typedef struct {{
  const char *isa;
  int (*supported)(void);
  void (*reset)({name}_state *);
  void (*step)({name}_state *, {params});
}} implementation;

{chr(10).join(tables)}

static const implementation *chosen;

static const implementation *choose(const char *isa) {{
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].supported() && (isa == NULL || strcmp(isa, table[i].isa) == 0)) return &table[i];
  return NULL;
}}

/* Names, sizes and state bytes as JSON. */
PUBLIC const char *edgetk_c_about(void) {{ return {text}; }}

/* Run the build for `isa`, NULL for the best one: 0, or -1 where this processor has no such thing. Reset states afterwards. */
PUBLIC int edgetk_c_use(const char *isa) {{
  const implementation *found = choose(isa);
  if (found == NULL) return -1;
  chosen = found;
  return 0;
}}

/* The build that runs. */
PUBLIC const char *edgetk_c_isa(void) {{
  if (chosen == NULL) chosen = choose(NULL);
  return chosen->isa;
}}

PUBLIC void edgetk_c_reset(void *state) {{
  if (chosen == NULL) chosen = choose(NULL);
  chosen->reset(({name}_state *)state);
}}

PUBLIC void edgetk_c_step(void *state, const float *const *inputs, float *const *outputs) {{
  chosen->step(({name}_state *)state, {", ".join(args)});
}}
"""


def makefile(program: Program) -> str:
    """Builds lib<name>.so for the machine that the compiler builds for."""
    name = program.name
    rules = []
    for machine, isas in ISAS.items():
        names = " ".join(isa for isa, _, _ in isas)
        options = "\n".join(f"{machine}_{isa} := {flags}" for isa, _, flags in isas)
        rules.append(f"{machine} := {names}\n{options}")
    newline = "\n"
    return f"""# lib{name}.so for the machine that CC builds for: x86-64 (AVX-512 VNNI, AVX2, portable) or aarch64 (NEON).
#
# On a microcontroller compile {name}.c and {name}_data.c with your own flags and -ffp-contract=off instead.
CFLAGS ?= -O3
OUT ?= .
STRICT := -std=gnu99 -Wall -Wextra -ffp-contract=off -fPIC -fvisibility=hidden '-DEDGETK_ARENA=static __thread'
FRONT := $(patsubst %.c,$(OUT)/%.o,$(wildcard edgetk_log_mel.c))
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
{newline.join(rules)}

$(OUT)/lib{name}.so: $(patsubst %,$(OUT)/{name}_%.o,$($(MACHINE))) $(OUT)/{name}_data.o $(FRONT) {name}_library.c
\t$(CC) $(CFLAGS) $(STRICT) -shared -o $@ $^

$(OUT)/{name}_data.o: {name}_data.c {name}_data.h
\t$(CC) $(CFLAGS) $(STRICT) -DEDGETK_PORTABLE -c -o $@ $<

$(OUT)/edgetk_log_mel.o: edgetk_log_mel.c edgetk_log_mel.h edgetk_log_mel_data.h
\t$(CC) $(CFLAGS) $(STRICT) -fvisibility=default -c -o $@ $<

$(OUT)/{name}_%.o: {name}.c {name}.h {name}_data.h $(wildcard edgetk_*.h)
\t$(CC) $(CFLAGS) $(STRICT) $($(MACHINE)_$*) -DEDGETK_SUFFIX=_$* -c -o $@ $<
"""
