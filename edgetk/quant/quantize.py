"""Static 8-bit quantization: scales found on calibration inputs, fixed integer layers take them over."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult, Split
from edgetk.core.errors import PreconditionError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetk.quant._calibrate import Scales


@dataclass(frozen=True)
class Quantize:
    """Weights to int8 with a scale per output channel (symmetric, narrow range), inputs of those layers to 8 bits per tensor.

    Source: Jacob et al. 2018, arXiv:1712.05877, with brevitas as the quantizer: maximum of the weights, 99.999th percentile of
    all that a layer reads while whole inputs and long streams run, so that states stay within it. A layer whose rounding alone
    changes the outputs by more than `max_change` stays float, and so do, worst first, as many as it takes to lose no more
    than `max_drop` of the accuracy on validation.

    Where all that a layer reads lies on a power-of-two grid of at most 256 steps, such as spikes, its input keeps that grid as
    scale, and the weights get power-of-two scales: rounding the input then costs nothing, and sums of products are exact.
    Tables of memory layers become int8 with a scale per output column; what they hash is not rounded. Of a dense-sparse pair
    the dictionary is a linear layer like any other, and the sparse values become int8 with a scale per line; what they are
    multiplied by is not rounded. Biases and states stay float32.
    """

    #: integer type of activations: "uint8" (with zero point), "int8" (symmetric), or "auto" for what the target's stack wants
    activation: str = "auto"
    #: layers with fewer weights stay float: rounding costs them more than it saves
    min_weights: int = 4096
    #: names or name endings of layers that stay float
    keep_float: tuple[str, ...] = ("head",)
    #: share of the outputs' variance that rounding one layer may change before that layer stays float, in [0, 1]
    max_change: float = 0.01
    #: accuracy on validation that may be given up before more layers stay float, in [0, 1]
    max_drop: float = 0.005
    #: inputs that the scales are taken on
    calibration: int = 96
    #: inputs that follow one another in each of 8 calibration streams
    stream_inputs: int = 4
    #: validation examples that judge the result
    examples: int = 1000

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.activation not in ("auto", "uint8", "int8"):
            raise RecipeError(f"quantize: activation must be auto, uint8 or int8, got {self.activation!r}; correct the recipe")
        for name in ("max_change", "max_drop"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RecipeError(f"quantize: {name} must be in [0, 1], got {getattr(self, name)}; correct the recipe")
        if min(self.calibration, self.stream_inputs, self.examples) < 1:
            raise RecipeError(
                "quantize: calibration, stream_inputs and examples must be at least 1, "
                f"got {self.calibration}, {self.stream_inputs} and {self.examples}; correct the recipe"
            )

    def check(self, bundle: Bundle) -> None:
        """There must be data and a layer that is large enough."""
        if bundle.data is None:
            raise PreconditionError(
                "quantize: needs calibration data, got a model without a task; name one with --task and its data with --data"
            )
        if not self._layers(bundle.module):
            raise PreconditionError(
                f"quantize: needs a linear, convolution, memory or sparse layer of at least {self.min_weights} weights, "
                f"got none in {bundle.name}; lower min_weights or leave quantize out"
            )

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.core import registry
        from edgetk.quant._calibrate import calibrate

        assert bundle.data is not None
        kind = self._activation(bundle)
        inputs = bundle.data.calibration(self.calibration)
        scales = calibrate(bundle, self._layers(bundle.module), inputs, kind, self.stream_inputs)
        layers = list(scales)  # a layer that was never called is left as it is
        split = _part(bundle.data.split("validation"), self.examples)
        task = registry.load("task", bundle.task)

        def correct(body: nn.Module) -> int:
            result: int = task.score(replace(bundle, body=body).predict(), split, official_only=False).correct
            return result

        before = correct(bundle.module)
        change = _change(bundle, layers, scales, kind, inputs)
        worst = sorted(layers, key=lambda name: -change[name])
        # where thresholds decide, a rounded weight moves spikes and so all that follows: only the answers tell if that matters
        free = bool(getattr(bundle.module, "exact_sums", False))
        floating = [] if free else [name for name in worst if change[name] > self.max_change]
        drop = 0.0
        while chosen := [name for name in layers if name not in floating]:
            body = _quantized(bundle.module, chosen, scales, kind)
            drop = (before - correct(body)) / len(split.labels)
            if drop <= self.max_drop:
                break
            floating.append(worst[len(floating)])
        shares = {name: round(share, 6) for name, share in change.items()}
        if not chosen:
            return PassResult(bundle.body, False, {"kept_float": floating, "output_change": shares, "accuracy_drop": drop})
        notes = {
            "activation": kind,
            "layers": len(chosen),
            "kept_float": floating + [n for n in _candidates(bundle.module) if n not in layers],
            "output_change": shares,
            "accuracy_drop": drop,
            "examples": len(split.labels),
            "exact_inputs": {name: scales[name].scale for name in chosen if scales[name].grid},
            "states": ", ".join(sorted({state.spec.dtype for state in bundle.signature.state})) or "none",
            "calibration_inputs": len(inputs),
            "streamed_steps": self.stream_inputs * _steps(bundle),
            **_pairs(body),
        }
        return PassResult(body, True, notes, {"activation": kind, "layers": chosen})

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Put empty integer layers in the same places; codes and scales come afterwards."""
        for name in structure["layers"]:
            body.set_submodule(name, _empty(body, name, structure["activation"]))
        return body

    def _activation(self, bundle: Bundle) -> str:
        if self.activation != "auto":
            return self.activation
        return bundle.target.stack.activation if bundle.target is not None else "uint8"

    def _layers(self, body: nn.Module) -> list[str]:
        return [
            name
            for name, weights in _candidates(body).items()
            if weights >= self.min_weights and not any(name == k or name.endswith(f".{k}") for k in self.keep_float)
        ]


