"""What makes a shared library of a generated step: one object per instruction set, a choice at run time, a Makefile."""

from __future__ import annotations

import json
from typing import Any

from edgetk.core.signature import TensorSpec
from edgetk.export.c.operands import Buffer
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

#: options of every build: a compiler that fused a product with a sum would change last bits
STRICT = "-std=gnu99 -Wall -Wextra -ffp-contract=off -fvisibility=hidden"


def library(program: Program) -> str:
    """The C interface of the shared library, the same for every model: text about it, reset, step, choice of instructions."""
    name, plan = program.name, program.plan
    signature, offsets = plan.signature, {b.name: at for b, at in program.places}
    about = {
        "name": name,
        "graph_sha256": plan.graph_sha256,
        "inputs": [_entry(b, s) for b, s in zip(plan.inputs, signature.inputs, strict=True)],
        "outputs": [_entry(b, s) for b, s in zip(plan.outputs, signature.outputs, strict=True)],
        "states": [{**_entry(b, s.spec), "offset": offsets[b.name]} for b, s in zip(plan.states, signature.state, strict=True)],
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

/* Which graph it computes, names, shapes, types and offsets, as JSON. */
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


def _entry(buffer: Buffer, spec: TensorSpec) -> dict[str, Any]:
    """A buffer of the interface, and the tensor of the graph that it holds."""
    shape = list(spec.concrete())
    return {"name": buffer.name, "tensor": spec.name, "shape": shape, "dtype": buffer.dtype, "size": buffer.size}


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
STRICT := {STRICT} -fPIC '-DEDGETK_ARENA=static __thread'
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


def cmake(program: Program) -> str:
    """The same for CMake: the target `name`, for the machine that CMake builds for."""
    name = program.name
    machines = []
    for machine, isas in ISAS.items():
        sets = "\n".join(f"  set(options_{isa} {flags.replace(' ', ';')})" for isa, _, flags in isas)
        machines.append(f'"{machine}")\n  set(isas {";".join(isa for isa, _, _ in isas)})\n{sets}')
    choice = "\nelseif(machine STREQUAL ".join(machines)
    return f"""# lib{name}.so for the machine that CMake builds for: x86-64 (AVX-512 VNNI, AVX2, portable) or aarch64 (NEON).
cmake_minimum_required(VERSION 3.21)
project({name} LANGUAGES C)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()
string(TOLOWER "${{CMAKE_SYSTEM_PROCESSOR}}" machine)
string(REGEX REPLACE "^(amd64|x64)$" "x86_64" machine "${{machine}}")
string(REGEX REPLACE "^arm64$" "aarch64" machine "${{machine}}")
if(machine STREQUAL {choice}
else()
  message(FATAL_ERROR "{name}: must be built for x86_64 or aarch64, got ${{machine}}; compile {name}.c and {name}_data.c alone")
endif()

file(GLOB front_end edgetk_log_mel.c)
add_library({name} SHARED {name}_library.c {name}_data.c ${{front_end}})
set_source_files_properties({name}_data.c PROPERTIES COMPILE_DEFINITIONS EDGETK_PORTABLE)
set_source_files_properties(${{front_end}} PROPERTIES COMPILE_OPTIONS -fvisibility=default)
target_compile_options({name} PRIVATE {STRICT})
# the step once for each instruction set, under names of its own
foreach(isa IN LISTS isas)
  add_library({name}_${{isa}} OBJECT {name}.c)
  set_target_properties({name}_${{isa}} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_options({name}_${{isa}} PRIVATE {STRICT} ${{options_${{isa}}}})
  target_compile_definitions({name}_${{isa}} PRIVATE EDGETK_SUFFIX=_${{isa}} "EDGETK_ARENA=static __thread")
  target_sources({name} PRIVATE $<TARGET_OBJECTS:{name}_${{isa}}>)
endforeach()
"""
