"""Static 8-bit quantization: brevitas finds scales on calibration inputs, fixed integer layers take them over."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult, Split
from edgetk.core.errors import PreconditionError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Quantize:
    """Weights to int8 with a scale per output channel (symmetric, narrow range), inputs of those layers to 8 bits per tensor.

    Source: Jacob et al. 2018, arXiv:1712.05877, with brevitas as the quantizer (maximum of the weights, percentile of the
    activations). Scales are taken while whole inputs and long streams run, so that states stay within them. If accuracy on
    validation falls by more than `max_drop`, the layers whose rounding changes the outputs most go back to float.
    """

    #: integer type of activations: "uint8" (with zero point), "int8" (symmetric), or "auto" for what the target's stack wants
    activation: str = "auto"
    #: layers with fewer weights stay float: rounding costs them more than it saves
    min_weights: int = 4096
    #: names or name endings of layers that stay float
    keep_float: tuple[str, ...] = ("head",)
    #: accuracy on validation that may be given up before layers go back to float, in [0, 1]
    max_drop: float = 0.005
    #: inputs that the scales are taken on
    calibration: int = 96
    #: inputs that follow one another in each of 8 calibration streams
    stream_inputs: int = 4
    #: validation examples that judge the result
    examples: int = 320

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.activation not in ("auto", "uint8", "int8"):
            raise RecipeError(f"quantize: activation must be auto, uint8 or int8, got {self.activation!r}; correct the recipe")
        if not 0.0 <= self.max_drop <= 1.0 or self.calibration < 1 or self.stream_inputs < 1:
            raise RecipeError(
                "quantize: max_drop must be in [0, 1], calibration and stream_inputs at least 1, "
                f"got {self.max_drop}, {self.calibration} and {self.stream_inputs}; correct the recipe"
            )

    def check(self, bundle: Bundle) -> None:
        """There must be data and a layer that is large enough."""
        if bundle.data is None:
            raise PreconditionError(
                "quantize: needs calibration data, got a model without a task; name one with --task and its data with --data"
            )
        if not self._layers(bundle.module):
            raise PreconditionError(
                f"quantize: needs a linear or convolution layer of at least {self.min_weights} weights, got none in "
                f"{bundle.name}; lower min_weights or leave quantize out"
            )

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.core import registry

        assert bundle.data is not None
        kind = self._activation(bundle)
        inputs = bundle.data.calibration(self.calibration)
        layers = self._layers(bundle.module)
        scales = _calibrate(bundle, layers, inputs, kind, self.stream_inputs)
        split = _part(bundle.data.split("validation"), self.examples)
        task = registry.load("task", bundle.task)

        def correct(body: nn.Module) -> int:
            result: int = task.score(replace(bundle, body=body).predict(), split, official_only=False).correct
            return result

        before = correct(bundle.module)
        chosen = list(layers)
        floating: list[str] = []
        ranking: list[str] | None = None
        while True:
            body = _quantized(bundle.module, chosen, scales, kind)
            drop = (before - correct(body)) / len(split.labels)
            if drop <= self.max_drop or len(chosen) == 1:
                break
            ranking = ranking or _sensitivity(bundle, layers, scales, kind, inputs)
            floating.append(ranking[len(floating)])
            chosen.remove(floating[-1])
        notes = {
            "activation": kind,
            "layers": len(chosen),
            "kept_float": floating + [n for n in _candidates(bundle.module) if n not in layers],
            "accuracy_drop": drop,
            "examples": len(split.labels),
            "calibration_inputs": len(inputs),
            "streamed_steps": self.stream_inputs * _steps(bundle) if bundle.signature.is_streaming else 0,
        }
        return PassResult(body, True, notes, {"activation": kind, "layers": chosen})

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Put empty integer layers in the same places; codes and scales come afterwards."""
        for name in structure["layers"]:
            body.set_submodule(name, _empty(body.get_submodule(name), structure["activation"]))
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
    """Plain linear and convolution layers, with their number of weights."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return {name: m.weight.numel() for name, m in body.named_modules() if type(m) in kinds}


class _quiet(warnings.catch_warnings):  # noqa: N801
    """brevitas warns about its own deprecations when it is imported."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def _calibrate(bundle: Bundle, names: Iterable[str], inputs: Tensor, kind: str, stream_inputs: int) -> dict[str, Any]:
    """For each layer brevitas's (codes, weight scales, input scale, input zero point)."""
    import torch
    from torch import nn

    with _quiet():
        import brevitas.nn as qnn
        from brevitas.graph.calibrate import calibration_mode
        from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, ShiftedUint8ActPerTensorFloat

    options: dict[str, Any] = {
        "weight_quant": Int8WeightPerChannelFloat,
        "input_quant": ShiftedUint8ActPerTensorFloat if kind == "uint8" else Int8ActPerTensorFloat,
    }
    body = copy.deepcopy(bundle.module)
    for name in names:
        layer: Any = body.get_submodule(name)
        if type(layer) is nn.Linear:
            twin = qnn.QuantLinear(layer.in_features, layer.out_features, bias=layer.bias is not None, **options)
        else:
            conv = qnn.QuantConv1d if type(layer) is nn.Conv1d else qnn.QuantConv2d
            twin = conv(
                layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride, padding=layer.padding,
                dilation=layer.dilation, groups=layer.groups, bias=layer.bias is not None, **options,
            )  # fmt: skip
        twin.load_state_dict(layer.state_dict(), strict=False)
        body.set_submodule(name, twin.eval())
    made = replace(bundle, body=body)
    with torch.no_grad(), calibration_mode(body):
        predict = made.predict()
        for part in torch.split(inputs, 32):
            predict(part)
        if made.signature.is_streaming and made.clip is not None:
            _stream(made, inputs, stream_inputs)
    found: dict[str, Any] = {}
    with torch.no_grad():
        for name in names:
            twin = body.get_submodule(name)
            weight = twin.quant_weight()  # type: ignore[operator]
            quantizer: Any = twin.input_quant
            scale, zero = float(quantizer.scale()), round(float(quantizer.zero_point()))
            found[name] = (weight.int().to(torch.int8), weight.scale.flatten(), scale, zero)
    return found


