"""What each TensorRT release reads and how it is told about precision, by version.

Sources: NVIDIA/onnx-tensorrt, docs/operators.md and docs/Changelog.md (operators, functions); the 8.5.2 parser itself
(opset 16, weights as Q/DQ pairs); the parser of TensorRT-RTX 1.7 (operators from 11 on); NVIDIA's guide from 10 to 11
(precision flags).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edgetk.core.errors import PreconditionError
from edgetk.core.target import Stack

RUNTIME = "tensorrt"


class Version(NamedTuple):
    """Major and minor version of TensorRT."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def has_layer_norm(self) -> bool:
        """The parser knows LayerNormalization."""
        return self >= (8, 6)

    @property
    def has_functions(self) -> bool:
        """The parser reads functions inside a file."""
        return self >= (9, 0)

    @property
    def has_integer_weights(self) -> bool:
        """A stored int8 weight may stand in front of a DequantizeLinear; before, it takes a QuantizeLinear too."""
        return self >= (10, 0)

    @property
    def is_typed(self) -> bool:
        """Precision is what the graph says (strong typing); before, builder flags allow what they name."""
        return self >= (10, 0)

    @property
    def needs_typed_flag(self) -> bool:
        """Strong typing has to be asked for; from 11 on there is nothing else."""
        return (10, 0) <= self < (11, 0)

    @property
    def max_opset(self) -> int:
        """Newest operator set that this package writes for the parser."""
        return max((opset for since, opset in _OPSETS.items() if self >= since), default=11)


#: since version -> operator set
_OPSETS = {(8, 0): 13, (8, 5): 16, (8, 6): 17, (10, 0): 20, (11, 0): 25}

_OPERATORS = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
    Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf
    Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual HardSigmoid Identity If InstanceNormalization IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log
    LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean Min Mul Neg NonMaxSuppression Not Or PRelu Pad Pow
    QuantizeLinear RNN RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round Scan Scatter
    ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where
"""

#: since version -> operators that came with it
_ADDED = {
    (8, 4): "Shrink Xor",
    (8, 5): "GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal RandomNormalLike RoiAlign Trilu",
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (9, 2): "Hardmax",
    (10, 4): "BlackmanWindow HammingWindow HannWindow",
    (10, 5): "STFT",
    (11, 0): "Attention CastLike Gelu Mish RMSNormalization RotaryEmbedding Swish",
}


def operators(version: Version) -> frozenset[str]:
    """The standard operators that the parser of `version` reads."""
    texts = [_OPERATORS, *(names for since, names in _ADDED.items() if version >= since)]
    return frozenset(" ".join(texts).split())


def version_of(stack: Stack) -> Version:
    """The version that a TensorRT stack names, as in "TensorRT 10.3, JetPack 6.2".

    Raises PreconditionError for another runtime, or where the name holds no version.
    """
    if stack.runtime != RUNTIME:
        raise PreconditionError(
            f"tensorrt: the target's stack must run TensorRT, got {stack.name}; "
            "choose a board that has it, or leave tensorrt out of the exports"
        )
    found = re.search(r"TensorRT (\d+)\.(\d+)", stack.name)
    if found is None:
        raise PreconditionError(
            f"tensorrt: stack.name must hold its version, as in 'TensorRT 10.3, JetPack 6.2', got {stack.name!r}; add it"
        )
    return Version(int(found[1]), int(found[2]))
