"""Tables in the place of layers: least squares by its normal equations, what is replaced, what stays, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Split
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models.layers.memory_layer import MemoryLayer
from edgetk.passes import _table_costs as costs
from edgetk.passes import _table_fit as fit
from edgetk.passes.tabulate import Tabulate
from edgetk.targets import board

TOKENS, WIDTH, HIDDEN, CLASSES = 6, 16, 32, 3
QUICK: dict[str, Any] = {"min_weights": 64, "epochs": 0, "layer_epochs": 0, "calibration": 60, "device": "cpu"}


class Net(nn.Module):
    """A feed-forward part around a residual, then a head on the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.ffn = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.pair = nn.Bilinear(WIDTH, WIDTH, WIDTH)
        self.spare = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        nn.init.normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.ffn(x) + 0.01 * self.pair(x, x)
        y: Tensor = self.head(x.mean(1))
        return y


class Data:
    """Random tokens, labelled by what the net says of them."""

    labels = ("a", "b", "c")
    origin = "made up"
    augmentations: Mapping[str, Any] = {"none": None}

    def __init__(self, net: nn.Module) -> None:
        self.x = torch.randn(200, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            self.y = net(self.x).argmax(1)

    def split(self, name: str) -> Split:
        return Split(name, self.x[:80], self.y[:80], self.origin)

    def calibration(self, n: int) -> Tensor:
        return self.x[80 : 80 + n]

    def batches(self, device: object, augmentation: Any = None) -> tuple[Any, int]:
        hot = nn.functional.one_hot(self.y, CLASSES).float()
        return lambda rows: (self.x[rows], hot[rows]), len(self.x)


def bundle(target: str | None = None) -> Bundle:
    torch.manual_seed(0)
    net = Net().eval()
    signature = Signature(
        (TensorSpec("x", ("batch", TOKENS, WIDTH), axes="B T F"),), (TensorSpec("y", ("batch", CLASSES), axes="B K"),)
    )
    made = Bundle("net", net, signature, data=Data(net), labels=Data.labels, original=copy.deepcopy(net))
    return replace(made, target=board.load(target)) if target else made


def apply(made: Bundle, **changes: Any) -> Any:
    torch.manual_seed(5)
    settings = Tabulate(**{**QUICK, **changes})
    settings.check(made)
    return settings(replace(made, body=copy.deepcopy(made.body)))


# --- fitting


def test_least_squares_solves_the_normal_equations() -> None:
    torch.manual_seed(0)
    layer, x, y = MemoryLayer(8, 3, 2, centred=True), torch.randn(300, 8) * 2 + 1, torch.randn(300, 3)
    fit.centre_on(layer, x)
    fit.least_squares(layer, x, y, ridge=0.01, iterations=200)
    index, weight = (t.double() if t.is_floating_point() else t for t in layer.rows(x.double()))
    design = torch.zeros(300, 16, dtype=torch.float64)
    for k in range(4):
        design[torch.arange(300), 4 * k + index[:, k]] = weight[:, k]
    design, keep = design.detach(), 0.01 * float(design.detach().square().sum() / 16)
    design = design - design.mean(0)  # a constant column, the bias, without ridge
    expected = torch.linalg.solve(design.T @ design + keep * torch.eye(16, dtype=torch.float64), design.T @ y.double())
    torch.testing.assert_close(layer.tables.detach().view(16, 3).double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer(x).detach().mean(0), y.mean(0), rtol=1e-3, atol=1e-4)


def test_least_squares_finds_tables_that_made_the_outputs() -> None:
    torch.manual_seed(0)
    teacher, layer = (MemoryLayer(12, 5, 3, std=1.0, centred=True) for _ in range(2))
    x = torch.randn(2000, 12)
    fit.least_squares(layer, x, teacher(x).detach(), ridge=1e-9, iterations=100)
    fresh = torch.randn(500, 12)
    assert fit.relative_error(layer, fresh, teacher(fresh).detach()) < 1e-6


def test_coordinates_are_centred_so_that_rows_are_used_evenly() -> None:
    layer, x = MemoryLayer(8, 1, 8, centred=True), torch.randn(2000, 8) * 0.1 + 7
    fit.centre_on(layer, x)
    z = layer.centre(x).detach()
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(8), atol=1e-3, rtol=0)
    assert len(set(layer.rows(x)[0].flatten().tolist())) > 200


def test_distillation_gets_below_what_fixed_rows_allow() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(8, 4), torch.randn(1000, 8) * torch.linspace(0.2, 3, 8) + 1.0
    y = torch.relu(x @ weight)
    layer = MemoryLayer(8, 4, 2, centred=True)
    fit.centre_on(layer, x)
    fit.least_squares(layer, x, y, 1e-3, 30)
    before = fit.relative_error(layer, x, y)
    fit.distil(layer, x, y, epochs=10, lr=1e-2, batch=64)
    assert fit.relative_error(layer, x, y) < 0.97 * before


