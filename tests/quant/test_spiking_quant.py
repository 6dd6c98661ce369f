"""Inputs that lie on a grid keep it, weights get power-of-two scales, and a quantized spiking stream equals its clip."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quant_models import Noise, user
from spiking_nets import clips, last_decision, spikes
from torch import Tensor, nn

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.export import parity
from edgetk.export.lower import lower
from edgetk.models.layers.exact import put_on_grid
from edgetk.models.layers.qdq import CODES, IntegerType, dequantize_weight, quantize_dequantize
from edgetk.models.layers.quantized import QuantLinear
from edgetk.quant._calibrate import Grid, calibrate
from edgetk.quant.quantize import Quantize
from edgetk.targets import board
from edgetk.toolkit import checkpoint


def codes(kind: str, *parts: list[float]) -> tuple[float, int] | None:
    grid = Grid()
    for part in parts:
        grid.add(torch.tensor(part))
    return grid.codes(kind)


@pytest.mark.parametrize(
    ("values", "unsigned", "signed"),
    [
        ([0.0, 1.0, 1.0], (1.0, 0), (1.0, 0)),  # spikes
        ([-2.0, 127 / 64, 1 / 64], (2.0**-6, 128), (2.0**-6, 0)),  # features of 8 bits
        ([0.0, 200.0, 1.0], (1.0, 0), None),
        ([-3.0, 200.0], (1.0, 3), None),
        ([6.0, -4.0], (2.0, 128), (2.0, 0)),
        ([0.75], (0.25, 0), (0.25, 0)),
        ([255.0, 1.0], (1.0, 0), None),
        ([256.0, 1.0], None, None),
        ([0.0, 0.0], (1.0, 0), (1.0, 0)),
        ([0.1, 0.7], None, None),
        ([1.0, float("inf")], None, None),
        ([1.0, float("nan")], None, None),
    ],
)
def test_grids_and_the_codes_that_hold_them(
    values: list[float], unsigned: tuple[float, int] | None, signed: tuple[float, int] | None
) -> None:
    assert (codes("uint8", values), codes("int8", values)) == (unsigned, signed)


def test_a_grid_is_that_of_all_calls() -> None:
    assert codes("uint8", [0.0], [4.0], [1.0, 2.0], [0.0, 0.5]) == (0.5, 0)
    assert codes("uint8", [4.0], [-4.0]) == (4.0, 128)
    assert codes("uint8", [0.3], [1.0]) is None
    assert codes("uint8", [1.0], [1 / 256], [0.0]) is None


@given(st.lists(st.integers(-128, 127), min_size=1), st.integers(-12, 12), st.sampled_from(["uint8", "int8"]))
def test_rounding_to_a_grid_costs_nothing(points: list[int], exponent: int, kind: IntegerType) -> None:
    x = torch.tensor(points, dtype=torch.float32) * 2.0**exponent
    grid = Grid()
    grid.add(x)
    found = grid.codes(kind)
    assert found is not None
    assert torch.equal(quantize_dequantize(x, *found, kind), x)


def quantized(bundle: Bundle, **settings: object) -> Bundle:
    made = Quantize(min_weights=64, max_drop=1.0, max_change=1.0, **settings)  # type: ignore[arg-type]
    made.check(bundle)
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    return bundle.with_body(result.body.eval(), PassRecord("quantize", {}, result.notes, result.structure))


@pytest.fixture
def folded(spiking: Bundle) -> Bundle:
    net = spikes(spiking)
    net.fold_norms()
    return replace(spiking, signature=net.stream_signature())


def clip(bundle: Bundle, x: Tensor) -> Tensor:
    with torch.no_grad():
        return spikes(bundle).clip(x)


def integers(net: nn.Module) -> dict[str, QuantLinear]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, QuantLinear)}


def is_power_of_two(x: Tensor) -> bool:
    return bool((torch.frexp(x).mantissa == 0.5).all())


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_quantized_spiking_stream_equals_its_clip_bit_for_bit(folded: Bundle, kind: str) -> None:
    after = quantized(folded, activation=kind)
    x = clips(folded)[:6]
    layers = integers(after.module)
    assert layers.keys() >= {"embed.convs.0.taps", "mixer.memory.taps", "mixer.read_memory", "channels.reduce"}
    for name, layer in layers.items():
        assert is_power_of_two(layer.scale), name
        assert layer.weight.dtype == torch.int8
        step, zero = float(layer.input.scale), int(layer.input.zero_point)
        first = name == "embed.convs.0.taps"
        assert (step, zero) == ((2.0**-6, 128 if kind == "uint8" else 0) if first else (1.0, 0)), name
    whole = clip(after, x)
    assert float(whole.std(0).max()) > 0
    assert torch.equal(last_decision(after, x), whole)
    assert torch.equal(torch.cat([clip(after, one) for one in torch.split(x, 1)]), whole)


def test_only_weights_are_rounded(folded: Bundle) -> None:
    after = quantized(folded)
    plain = copy.deepcopy(spikes(after))
    for name, layer in integers(plain).items():
        linear = nn.Linear(layer.in_features, layer.out_features)
        with torch.no_grad():
            linear.weight.copy_(dequantize_weight(layer.weight, layer.scale))
            linear.bias.copy_(layer.bias)
        plain.set_submodule(name, linear)
    x = clips(folded)[:6]
    assert torch.equal(clip(replace(after, body=plain), x), clip(after, x))


def test_the_notes_tell_formats(folded: Bundle) -> None:
    after = quantized(folded)
    notes = after.lineage[-1].notes
    assert notes["states"] == "float32"
    assert notes["exact_inputs"] == {n: 2.0**-6 if n == "embed.convs.0.taps" else 1.0 for n in integers(after.module)}
    assert notes["kept_float"] == ["mixer.encoder", "head"]
    assert after.signature == spikes(after).stream_signature()


def test_a_layer_that_is_not_called_stays_float(folded: Bundle) -> None:
    after = quantized(folded, keep_float=())
    assert type(spikes(after).head) is nn.Linear
    assert "head" in after.lineage[-1].notes["kept_float"]


def test_codes_and_scales_survive_a_file(folded: Bundle, tmp_path: Path) -> None:
    spiking = folded
    after = quantized(replace(spiking, lineage=(PassRecord("fold", {}, {}, {"folded": [], "signs": _signs(spiking)}),)))
    file = tmp_path / "int8.safetensors"
    file.write_bytes(checkpoint.save_model(after))
    loaded = checkpoint.load_model(file)
    assert torch.equal(clip(loaded, clips(spiking)[:4]), clip(after, clips(spiking)[:4]))


def _signs(bundle: Bundle) -> dict[str, int]:
    from edgetk.models.layers.norm import Sign

    return {name: m.sign.numel() for name, m in bundle.module.named_modules() if isinstance(m, Sign)}


def test_rows_of_the_memory_have_scales_of_their_own(folded: Bundle) -> None:
    memory = spikes(quantized(folded)).mixer.memory
    assert isinstance(memory.taps, QuantLinear)
    before = spikes(folded).mixer.memory.taps
    assert isinstance(before, nn.Linear)
    assert memory.taps.scale.shape == (16,)
    assert len(set(memory.taps.scale.tolist())) > 1
    steps = (dequantize_weight(memory.taps.weight, memory.taps.scale) - before.weight).abs() / memory.taps.scale[:, None]
    ends = memory.taps.weight.abs() == 127  # the largest weight of a row may be 128 steps
    assert float(steps[~ends].max()) <= 0.5
    assert float(steps.max()) <= 1.0
    assert int(memory.taps.weight.abs().amax(1).min()) >= 64
    u = (torch.rand(3, 24, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    whole, past = memory.clip(u), torch.zeros(3, 23)
    for t in range(24):
        m, past = memory.step(u[:, t : t + 1], past)
        assert torch.equal(m, whole[:, t])


def test_onnxruntime_gives_the_same_bits_with_all_optimisations(folded: Bundle) -> None:
    after = quantized(folded, activation="uint8")
    assert after.clip is not None
    (low,) = lower(after, board.load("host"), ["stream"])
    assert low.precision == "int8"
    frames = parity.steps_of(clips(folded)[:3].numpy(), after.clip.inputs[0], after.signature.inputs[0])
    assert parity.prove(low, low.graph, [frames]).max_abs == 0.0


def test_integer_rows_that_are_too_fine_for_their_sum_get_a_coarser_grid() -> None:
    fine, coarse = QuantLinear(2, 2, "uint8"), nn.Linear(2, 2)
    with torch.no_grad():
        fine.weight.copy_(torch.tensor([[127, -64], [127, 3]]))
        fine.scale.copy_(torch.tensor([2.0**-22, 2.0**-10]))
        fine.bias.copy_(torch.tensor([1 / 3, 0.0]))
        coarse.weight.copy_(torch.tensor([[20.0, 10.0], [0.5, 0.25]]))
        coarse.bias.zero_()
    put_on_grid([fine, coarse])
    # row 0 sums to just above 30, so that 2^-19 is its finest step: 127 / 8 and -64 / 8, to the nearest whole numbers
    assert fine.scale.tolist() == [2.0**-19, 2.0**-10]
    assert fine.weight.tolist() == [[16, -8], [127, 3]]
    assert float(fine.bias[0]) == round(2**19 / 3) / 2**19
    kept = {k: v.clone() for k, v in fine.state_dict().items()}
    put_on_grid([fine, coarse])
    assert all(torch.equal(v, kept[k]) for k, v in fine.state_dict().items())


def test_a_row_of_zeros_has_codes_of_zero() -> None:
    first = nn.Linear(8, 16)
    net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 3))
    with torch.no_grad():
        first.weight[3] = 0.0
    data = Noise()
    data.features = (data.features > 0).float()
    found = calibrate(user(net, data), ["0"], data.features, "uint8", 1)["0"]
    assert found.grid
    assert bool(found.weight_scale.isfinite().all())
    assert is_power_of_two(found.weight_scale)
    assert int(found.codes[3].abs().max()) == 0


def test_layers_that_read_anything_else_have_free_scales() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 3))
    data = Noise()
    after = quantized(user(net, data))
    assert after.lineage[-1].notes["exact_inputs"] == {}
    assert after.lineage[-1].notes["states"] == "none"
    first = after.module.get_submodule("0")
    assert isinstance(first, QuantLinear)
    assert not is_power_of_two(first.scale)
    assert float(first.scale.max()) < 1.0 < CODES["int8"][2]


def test_moved_spikes_keep_no_layer_float_as_long_as_the_answers_stay(folded: Bundle) -> None:
    made = Quantize(min_weights=64, max_drop=1.0, max_change=0.0)
    notes = made(replace(folded, body=copy.deepcopy(folded.body))).notes
    assert max(notes["output_change"].values()) > 0
    assert set(notes["kept_float"]).isdisjoint(notes["output_change"])
