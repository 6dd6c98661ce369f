"""Scales for integer layers: the range or the grid of what each one reads, whole inputs and streams, made codes by brevitas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.models.layers.dense_sparse import SparseFactor
from edgetk.models.layers.dense_sparse_int8 import line_codes
from edgetk.models.layers.memory_layer import MemoryLayer, column_codes
from edgetk.models.layers.observe import inputs_of
from edgetk.models.layers.qdq import CODES

#: share of the values read that may lie beyond each end of the range: a few outliers would make every step coarser
OUTLIERS = 1e-5
#: most extreme values kept at each end while they are counted; exact up to KEPT / OUTLIERS values, wider above
KEPT = 512
#: how many values 8 bits tell apart
STEPS = 256


class Scales(NamedTuple):
    """What an integer layer needs: int8 codes shaped as the weights, a scale per output, scale and zero point of its input.

    `grid`: the input lies on a grid that its codes hold without rounding, and the weights' scales are powers of two.
    """

    codes: Tensor
    weight_scale: Tensor
    scale: float
    zero_point: int
    grid: bool


class Range:
    """The values that all but `OUTLIERS` of everything added lie between, and zero, which must have a code of its own."""

    def __init__(self) -> None:
        self._low, self._high, self.count = torch.empty(0), torch.empty(0), 0

    def add(self, x: Tensor) -> None:
        """Values of any shape."""
        flat = x.detach().flatten().float()
        size = min(KEPT, len(flat))
        self._low = torch.cat([self._low, flat.topk(size, largest=False).values]).sort().values[:KEPT]
        self._high = torch.cat([self._high, flat.topk(size).values]).sort(descending=True).values[:KEPT]
        self.count += len(flat)

    def ends(self) -> tuple[float, float]:
        """Low <= 0 and high >= 0."""
        skipped = min(math.floor(OUTLIERS * self.count), KEPT - 1)
        return min(float(self._low[skipped]), 0.0), max(float(self._high[skipped]), 0.0)


class Grid:
    """The coarsest power-of-two grid that everything added lies on, as long as 8 bits can name all its points in use.

    Spikes have the step 1. Rounding to such a grid costs nothing, and sums over it can be exact.
    """

    def __init__(self) -> None:
        self._step, self._low, self._high = 0.0, 0.0, 0.0  # no step yet: nothing but zeros

    def add(self, x: Tensor) -> None:
        """Values of any shape."""
        if math.isnan(self._step):
            return
        low, high = (float(end) for end in x.detach().float().aminmax())
        self._low, self._high = min(self._low, low), max(self._high, high)
        largest = max(-self._low, self._high)
        if not math.isfinite(low + high):
            self._step = math.nan
        elif not self._step and largest:
            self._step = 2.0 ** math.floor(math.log2(largest))
        while self._step and not math.isnan(self._step):
            if not (self._high - self._low) / self._step <= STEPS - 1:
                self._step = math.nan
            elif bool((x.detach() % self._step == 0).all()):
                break
            else:
                self._step /= 2

    def codes(self, kind: str) -> tuple[float, int] | None:
        """Scale and zero point of codes of `kind` that hold the grid as it is; None where there are none.

        A whole zero point: 0 where that does, the middle of the codes else, and last what fits the lowest value.
        """
        if math.isnan(self._step):
            return None
        step = self._step or 1.0
        first, last = round(self._low / step), round(self._high / step)
        _, lowest, highest = CODES[kind]
        for zero in (0, STEPS // 2, -first) if kind == "uint8" else (0,):
            if lowest <= first + zero and last + zero <= highest:
                return step, zero
        return None


def calibrate(bundle: Bundle, names: Iterable[str], inputs: Tensor, kind: str, stream_inputs: int) -> Mapping[str, Scales]:
    """The scales of those layers of `names` that were called, with activations of type `kind` ("uint8" or "int8").

    `inputs` (n, …) run through the whole-input form, then end to end, `stream_inputs` after one another, through the stream:
    states may grow larger there. Every value counts the same, however many calls it came in.
    """
    seen = {name: (Range(), Grid()) for name in names}

    def taker(extent: Range, grid: Grid) -> Callable[[Tensor], None]:
        def take(x: Tensor) -> None:
            extent.add(x)
            grid.add(x)

        return take

    with inputs_of(bundle.module, {name: taker(*found) for name, found in seen.items()}), torch.no_grad():
        predict = bundle.predict()
        for part in torch.split(inputs, 32):
            predict(part)
        if bundle.signature.is_streaming and bundle.clip is not None:
            _stream(bundle, inputs, stream_inputs)
    return {
        name: _scales(bundle.module.get_submodule(name), extent.ends(), grid.codes(kind), kind)
        for name, (extent, grid) in seen.items()
        if extent.count
    }


def _scales(layer: Any, ends: tuple[float, float], grid: tuple[float, int] | None, kind: str) -> Scales:
    """On a `grid` (scale and zero point) the weights' scales are powers of two, so that sums of products are exact."""
    if isinstance(layer, MemoryLayer):  # its input is hashed, not rounded
        return Scales(*column_codes(layer.tables.detach()), 1.0, 0, False)
    if isinstance(layer, SparseFactor):  # what it reads stays as its dictionary, or the layer before, left it
        return Scales(*line_codes(layer.values.detach()), 1.0, 0, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # brevitas warns about its own deprecations when it is imported
        import brevitas.nn as qnn
        from brevitas.graph.calibrate import calibration_mode
        from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, ShiftedUint8ActPerTensorFloat
        from brevitas.quant.fixed_point import Int8WeightPerChannelFixedPoint

    options: dict[str, Any] = {
        "weight_quant": Int8WeightPerChannelFixedPoint if grid else Int8WeightPerChannelFloat,
        "input_quant": ShiftedUint8ActPerTensorFloat if kind == "uint8" else Int8ActPerTensorFloat,
        "bias": False,
    }
    if type(layer) is nn.Linear:
        twin = qnn.QuantLinear(layer.in_features, layer.out_features, **options)
    else:
        conv = qnn.QuantConv1d if type(layer) is nn.Conv1d else qnn.QuantConv2d
        twin = conv(layer.in_channels, layer.out_channels, layer.kernel_size, groups=layer.groups, **options)
    twin.load_state_dict({"weight": layer.weight.detach()}, strict=False)
    twin.eval()
    with torch.no_grad():
        with calibration_mode(twin):
            twin.input_quant(torch.tensor(ends))
        weight = twin.quant_weight()
        scale, zero_point = grid or (float(twin.input_quant.scale()), round(float(twin.input_quant.zero_point())))
    return Scales(weight.int().to(torch.int8), weight.scale.flatten().detach(), scale, zero_point, grid is not None)


def _stream(bundle: Bundle, inputs: Tensor, count: int, streams: int = 8) -> None:
    """Run the step form over streams of `count` whole inputs each, end to end, from the initial state."""
    assert bundle.clip is not None
    axis, step = time_axis(bundle), bundle.signature.inputs[0]
    streams = max(1, min(streams, len(inputs) // count))
    used = inputs[: streams * count]
    frames = used.movedim(axis, 1).reshape(streams, -1, *step.concrete()[1:])
    state = tuple(_initial(s, streams) for s in bundle.signature.state)
    outputs = len(bundle.signature.outputs)
    for t in range(frames.shape[1]):
        state = bundle.module(frames[:, t], *state)[outputs:]


def time_axis(bundle: Bundle) -> int:
    """Which axis of the whole input is cut into steps: the one its signature calls T, else the first after the batch."""
    assert bundle.clip is not None
    axes = bundle.clip.inputs[0].axes.split()
    return axes.index("T") if "T" in axes else 1


def _initial(state: Any, streams: int) -> Tensor:
    shape = state.spec.concrete()[1:]
    first = torch.tensor(state.init).reshape(1, *shape) if state.init else torch.zeros(1, *shape)
    return first.expand(streams, *shape).clone()