def _stream(bundle: Bundle, inputs: Tensor, count: int, streams: int = 8) -> None:
    """Run the step form over streams of `count` whole inputs each, end to end, from the initial state."""
    import torch

    streams = max(1, min(streams, len(inputs) // count))
    frames = inputs[: streams * count].reshape(streams, -1, *inputs.shape[2:])
    state = tuple(_initial(s, streams) for s in bundle.signature.state)
    outputs = len(bundle.signature.outputs)
    with torch.no_grad():
        for t in range(frames.shape[1]):
            state = bundle.module(frames[:, t : t + 1], *state)[outputs:]


def _initial(state: Any, streams: int) -> Tensor:
    import torch

    shape = state.spec.concrete()[1:]
    first = torch.tensor(state.init).reshape(1, *shape) if state.init else torch.zeros(1, *shape)
    return first.expand(streams, *shape).clone()


def _steps(bundle: Bundle) -> int:
    clip = bundle.clip
    return int(clip.inputs[0].concrete()[1]) if clip is not None else 0


def _empty(layer: Any, kind: str) -> nn.Module:
    from torch import nn

    from edgetk.models.layers.quantized import QuantConv, QuantLinear

    if type(layer) is nn.Linear:
        return QuantLinear(layer.in_features, layer.out_features, kind)  # type: ignore[arg-type]
    return QuantConv(layer, kind)  # type: ignore[arg-type]


def _quantized(original: nn.Module, names: Iterable[str], scales: Mapping[str, Any], kind: str) -> nn.Module:
    body = copy.deepcopy(original)
    for name in names:
        layer: Any = body.get_submodule(name)
        made: Any = _empty(layer, kind)
        codes, weight_scale, scale, zero = scales[name]
        made.weight.copy_(codes)
        made.scale.copy_(weight_scale)
        if layer.bias is not None:
            made.bias.copy_(layer.bias.detach())
        made.input.scale.fill_(scale)
        made.input.zero_point.fill_(zero)
        body.set_submodule(name, made)
    return body


def _sensitivity(bundle: Bundle, names: list[str], scales: Mapping[str, Any], kind: str, inputs: Tensor) -> list[str]:
    """Layers by how much rounding each one alone changes the outputs, the worst first."""
    import torch

    part = inputs[:32]
    with torch.inference_mode():
        before = bundle.predict()(part)
        change = {}
        for name in names:
            alone = replace(bundle, body=_quantized(bundle.module, [name], scales, kind))
            change[name] = float((alone.predict()(part) - before).square().mean())
    return sorted(names, key=lambda name: -change[name])


def _part(split: Split, n: int) -> Split:
    """About `n` examples spread evenly over a split."""
    step = max(1, len(split.labels) // n)
    return Split(split.name, split.features[::step], split.labels[::step], split.origin)


PASS = Quantize
