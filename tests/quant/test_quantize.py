"""Quantization: codes and scales by hand, sensitive layers back to float, streams inside the range, the exported file equal."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from quant_models import CLASSES, Noise, adder, lmuformer, user
from torch import Tensor, nn

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.export.lower import lower
from edgetk.export.to_onnx import EXPORTER
from edgetk.models.layers.quantized import QuantConv, QuantLinear
from edgetk.quant._calibrate import calibrate
from edgetk.quant.quantize import Quantize
from edgetk.targets import board
from edgetk.toolkit import checkpoint

ALL = Quantize(min_weights=64, max_change=1.0, max_drop=1.0)


def applied(made: Quantize, bundle: Bundle) -> Bundle:
    made.check(bundle)
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    after = bundle.with_body(result.body, PassRecord("quantize", {}, result.notes, result.structure))
    after.module.eval()
    return after


def outputs(bundle: Bundle, x: Tensor) -> Tensor:
    with torch.no_grad():
        return bundle.predict()(x)


def two_layers(data: Noise | None = None) -> Bundle:
    torch.manual_seed(0)
    return user(nn.Sequential(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, CLASSES)), data or Noise())


def test_weights_are_scaled_by_the_largest_of_each_output() -> None:
    bundle = two_layers()
    layer = bundle.module.get_submodule("1")
    weight = layer.weight.detach().clone()  # type: ignore[operator, union-attr]
    after = applied(replace(ALL, min_weights=1000), bundle)
    made = after.module.get_submodule("1")
    assert isinstance(made, QuantLinear)
    scale = weight.abs().amax(dim=1) / 127
    torch.testing.assert_close(made.scale, scale)
    assert torch.equal(made.weight, (weight / made.scale[:, None]).round().to(torch.int8))
    assert made.weight.abs().max() == 127
    assert torch.equal(made.bias, layer.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_inputs_are_scaled_by_the_range_of_all_that_was_read(kind: str) -> None:
    bundle = two_layers(Noise(n=8))
    x = bundle.data.calibration(8)  # type: ignore[union-attr]
    made: Any = applied(replace(ALL, activation=kind), bundle).module.get_submodule("1")
    low, high = float(x.min()), float(x.max())
    if kind == "uint8":
        assert float(made.input.scale) == pytest.approx((high - low) / 255, rel=1e-5)
        assert int(made.input.zero_point) == round(-low / float(made.input.scale))
        assert made.input.zero_point.dtype == torch.uint8
    else:
        assert float(made.input.scale) == pytest.approx(max(high, -low) / 128, rel=0.01)
        assert int(made.input.zero_point) == 0
        assert made.input.zero_point.dtype == torch.int8


@pytest.mark.parametrize(("kind", "offset"), [("uint8", 3.0), ("uint8", -3.0), ("int8", 3.0)])
def test_inputs_far_from_zero_are_not_cut_off(kind: str, offset: float) -> None:
    data = Noise(n=16, scale=0.2)
    data.features += offset
    made: Any = applied(replace(ALL, activation=kind), two_layers(data)).module.get_submodule("1")
    error = (made.input(data.features) - data.features).abs().max()
    assert float(error) <= float(made.input.scale) * 1.01


def test_activation_auto_is_what_the_target_wants() -> None:
    bundle = two_layers()
    kinds = {}
    for name in ("host", "jetson-orin-nano-8g", "stm32h7a3"):
        target = board.load(name)
        after = applied(ALL, replace(bundle, target=target))
        kinds[target.stack.activation] = after.lineage[-1].notes["activation"]
        explicit = applied(replace(ALL, activation="int8"), replace(bundle, target=target))
        assert explicit.lineage[-1].notes["activation"] == "int8"
    assert kinds == {"uint8": "uint8", "int8": "int8"}
    assert applied(ALL, bundle).lineage[-1].notes["activation"] == "uint8"


def test_small_layers_and_named_ones_stay_float() -> None:
    bundle = lmuformer()
    after = applied(ALL, bundle)
    assert type(after.module.get_submodule("head")) is nn.Linear
    assert type(after.module.get_submodule("mixer.encoder")) is nn.Linear
    assert after.lineage[-1].notes["kept_float"] == ["mixer.encoder", "head"]
    assert after.lineage[-1].notes["layers"] == 9
    named = applied(replace(ALL, keep_float=("taps", "mixer.proj")), bundle)
    quantized = [name for name, m in named.module.named_modules() if isinstance(m, QuantLinear)]
    assert quantized == ["mixer.hidden", "channels.expand", "channels.reduce"]
    partly = applied(replace(ALL, keep_float=("oj",)), bundle)
    assert isinstance(partly.module.get_submodule("mixer.proj"), QuantLinear), "endings are whole words of the path"


class Sensitive(nn.Module):
    """Decides by small differences beside a constant that is much larger: 8 bits hardly see them."""

    def __init__(self) -> None:
        super().__init__()
        self.robust = nn.Linear(128, 3)
        self.fragile = nn.Linear(129, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        large = torch.full((len(flat), 1), 400.0)
        y: Tensor = (
            1e-3 * self.robust(flat)
            + self.fragile(torch.cat([flat, large], dim=1))
            - self.fragile(torch.cat([torch.zeros_like(flat), large], dim=1))
        )
        return y


def test_layers_that_cost_accuracy_go_back_to_float() -> None:
    torch.manual_seed(0)
    bundle = user(Sensitive(), Noise())
    broken = applied(ALL, bundle)
    assert broken.lineage[-1].notes["accuracy_drop"] > 0.1
    assert broken.lineage[-1].notes["layers"] == 2
    after = applied(replace(ALL, max_drop=0.05), bundle)
    assert type(after.module.get_submodule("fragile")) is nn.Linear
    assert isinstance(after.module.get_submodule("robust"), QuantLinear)
    assert after.lineage[-1].notes["kept_float"] == ["fragile"]
    assert after.lineage[-1].notes["accuracy_drop"] <= 0.05
    assert after.lineage[-1].structure == {"activation": "uint8", "layers": ["robust"]}


def test_layers_that_change_the_outputs_go_back_to_float_whatever_the_accuracy() -> None:
    torch.manual_seed(0)
    bundle = user(Sensitive(), Noise())
    after = applied(replace(ALL, max_change=0.01), bundle)
    notes = after.lineage[-1].notes
    assert notes["output_change"]["fragile"] > 0.05 > 0.01 > notes["output_change"]["robust"]
    assert notes["kept_float"] == ["fragile"]
    assert after.lineage[-1].structure == {"activation": "uint8", "layers": ["robust"]}


def test_nothing_is_quantized_where_every_layer_costs_too_much() -> None:
    torch.manual_seed(0)
    bundle = user(Sensitive(), Noise())
    result = replace(ALL, max_drop=0.0, keep_float=("robust",))(bundle)
    assert (result.modified, result.body, result.structure) == (False, bundle.body, None)
    assert result.notes["kept_float"] == ["fragile"]
    assert result.notes["accuracy_drop"] > 0.1


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_structure_and_codes_survive_a_file(kind: str, tmp_path: Path) -> None:
    bundle = lmuformer()
    made = replace(ALL, activation=kind)
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    assert result.structure is not None
    fresh = lmuformer().module
    fresh = made.rebuild(fresh, result.structure)
    fresh.load_state_dict(result.body.state_dict(), strict=True)
    x = bundle.data.calibration(8)  # type: ignore[union-attr]
    after = replace(bundle, body=result.body)
    assert torch.equal(outputs(replace(bundle, body=fresh), x), outputs(after, x))
    record = (PassRecord("fold", {}, {}, {"folded": [], "signs": {}}), PassRecord("quantize", {}, {}, result.structure))
    file = tmp_path / "int8.safetensors"
    file.write_bytes(checkpoint.save_model(replace(after, lineage=record)))
    assert torch.equal(outputs(checkpoint.load_model(file), x), outputs(after, x))


def test_states_that_only_grow_in_streams_stay_inside_the_range() -> None:
    data = Noise(n=16, shape=(4, 6), scale=0.1)
    data.features += 1.0
    bundle = adder(data)
    in_clips = float(data.features.sum(2).max())
    scales = calibrate(bundle, ["read"], data.calibration(16), "uint8", 4)["read"]
    highest = (255 - scales.zero_point) * scales.scale
    in_streams = float(data.features.reshape(4, 4, 4, 6).sum((1, 3)).max())  # four clips end to end
    assert in_streams > 3.5 * in_clips
    assert highest == pytest.approx(in_streams, rel=0.01)
    after = applied(replace(ALL, min_weights=1), bundle)
    assert after.lineage[-1].notes["streamed_steps"] == 4 * 6
    short = calibrate(bundle, ["read"], data.features, "uint8", 1)["read"]
    assert (255 - short.zero_point) * short.scale == pytest.approx(in_clips, rel=0.01)


def test_accuracy_and_outputs_stay_close() -> None:
    bundle = lmuformer()
    after = applied(ALL, bundle)
    x = bundle.data.calibration(64)  # type: ignore[union-attr]
    before = outputs(bundle, x)
    assert float((outputs(after, x) - before).square().mean() / before.var()) < 0.02
    assert after.lineage[-1].notes["accuracy_drop"] < 0.1


class Picture(nn.Module):
    """Convolutions as users write them: strided, grouped, padded by name, without a bias, and one that wraps around."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=2, bias=False)
        self.wrapping = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x[:, None]))))
        y: Tensor = self.head(torch.relu(self.wrapping(x)).mean(dim=(2, 3)))
        return y


