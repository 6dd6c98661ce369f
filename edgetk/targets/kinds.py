"""Operator types by what they do with memory and arithmetic, and what a stack makes of them."""

from __future__ import annotations

from edgetk.core.target import Target
from edgetk.core.workload import Op

#: The output is the input under another shape: no work, no bytes.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
#: They look at a shape, not at values.
SHAPES = frozenset({"Shape", "Size"})
#: They read as much of their first input as they write.
SELECTS = frozenset({"Slice", "Gather", "GatherND", "GatherElements", "Split"})
#: They compute in the format of what they compare, and say yes or no.
COMPARES = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
#: An exponential, a root or a division for each element, or several passes over it.
TRANSCENDENTAL = frozenset(
    [
        "Acos",
        "Asin",
        "Atan",
        "BiasGelu",
        "Celu",
        "Cos",
        "Cosh",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "GroupNormalization",
        "HardSwish",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "LRN",
        "MeanVarianceNormalization",
        "Mish",
        "Pow",
        "RMSNormalization",
        "Reciprocal",
        "Selu",
        "Sigmoid",
        "SimplifiedLayerNormalization",
        "Sin",
        "Sinh",
        "SkipLayerNormalization",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
    ]
)
#: One simple operation for each element that is read or written.
ELEMENTWISE = COMPARES | frozenset(
    [
        "Abs",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "AveragePool",
        "BatchNormalization",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "Clip",
        "CumSum",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Floor",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "LeakyRelu",
        "Max",
        "MaxPool",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "QuantizeLinear",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Round",
        "Shrink",
        "Sign",
        "Sub",
        "Sum",
        "ThresholdedRelu",
        "TopK",
        "Where",
        "Xor",
    ]
)
#: They only move bytes.
MOVES = SELECTS | frozenset(
    [
        "Cast",
        "CastLike",
        "Concat",
        "ConcatFromSequence",
        "ConstantOfShape",
        "DepthToSpace",
        "Expand",
        "EyeLike",
        "OneHot",
        "Pad",
        "Range",
        "Resize",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "SpaceToDepth",
        "Tile",
        "Transpose",
        "Trilu",
        "Upsample",
    ]
)


def weights_read(op: Op) -> int:
    """Bytes of its constants that an operator reads in one inference, all calls: of a table, only what it selects."""
    return 0 if op.kind in SELECTS else op.weight_bytes * op.calls


def product(op: Op) -> str:
    """The kind of a product: "depthwise", "gemv" where each weight is used once, else "gemm"."""
    if op.groups > 1:
        return "depthwise"
    return "gemv" if op.rows == 1 and op.weight_bytes else "gemm"


def work(op: Op) -> str:
    """What an operator that is no product does for each element; "unknown" where nobody has told edgetk."""
    if op.kind in TRANSCENDENTAL:
        return "transcendental"
    if op.kind in ELEMENTWISE:
        return "element"
    return "move" if op.kind in MOVES or op.kind in VIEWS or op.kind in SHAPES or op.kind == "Scan" else "unknown"


def is_idle(op: Op) -> bool:
    """True for an operator that moves nothing and computes nothing: views, folded constants."""
    return not op.macs and not op.activation_bytes


def runs_in(op: Op, target: Target) -> str:
    """The number format that the stack computes a product in: ONNX Runtime has integer convolutions only between integers."""
    if target.stack.runtime == "onnxruntime" and op.kind == "Conv" and op.dtype == "int8" and not op.requantized:
        return "float32"
    return op.dtype