def test_relative_error_by_hand() -> None:
    layer = MemoryLayer(2, 1, 1, "one", std=0.0)
    y = torch.tensor([[1.0], [3.0]])
    assert fit.relative_error(layer, torch.randn(2, 2), y) == pytest.approx((1 + 9) / 2)  # against a variance of 2 in sum


# --- what the pass does


def test_all_large_linear_layers_become_tables_but_the_head() -> None:
    result = apply(bundle(), keep=("head", "spare"))
    kinds = {name for name, m in result.body.named_modules() if isinstance(m, MemoryLayer)}
    assert kinds == {"embed", "ffn.0", "ffn.2"}
    assert list(result.notes["layers"]) == ["embed", "ffn.0", "ffn.2"]  # in the order they are called
    note = result.notes["layers"]["ffn.0"]
    assert (note["tables"], note["entries"], note["weights_before"]) == (4, 4 * 16 * HIDDEN, WIDTH * HIDDEN + HIDDEN)
    assert note["macs"] == 4 * (4 + HIDDEN)
    assert 0.05 < note["unexplained_variance"]["least_squares"] < 0.9  # fitted tables are lossy
    assert 0 < result.notes["output_change"] < 1


def test_a_whole_feed_forward_part_becomes_one_table_layer() -> None:
    result = apply(bundle(), modules=("ffn",), layer_epochs=4)
    assert {name for name, m in result.body.named_modules() if isinstance(m, MemoryLayer)} == {"ffn"}
    errors = result.notes["layers"]["ffn"]["unexplained_variance"]
    assert set(errors) == {"least_squares", "distilled"}


def test_later_layers_are_fitted_to_what_the_original_gave_on_what_tables_before_them_give() -> None:
    made = bundle()
    result = apply(made, layers=("embed", "ffn.0"))
    x, _ = costs.record(result.body, "ffn.0", made.data.calibration(60), 8192)  # type: ignore[union-attr]
    _, y = costs.record(made.module, "ffn.0", made.data.calibration(60), 8192)  # type: ignore[union-attr]
    expected = MemoryLayer(WIDTH, HIDDEN, 4, centred=True)
    cut = int(0.8 * len(x))
    fit.centre_on(expected, x[:cut])
    fit.least_squares(expected, x[:cut], y[:cut], 1e-3, 30)
    torch.testing.assert_close(result.body.get_submodule("ffn.0").tables, expected.tables)


def test_training_together_brings_decisions_back() -> None:
    made = bundle()
    raw = apply(made, keep=("head", "spare"), iterations=1)
    tuned = apply(made, keep=("head", "spare"), iterations=1, epochs=6, batch=50, lr=2e-3, average=0.0, loss="ce")
    assert made.data is not None
    split = made.data.split("validation")
    with torch.no_grad():
        right = int((raw.body(split.features).argmax(1) == split.labels).sum())
    assert tuned.notes["fine_tuning"]["validation_correct"] > right
    assert len(tuned.notes["fine_tuning"]["history"]) == 6
    assert tuned.notes["output_change_after_training"] > 0


def test_rebuilt_from_its_structure() -> None:
    made = bundle()
    result = apply(made, layers=("embed",), bits=2, weighting="l1p", temperature=2.0)
    fresh = Tabulate().rebuild(copy.deepcopy(made.body), result.structure)
    fresh.load_state_dict(result.body.state_dict())
    x = torch.randn(2, TOKENS, WIDTH)
    assert torch.equal(fresh(x), result.body(x))


# --- costs


def place(**changes: int) -> costs.Place:
    given = {"inputs": 768, "outputs": 768, "bits": 4, "weights": 768 * 768, "tokens": 1, "called": 0, **changes}
    return costs.Place("layer", **given)


def test_predicted_times_by_hand() -> None:
    pi = board.load("raspberry-pi-5")
    found = costs.Costs.of(pi)
    assert found is not None
    assert found.native
    assert pi.mem_bytes_per_s is not None
    one = place()
    assert (one.tables, one.entries, one.macs) == (192, 192 * 16 * 768, 192 * 772)
    # one token is bound by memory: a row of each table against all weights
    rows = 192 * 768 + 4 * 2 * 768
    assert pi.clock_hz is not None
    arithmetic = 192 * 772 * 1.1 / (2 * pi.clock_hz)  # 1.1 instructions a product, two a cycle
    slow = replace(pi, macs_per_cycle={"float32": 1.0, "int8": 1.0})
    assert costs.Costs(slow, True).lookup_s(one) == pytest.approx(192 * 772 / pi.clock_hz + pi.overhead_s_per_op)
    assert found.lookup_s(one) == pytest.approx(max(rows / pi.mem_bytes_per_s, arithmetic) + pi.overhead_s_per_op)
    dense = (768 * 768 + 2 * 768) / pi.mem_bytes_per_s, 768 * 768 / (pi.macs_per_cycle["int8"] * pi.clock_hz)
    assert found.dense_s(one) == pytest.approx(max(dense) + pi.overhead_s_per_op)
    assert found.slower(one) is None
    text = found.slower(place(tokens=128))
    assert text is not None
    assert "(the native kernel) against" in text