def _candidates(body: nn.Module) -> dict[str, int]:
    """Plain linear, zero-padded convolution, memory and sparse layers inside `body`, with their number of weights."""
    from torch import nn

    from edgetk.models.layers.dense_sparse import SparseFactor
    from edgetk.models.layers.memory_layer import MemoryLayer

    weights = {nn.Linear: "weight", nn.Conv1d: "weight", nn.Conv2d: "weight", MemoryLayer: "tables", SparseFactor: "values"}
    return {
        name: getattr(m, weights[type(m)]).numel()
        for name, m in body.named_modules()
        if name and type(m) in weights and getattr(m, "padding_mode", "zeros") == "zeros"
    }


def _pairs(body: nn.Module) -> dict[str, Any]:
    """Of dense-sparse pairs, where there are any: their bytes as float32 and as they are now, scales included."""
    from edgetk.models.layers.dense_sparse_int8 import pair_bits

    floats, now = pair_bits(body)
    return {"pairs": {"bytes_float32": floats / 8, "bytes": now / 8, "ratio": round(floats / now, 6)}} if now else {}


def _steps(bundle: Bundle) -> int:
    """Steps of a whole input where it is streamed."""
    from edgetk.quant._calibrate import time_axis

    if bundle.clip is None or not bundle.signature.is_streaming:
        return 0
    return int(bundle.clip.inputs[0].concrete()[time_axis(bundle)])


def _empty(body: nn.Module, name: str, kind: str) -> nn.Module:
    from torch import nn

    from edgetk.models.layers.dense_sparse import DenseSparseLinear, SparseFactor
    from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor
    from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer
    from edgetk.models.layers.quantized import QuantConv, QuantLinear

    layer: Any = body.get_submodule(name)
    if type(layer) is MemoryLayer:
        return QuantMemoryLayer.like(layer)
    if type(layer) is SparseFactor:
        return QuantSparseFactor(layer)
    if type(layer) is nn.Linear:
        # a dictionary without its zeros: the file has the bits of the formula, and no runtime adds them up
        bias = not isinstance(body.get_submodule(name.rpartition(".")[0]), DenseSparseLinear)
        return QuantLinear(layer.in_features, layer.out_features, kind, bias)  # type: ignore[arg-type]
    return QuantConv(layer, kind)  # type: ignore[arg-type]


def _quantized(original: nn.Module, names: Iterable[str], scales: Mapping[str, Scales], kind: str) -> nn.Module:
    from edgetk.models.layers.dense_sparse import SparseFactor
    from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor
    from edgetk.models.layers.exact import settle
    from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer

    body = copy.deepcopy(original)
    for name in names:
        layer: Any = body.get_submodule(name)
        if isinstance(layer, MemoryLayer):
            body.set_submodule(name, QuantMemoryLayer.of(layer))
            continue
        if isinstance(layer, SparseFactor):
            body.set_submodule(name, QuantSparseFactor.of(layer))
            continue
        made: Any = _empty(body, name, kind)
        found = scales[name]
        made.weight.copy_(found.codes)
        made.scale.copy_(found.weight_scale)
        if layer.bias is not None:
            made.bias.copy_(layer.bias.detach())
        made.input.scale.fill_(found.scale)
        made.input.zero_point.fill_(found.zero_point)
        body.set_submodule(name, made)
    settle(body)
    return body


def _change(bundle: Bundle, names: list[str], scales: Mapping[str, Scales], kind: str, inputs: Tensor) -> dict[str, float]:
    """For each layer the share of the outputs' variance that rounding it alone changes."""
    from edgetk.models.layers.observe import OutputChange

    change = OutputChange(bundle.predict(), inputs[:32])
    alone = {name: replace(bundle, body=_quantized(bundle.module, [name], scales, kind)) for name in names}
    return {name: change.of(made.predict()) for name, made in alone.items()}


def _part(split: Split, n: int) -> Split:
    """About `n` examples spread evenly over a split."""
    step = max(1, len(split.labels) // n)
    return Split(split.name, split.features[::step], split.labels[::step], split.origin)


PASS = Quantize
