"""N:M sparsity: which weights stay, and that they alone stay through training, other passes, files and int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_models import Examples, Frozen, Words, applied, around, learned, outputs
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError, UsageError
from edgetk.models.layers.exact import settle
from edgetk.models.layers.quantized import QuantLinear
from edgetk.models.layers.sparse_pattern import held, largest_of, mark, pattern, project
from edgetk.passes.finetune import Finetune
from edgetk.passes.prune import Prune
from edgetk.passes.sparsify import Sparsify, speed
from edgetk.quant.quantize import Quantize
from edgetk.targets import board
from edgetk.toolkit import checkpoint

#: the second input is much larger than the others
X = torch.tensor([[1.0, 10.0, 0.0, 1.0], [-1.0, -10.0, 2.0, 1.0]])


def one_layer() -> Bundle:
    net = nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[4.0, 0.5, -3.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))
        net[0].bias.zero_()
    return around(net, 4, outputs=2, data=Examples(X))


@pytest.mark.parametrize(
    ("criterion", "first", "second"),
    [
        ("magnitude", [4.0, 0.0, -3.0, 0.0], [1.0, 1.0, 0.0, 0.0]),
        # root mean squares of the inputs: 1, 10, sqrt 2, 1
        ("activations", [0.0, 0.5, -3.0, 0.0], [0.0, 1.0, 1.0, 0.0]),
    ],
)
def test_by_hand(criterion: str, first: list[float], second: list[float]) -> None:
    after = applied(Sparsify(criterion=criterion, min_weights=8, calibration=2), one_layer())
    assert after.module[0].weight.tolist() == [first, second]
    record = after.lineage[-1]
    assert record.structure == {"n": 2, "m": 4, "layers": ["0"]}
    assert (record.notes["weights"], record.notes["nonzero"], record.notes["bytes_as_stored"]) == (8, 4, 32)
    assert record.notes["bytes_packed"] == 4 * (32 + 2) // 8
    gone = {"magnitude": 4.25 + 2, "activations": 20 + 2}[criterion]
    assert record.notes["lost_energy"] == {"0": pytest.approx(gone / 33.25, abs=1e-6)}


def test_taylor_by_hand() -> None:
    """With weights that give y = (0, 0) for both examples, gradients by the outputs are (-1/2, 1/2) and (1/2, -1/2)."""
    bundle = one_layer()
    with torch.no_grad():
        bundle.module[0].weight.copy_(torch.tensor([[5.0, -0.5, 0.0, -2.0], [-10.0, 1.0, 0.0, 0.0]]))
        bundle.module[0].bias.copy_(torch.tensor([2.0, 0.0]))
    assert outputs(bundle, X).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    # 4 (g w)^2 = x^2 w^2 is 25, 25, 0, 4 in row 0 of both examples, and 100, 100, 0, 0 in row 1
    after = applied(Sparsify(criterion="taylor", min_weights=8, calibration=2), bundle)
    assert after.module[0].weight.tolist() == [[5.0, -0.5, 0.0, 0.0], [-10.0, 1.0, 0.0, 0.0]]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(2, 9), st.integers(1, 8), st.booleans(), st.integers(0, 2**31))
def test_exactly_n_of_each_m(rows: int, inputs: int, m: int, n: int, levels: bool, seed: int) -> None:
    n = min(n, m - 1)
    scores = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed)).abs()
    scores = scores.round() if levels else scores
    kept = largest_of(scores, n, m)
    layer = nn.Linear(inputs, rows)
    with torch.no_grad():
        layer.weight.copy_(scores)
    mark(layer, n, m)
    project(layer)
    assert torch.equal(layer.weight, scores * kept)
    for first in range(0, inputs, m):
        group = kept[:, first : first + m]
        assert bool((group.sum(1) == min(n, group.shape[1])).all())
        assert bool((layer.weight[:, first : first + m].count_nonzero(1) <= n).all())
        lowest = scores[:, first : first + m].masked_fill(~group, float("inf")).min(1).values
        assert bool((scores[:, first : first + m].masked_fill(group, 0.0).max(1).values <= lowest).all())
    before = layer.weight.detach().clone()
    project(layer)
    assert torch.equal(layer.weight, before)


def sparse() -> Bundle:
    return applied(Sparsify(min_weights=64, criterion="activations", calibration=24), learned())


def zeros(net: nn.Module) -> dict[str, Tensor]:
    return {name: m.weight == 0 for name, m in net.named_modules() if pattern(m) is not None}


def keeps_to_the_pattern(net: nn.Module) -> bool:
    marked = [m for m in net.modules() if pattern(m) is not None]
    assert marked
    return all(bool((m.weight.abs() > 0).float()[:, : m.in_features // 4 * 4].view(-1, 4).sum(1).max() <= 2) for m in marked)


def test_fine_tuning_keeps_the_zeros_and_moves_the_rest() -> None:
    after = sparse()
    tuned = applied(Finetune(epochs=1, batch=32, lr=1e-2, augment="none", device="cpu"), after)
    assert keeps_to_the_pattern(tuned.module)
    for name, where in zeros(after.module).items():
        old, new = after.module.get_submodule(name).weight, tuned.module.get_submodule(name).weight
        assert isinstance(old, Tensor)
        assert isinstance(new, Tensor)
        assert bool((new[where] == 0).all())
        assert not torch.equal(old, new)


def test_training_inside_the_pass_is_that_of_finetune() -> None:
    train = {"epochs": 1, "batch": 32, "lr": 0.01, "augment": "none", "device": "cpu"}
    made = Sparsify(min_weights=64, criterion="activations", calibration=24, train=train)
    after = applied(made, learned())
    assert keeps_to_the_pattern(after.module)
    assert after.lineage[-1].notes["training"]["validation_n"] == 48
    expected = applied(Finetune(**train), sparse())  # type: ignore[arg-type]
    x = Words().calibration(8)
    assert torch.equal(outputs(after, x), outputs(expected, x))
    with pytest.raises(PreconditionError, match="finetune: needs training data, got none for"):
        made.check(replace(learned(), data=Frozen()))


def test_gradients_are_masked_within_the_block_only() -> None:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 2.0, 0.0]]))
    mark(layer, 2, 4)
    with held(layer):
        layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad.tolist() == [[2.0, 1.0, 2.0, 1.0]]


def test_passes_that_write_weights_are_followed_by_a_projection() -> None:
    after = applied(Prune(keep={"channels.ffn": 20}, calibration=24), sparse())  # refits, and cuts columns out of the pattern
    assert keeps_to_the_pattern(after.module)
    with torch.no_grad():
        after.module.channels.reduce.weight.fill_(1.0)
    settle(after.module)
    assert keeps_to_the_pattern(after.module)


def test_int8_keeps_the_zeros() -> None:
    after = sparse()
    quantized = applied(Quantize(min_weights=64, max_drop=1.0, max_change=1.0), after)
    found = 0
    for name, where in zeros(after.module).items():
        layer: Any = quantized.module.get_submodule(name)
        if isinstance(layer, QuantLinear):
            found += 1
            assert bool((layer.weight[where] == 0).all())
    assert found >= 3


def test_a_file_brings_back_weights_and_pattern(tmp_path: Path) -> None:
    after = sparse()
    path = tmp_path / "sparse.safetensors"
    path.write_bytes(checkpoint.save_model(after))
    loaded = replace(checkpoint.load_model(path), data=Words(), original=learned().module)
    x = Words().calibration(8)
    assert torch.equal(outputs(loaded, x), outputs(after, x))
    assert zeros(loaded.module).keys() == zeros(after.module).keys()
    tuned = applied(Finetune(epochs=1, batch=32, augment="none", device="cpu"), loaded)
    assert keeps_to_the_pattern(tuned.module)


def test_layers_are_chosen_by_name_or_size() -> None:
    bundle = learned()
    by_name = Sparsify(layers=("expand",), min_weights=16384)
    assert by_name._layers(bundle.module) == ["channels.expand"]
    assert "channels.expand" not in Sparsify(keep_dense=("expand",), min_weights=64)._layers(bundle.module)
    narrow = Sparsify(n=10, m=40, min_weights=1)._layers(bundle.module)
    assert all(bundle.module.get_submodule(name).in_features >= 40 for name in narrow)


def test_what_the_zeros_are_good_for() -> None:
    orin, xavier, host = (board.load(name) for name in ("jetson-orin-nano-8g", "jetson-xavier-nx", "host"))
    assert "TensorRT is told to look for them (--sparsity=enable)" in speed(orin, 2, 4)
    assert "tensor cores of NVIDIA Ampere" in speed(orin, 2, 4)
    assert f"no faster a product on {xavier.name}" in speed(xavier, 2, 4)
    assert "on host" in speed(host, 2, 4)
    assert speed(orin, 1, 8).endswith("no runtime that edgetk exports for has kernels for 1:8")
    assert speed(None, 2, 4).endswith("but on NVIDIA tensor cores from Ampere on")


def test_what_is_refused() -> None:
    bundle = learned()
    with pytest.raises(
        PreconditionError, match=r"sparsify: needs a plain linear layer of at least 16384 weights in .*, got none"
    ):
        Sparsify().check(bundle)
    with pytest.raises(
        PreconditionError, match=r"sparsify: needs a plain linear layer of one of nowhere in .*, got none; correct"
    ):
        Sparsify(layers=("nowhere",)).check(bundle)
    with pytest.raises(PreconditionError, match="sparsify: needs calibration data, got a model without a task"):
        Sparsify(criterion="activations", min_weights=64).check(replace(bundle, data=None))
    with pytest.raises(PreconditionError, match="sparsify: taylor needs training data, for its gradients, got none for"):
        Sparsify(criterion="taylor", min_weights=64).check(replace(bundle, data=Frozen()))
    Sparsify(min_weights=64).check(replace(bundle, data=None))  # magnitudes need none


@pytest.mark.parametrize(
    ("settings_", "text"),
    [
        ({"n": 4}, r"sparsify: n must be in \[1, m - 1\], got 4 of 4; correct the recipe"),
        ({"n": 0}, r"sparsify: n must be in \[1, m - 1\], got 0 of 4; correct the recipe"),
        (
            {"criterion": "l1"},
            "sparsify: criterion must be one of magnitude, activations, taylor, got 'l1'; correct the recipe",
        ),
        ({"train": {"epoch": 3}}, "sparsify: train must name settings of finetune, got 'epoch'; .*epochs"),
        (
            {"train": {"epochs": "3"}},
            r"sparsify: train\.epochs must be what finetune takes \(int\), got '3'; correct the recipe",
        ),
        ({"train": {"epochs": 0}}, "training: epochs must be >= 1"),
        ({"calibration": 0}, "sparsify: calibration and min_weights must be at least 1, got 0 and 16384; correct the recipe"),
    ],
)
def test_settings_out_of_range(settings_: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Sparsify(**settings_)