def test_many_tokens_lose_to_integer_products_and_bodies_lose_everywhere() -> None:
    jetson = costs.Costs.of(board.load("jetson"))
    assert jetson is not None
    assert not jetson.native
    text = jetson.slower(place(tokens=64))
    assert text is not None
    assert "(its body) against" in text
    assert "(n=64 tokens)" in text


def test_boards_that_give_no_speed_predict_nothing() -> None:
    assert costs.Costs.of(board.load("host")) is None


def test_layers_for_which_tables_do_not_pay_stay_dense() -> None:
    with pytest.raises(
        PreconditionError,
        match=r"tabulate: a look-up must be predicted to take less time than the dense int8 layer on jetson-orin-nano-8g, "
        r"got embed: \d.* \(its body\) against .* \(n=6 tokens\); .*; set must_pay to false or leave tabulate out",
    ):
        apply(bundle("jetson"), keep=("head", "spare"))
    result = apply(bundle("jetson"), keep=("head", "spare"), must_pay=False)
    assert len(result.notes["layers"]) == 3
    assert result.notes["kept_dense"] == {}


def test_tables_that_a_board_cannot_hold() -> None:
    made = bundle("host")
    assert made.target is not None
    small = replace(made, target=replace(made.target, flash_bytes=3000, ram_bytes=None))
    with pytest.raises(
        PreconditionError,
        match=r"tabulate: int8 tables must fit into the 3 kB of flash of host, got 8\.19 kB of tables in place of 272 B of "
        r"int8 weights, and .* of other weights; lower bits or replace fewer layers",
    ):
        apply(replace(small, target=replace(small.target, name="host")), layers=("embed",), bits=8, min_weights=1)  # type: ignore[type-var]
    apply(replace(made, target=replace(made.target, flash_bytes=10**6, ram_bytes=10**6)), layers=("embed",))
    with pytest.raises(PreconditionError, match=r"must fit into the 3 kB of RAM of host"):
        apply(replace(made, target=replace(made.target, flash_bytes=None, ram_bytes=3000)), layers=("embed",), bits=8)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weighting": "half"}, "tabulate: weighting must be one of p, l1p, l1, one, got 'half'; correct the recipe"),
        ({"bits": 0}, r"tabulate: bits must be in \[1, 16\], temperature above 0 and ridge at least 0, got 0, 1\.0 and 0\.001"),
        ({"iterations": 0}, "tabulate: iterations must be at least 1, got 0; correct the recipe"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Tabulate(**changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"layers": ("embd",)}, "tabulate: layers must name linear layers, got 'embd'; did you mean embed"),
        ({"modules": ("fn",)}, "tabulate: modules must name modules, got 'fn'; did you mean ffn"),
        (
            {"layers": ("spare",)},
            "tabulate: layers must be called when the model runs, got spare, which is not; add it to keep",
        ),
        (
            {"modules": ("pair",)},
            r"tabulate: layers must read one tensor \(…, d\) and give one \(…, h\), got pair, which does not",
        ),
        (
            {"layers": ("embed",), "bits": 5},
            "tabulate: the inputs of embed must be a multiple of the hash's 5 bits, got 16; choose",
        ),
        (
            {"min_weights": 10**6},
            "tabulate: needs a linear layer of at least 1000000 weights whose inputs are a multiple of 4, got",
        ),
    ],
)
def test_layers_that_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(PreconditionError, match=text):
        apply(bundle(), **changes)


def test_data_are_needed() -> None:
    with pytest.raises(PreconditionError, match="tabulate: needs calibration data, got a model without a task"):
        apply(replace(bundle(), data=None))


def test_exact_sums_and_spikes_keep_their_products() -> None:
    made = bundle()
    made.body.exact_sums = True
    with pytest.raises(PreconditionError, match="tabulate: needs a linear layer"):
        apply(made)
    made = bundle()
    made.body.spike_driven = lambda: ("embed", "ffn.0", "spare")
    assert list(apply(made).notes["layers"]) == ["ffn.2"]