def test_a_users_convolutions() -> None:
    torch.manual_seed(0)
    data = Noise()
    bundle = user(Picture(), data)
    after = applied(ALL, bundle)
    kinds = {name: type(m) for name, m in after.module.named_children()}
    assert (
        kinds == {"first": QuantConv, "grouped": QuantConv, "wrapping": nn.Conv2d, "head": nn.Linear}
        or kinds["first"] is nn.Conv2d
    )
    assert kinds["grouped"] is QuantConv
    assert kinds["wrapping"] is nn.Conv2d, "an integer layer pads with zeros only"
    before = outputs(bundle, data.features)
    assert float((outputs(after, data.features) - before).square().mean() / before.var()) < 0.02
    fresh = ALL.rebuild(Picture(), after.lineage[-1].structure or {})
    fresh.load_state_dict(after.module.state_dict(), strict=True)
    assert torch.equal(outputs(replace(after, body=fresh.eval()), data.features), outputs(after, data.features))


@pytest.mark.parametrize("target", ["host", "jetson-orin-nano"])
def test_exported_files_compute_the_same_with_integer_weights(target: str) -> None:
    if target not in board.names():
        target = next(name for name in board.names() if board.load(name).stack.activation == "int8")
    bundle = replace(lmuformer(), target=board.load(target))
    after = applied(ALL, bundle)
    lowered = lower(after, board.load(target))
    assert {low.precision for low in lowered} == {"int8"}
    files = {e.lowered.form: e for e in EXPORTER(lowered, after, board.load(target), {}) if e.format == "onnx"}
    assert files.keys() == {"clip", "stream"}
    for emitted in files.values():
        assert emitted.parity is not None
        assert emitted.parity.passed
        model = onnx.load_from_string(emitted.content)
        codes = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 2]
        expected = sum(m.weight.numel() for m in after.module.modules() if isinstance(m, QuantLinear))
        assert sum(onnx.numpy_helper.to_array(i).size for i in codes) == expected
        floats = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
        assert max(onnx.numpy_helper.to_array(i).size for i in floats) < 200, "no large weights stay in float"


