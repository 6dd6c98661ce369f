"""Operator types by what they do with memory; the rest read all of their inputs and write all of their outputs."""

from edgetk.core.workload import Op

#: The output is the input under another shape: no work, no bytes.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
#: They look at a shape, not at values.
SHAPES = frozenset({"Shape", "Size"})
#: They read as much of their first input as they write.
SELECTS = frozenset({"Slice", "Gather", "GatherND", "GatherElements", "Split"})
#: They compute in the format of what they compare, and say yes or no.
COMPARES = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})


def weights_read(op: Op) -> int:
    """Bytes of its constants that an operator reads in one inference, all calls: of a table, only what it selects."""
    return 0 if op.kind in SELECTS else op.weight_bytes * op.calls
