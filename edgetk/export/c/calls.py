"""The text of parts of memory, and of steps that are one call of a kernel or loops around a copy."""

from __future__ import annotations

from edgetk.export.c.elementwise import number
from edgetk.export.c.operands import Array, Buffer, Segment
from edgetk.export.c.steps import BinaryAttention, Product, Reduce, Rows, Strided, TableRows


def base(buffer: Buffer) -> str:
    return f"state->{buffer.name}" if buffer.place == "state" else buffer.name


def at(segment: Segment) -> str:
    return base(segment.buffer) + (f" + {segment.start}" if segment.start else "")


def spot(segment: Segment, index: str) -> str:
    if index == "0":
        return f"{base(segment.buffer)}[{segment.start}]"
    return f"{base(segment.buffer)}[{segment.start} + {index}]" if segment.start else f"{base(segment.buffer)}[{index}]"


def each(rows: int) -> str:
    return f"for (int32_t r = 0; r < {rows}; r++) " if rows > 1 else ""


def row(segment: Segment, rows: int) -> str:
    """Row r of `rows`."""
    return at(segment) + (f" + r * {segment.size // rows}" if rows > 1 else "")


def call(name: str, step: Strided | Product | Rows | Reduce | TableRows | BinaryAttention) -> str:
    """A step that is one call, or loops around a copy."""

    def stored(array: Array | None) -> str:
        return f"{name}_{array.name}" if array else "0"

    source, target = at(step.source), at(step.target)
    if isinstance(step, Strided):
        loops = "".join(f"for (int32_t i{k} = 0; i{k} < {size}; i{k}++) " for k, size in enumerate(step.sizes))
        places = [" + ".join(f"i{k} * {s}" for k, s in enumerate(steps)) for steps in (step.to_steps, step.steps)]
        return f"{loops}({target})[{places[0]}] = ({source})[{places[1]}];"
    if isinstance(step, Product):
        sizes = f"{step.batch}, {step.rows}, {step.inner}, {step.columns}"
        return f"edgetk_product({source}, {at(step.other)}, {sizes}, {target});"
    if isinstance(step, Rows):
        width = step.source.size // step.rows
        if step.kind == "softmax":
            return f"edgetk_softmax({source}, {step.rows}, {width}, {target});"
        arrays = f"{stored(step.weights)}, {stored(step.bias)}, {number(step.epsilon)}"
        return f"edgetk_layer_norm({source}, {step.rows}, {width}, {arrays}, {target});"
    if isinstance(step, Reduce):
        kind = {"sum": "EDGETK_SUM", "mean": "EDGETK_MEAN", "l2": "EDGETK_L2"}[step.kind]
        return f"edgetk_reduce({source}, {step.outer}, {step.count}, {step.inner}, {kind}, {target});"
    if isinstance(step, TableRows):
        inputs, outputs = step.source.size // step.rows, step.target.size // step.rows
        weighting = f"EDGETK_WEIGHT_{step.weighting.upper()}, {number(2 / step.temperature)}"
        numbers = f"{inputs // step.bits}, {step.bits}, {outputs}, {weighting}"
        tables, bias, after = stored(step.tables), stored(step.bias), row(step.target, step.rows)
        if step.scale is None:
            kernel, arguments = "edgetk_table_rows_float", f"{tables}, {bias}, {numbers}, {after}"
        else:
            arguments = f"{tables}, {stored(step.scale)}, {bias}, {numbers}, {at(step.scratch)}, {after}"
            kernel = "edgetk_table_rows"
        return f"{each(step.rows)}{kernel}({row(step.source, step.rows)}, {arguments});"
    given = f"{source}, {at(step.other)}, {at(step.values)}"
    shape = f"{step.heads}, {step.tokens}, {step.bits}, {step.target.size // (step.heads * step.tokens)}, {int(step.own_token)}"
    return f"edgetk_binary_attention({given}, {shape}, {at(step.scratch)}, {target});"