def test_what_cannot_be_quantized_is_refused() -> None:
    bundle = lmuformer()
    with pytest.raises(PreconditionError, match=r"quantize: needs calibration data, got a model without a task; name one with"):
        Quantize().check(replace(bundle, data=None))
    with pytest.raises(
        PreconditionError, match=r"of at least 4096 weights, got none in lmuformer-xs; lower min_weights or leave"
    ):
        Quantize().check(bundle)
    with pytest.raises(PreconditionError, match=r"of at least 1 weights, got none in lmuformer-xs"):
        Quantize(min_weights=1, keep_float=("encoder", "head")).check(applied(replace(ALL, min_weights=17), bundle))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"activation": "int4"}, r"quantize: activation must be auto, uint8 or int8, got 'int4'; correct the recipe"),
        ({"max_change": -1.0}, r"quantize: max_change must be in \[0, 1\], got -1\.0; correct the recipe"),
        ({"max_drop": 2.0}, r"quantize: max_drop must be in \[0, 1\], got 2\.0; correct the recipe"),
        ({"calibration": 0}, r"calibration, stream_inputs and examples must be at least 1, got 0, 4 and 1000; correct"),
        ({"stream_inputs": 0}, r"calibration, stream_inputs and examples must be at least 1, got 96, 0 and 1000; correct"),
        ({"examples": 0}, r"calibration, stream_inputs and examples must be at least 1, got 96, 4 and 0; correct"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Quantize(**settings)
