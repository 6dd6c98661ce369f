"""Memory layers: the hash and its weight, sums of rows by hand and by brute force, gradients, exact and int8 cases."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgetk.core.errors import UsageError
from edgetk.models.layers import memory_hash, memory_lookup
from edgetk.models.layers.memory_hash import WEIGHTINGS
from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer
from edgetk.models.layers.memory_lookup import gathered, lookup


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def corners(bits: int) -> Tensor:
    """All of {-1, +1}^bits, row n the corner of index n."""
    made = [[1.0 if n >> i & 1 else -1.0 for i in range(bits)] for n in range(2**bits)]
    return torch.tensor(made, dtype=torch.float64)


def layer(
    inputs: int, outputs: int, bits: int, weighting: str = "p", temperature: float = 1.0, **options: object
) -> MemoryLayer:
    made = MemoryLayer(inputs, outputs, bits, weighting, temperature, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        made.tables.copy_(draw(*made.tables.shape, seed=1))
        made.bias.copy_(draw(outputs, seed=2))
    return made


# --- the hash


def test_the_first_coordinate_is_the_lowest_bit_and_zero_is_positive() -> None:
    z = torch.tensor([[-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0], [0.0, -0.0, -1.0]])
    assert memory_hash.row(z).tolist() == [0, 1, 4, 3]


@pytest.mark.parametrize("bits", range(1, 11))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_weight_is_the_softmax_over_all_corners(bits: int, temperature: float) -> None:
    z = draw(20, bits) * 2
    whole = torch.softmax(z @ corners(bits).T / temperature, dim=1)
    chosen = whole[torch.arange(20), memory_hash.row(z)]
    p = memory_hash.weigh(z, "p", temperature)
    assert float((p - chosen).abs().max()) < 1e-12
    torch.testing.assert_close(memory_hash.weigh(z, "l1p", temperature), z.abs().sum(1) * p)
    assert bool((p >= 2.0**-bits).all())
    assert bool((p < 1).all())


def test_weight_at_its_ends() -> None:
    zero = torch.zeros(1, 8, dtype=torch.float64)
    assert float(memory_hash.weigh(zero)) == pytest.approx(2.0**-8, abs=1e-17)
    assert float(memory_hash.weigh(zero + 50)) == pytest.approx(1.0)
    assert float(memory_hash.weigh(zero + 0.1, "p", 1e-3)) == pytest.approx(1.0)  # t -> 0
    assert memory_hash.weigh(zero + 3, "one").tolist() == [1.0]
    assert memory_hash.weigh(zero - 3, "l1").tolist() == [24.0]


def test_typical_weights_are_those_measured() -> None:
    z = draw(200_000, 8)
    p, l1p = memory_hash.weigh(z), memory_hash.weigh(z, "l1p")
    assert (float(p.mean()), float(p.std())) == pytest.approx((0.134, 0.075), abs=0.002)
    assert (float(l1p.mean()), float(l1p.std())) == pytest.approx((0.97, 0.81), abs=0.01)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_second_moment_is_what_samples_give(weighting: str, bits: int) -> None:
    samples = memory_hash.weigh(draw(200_000, bits), weighting, 1.5).square().mean()  # type: ignore[arg-type]
    assert memory_hash.second_moment(weighting, bits, 1.5) == pytest.approx(float(samples), rel=0.03)  # type: ignore[arg-type]


def test_fixed_point_by_hand() -> None:
    weights = torch.tensor([0.5, 1.0, 1.5 / 2**14, 20.0, 0.0])
    assert memory_hash.fixed_point(weights, "p").tolist() == [8192, 16384, 2, 16384, 0]  # halves go to even
    assert memory_hash.fixed_point(weights, "l1p").tolist() == [1024, 2048, 0, 32767, 0]


# --- forward


def test_forward_by_hand() -> None:
    made = MemoryLayer(4, 2, 2, "l1")
    with torch.no_grad():
        made.tables.copy_(torch.arange(16.0).view(2, 4, 2))
        made.bias.copy_(torch.tensor([100.0, 200.0]))
    # [1, -2] names row 1 with weight 3, [-1, 4] row 2 with weight 5: 3 * (2, 3) + 5 * (12, 13)
    torch.testing.assert_close(made(torch.tensor([[1.0, -2.0, -1.0, 4.0]])), torch.tensor([[166.0, 274.0]]))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_forward_equals_a_sum_over_all_corners(weighting: str) -> None:
    made = layer(12, 5, 3, weighting)
    x = draw(2, 7, 12)
    z = x.view(2, 7, 4, 3)
    expected = made.bias.detach().expand(2, 7, 5).clone()
    for k, n in itertools.product(range(4), range(8)):
        hit = (torch.where(z[:, :, k] >= 0, 1.0, -1.0) == corners(3)[n]).all(-1)
        expected += (hit * memory_hash.weigh(z[:, :, k], weighting))[..., None] * made.tables[k, n].detach()  # type: ignore[arg-type]
    torch.testing.assert_close(made(x), expected)


def test_the_soft_layer_becomes_the_hard_one_when_cold() -> None:
    x = draw(50, 6)
    x = torch.where(x >= 0, x + 0.1, x - 0.1)
    cold = layer(6, 3, 3, temperature=1e-3)
    z = x.view(50, 2, 3)
    soft = torch.softmax(z @ corners(3).T / 1e-3, dim=-1)
    expected = torch.einsum("nkc,kch->nh", soft, cold.tables.detach()) + cold.bias
    torch.testing.assert_close(cold(x), expected)
    torch.testing.assert_close(cold(x), layer(6, 3, 3, "one")(x))


def test_one_bit_with_weight_l1_is_a_linear_layer() -> None:
    weights, x = draw(8, 5), draw(30, 8, seed=3)
    made = MemoryLayer(8, 5, 1, "l1").double()
    with torch.no_grad():
        made.tables[:, 1], made.tables[:, 0] = weights, -weights
    torch.testing.assert_close(made(x), x @ weights)


def relative_error(bits: int, weighting: str, temperature: float = 1.0) -> tuple[float, float]:
    """RMS error of y = alpha * layer(x) against x W with tables of sums of signed rows, and the best alpha."""
    weights, x = draw(80, 16, seed=5), draw(20_000, 80, seed=6)
    made = MemoryLayer(80, 16, bits, weighting, temperature).double()  # type: ignore[arg-type]
    with torch.no_grad():
        blocks = weights.view(80 // bits, bits, 16)
        made.tables.copy_(torch.einsum("ci,kih->kch", corners(bits), blocks))
        y, wanted = made(x), x @ weights
    alpha = float((y * wanted).sum() / y.square().sum())
    used = math.sqrt(2 / math.pi) if weighting == "one" else alpha
    return float((used * y - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()), alpha


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_sign_sums_miss_a_linear_layer_by_a_known_share(bits: int) -> None:
    assert relative_error(bits, "one")[0] == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.01)


@pytest.mark.parametrize(
    ("bits", "temperature", "error", "alpha"),
    [
        (1, 1, 0.467, 1.12),
        (2, 1, 0.493, 1.39),
        (4, 1, 0.538, 2.15),
        (8, 1, 0.620, 5.10),
        (10, 1, 0.650, 7.87),
        (8, 4, 0.570, 49.0),
    ],
)
def test_the_paper_s_weight_misses_it_by_as_much_as_was_measured(
    bits: int, temperature: float, error: float, alpha: float
) -> None:
    got, scale = relative_error(bits, "p", temperature)
    assert got == pytest.approx(error, abs=0.012)
    assert scale == pytest.approx(alpha, rel=0.03)


# --- gradients


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("centred", [False, True])
def test_gradients_are_numerical_ones_away_from_the_signs(weighting: str, centred: bool) -> None:
    made = layer(6, 3, 2, weighting, 0.7, centred=centred)
    x = draw(4, 6, seed=8)
    x = torch.where(x.abs() < 0.05, 0.2, x).requires_grad_()  # a step must not cross a sign
    parameters = [p.requires_grad_() for p in made.parameters()]
    names = [name for name, _ in made.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_weight_s_gradient_by_hand() -> None:
    z = torch.tensor([0.3, -0.8], dtype=torch.float64, requires_grad=True)
    p = memory_hash.weigh(z, "p", 2.0)
    (got,) = torch.autograd.grad(p, z)
    expected = p * (2 / 2.0) * torch.sign(z) * torch.sigmoid(-2 * z.abs() / 2.0)
    torch.testing.assert_close(got, expected.detach())


@pytest.mark.parametrize("chunk", [1, 2**24])
def test_rows_that_no_token_named_have_no_gradient(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_lookup, "CHUNK", chunk)
    made = layer(12, 5, 3)
    x = draw(3, 12, seed=4)
    index, weight = made.rows(x)
    made(x).sum().backward()
    assert made.tables.grad is not None
    touched = made.tables.grad.abs().sum(-1) > 0
    assert touched.sum(1).tolist() == [len(set(index[:, k].tolist())) for k in range(4)]
    expected = torch.zeros_like(made.tables)
    for n, k in itertools.product(range(3), range(4)):
        expected[k, index[n, k]] += weight[n, k].detach()
    torch.testing.assert_close(made.tables.grad, expected)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 40),
    count=st.integers(1, 6),
    bits=st.integers(1, 5),
    outputs=st.integers(1, 9),
)
def test_sparse_gradient_holds_the_rows_of_the_dense_one(seed: int, tokens: int, count: int, bits: int, outputs: int) -> None:
    x, g = draw(tokens, count * bits, seed=seed), draw(tokens, outputs, seed=seed + 1)
    pairs = []
    for sparse in (False, True):
        made = layer(count * bits, outputs, bits, sparse=sparse)
        inputs = x.clone().requires_grad_()
        (made(inputs) * g).sum().backward()
        assert made.tables.grad is not None
        pairs.append((made.tables.grad, inputs.grad))
    (dense, to_x), (sparse_grad, same_x) = pairs
    assert sparse_grad.is_sparse
    assert sparse_grad._nnz() <= min(tokens * count, count * 2**bits)
    torch.testing.assert_close(sparse_grad.to_dense(), dense)
    torch.testing.assert_close(same_x, to_x)


def test_sparse_adam_moves_only_the_rows_that_were_read() -> None:
    made = layer(6, 4, 3, sparse=True)
    before = made.tables.detach().clone()
    x = draw(1, 6)
    made(x).square().sum().backward()
    torch.optim.SparseAdam([made.tables], lr=0.1).step()
    moved = (made.tables != before).any(-1)
    index, _ = made.rows(x)
    assert moved.sum().item() == 2
    assert bool(moved[torch.arange(2), index[0]].all())


def test_gathered_and_looked_up_sums_are_the_same() -> None:
    made = layer(12, 5, 3, "l1p")
    index, weight = made.rows(draw(2, 3, 12))
    torch.testing.assert_close(gathered(index, weight, made.tables), lookup(index, weight, made.tables))


def test_sums_do_not_depend_on_the_order_of_tables() -> None:
    made = layer(64, 32, 4).float().requires_grad_(False)
    x = draw(50, 64, dtype=torch.float32)
    index, weight = made.rows(x)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    straight = lookup(index, weight, made.tables)
    mixed = lookup(index[:, order], weight[:, order], made.tables[order])
    assert float((mixed - straight).abs().max() / straight.abs().max()) < 1e-5


def test_shift_and_gain_stand_in_front_of_the_hash() -> None:
    centred, plain = layer(6, 4, 3, centred=True), layer(6, 4, 3)
    x = draw(5, 6)
    assert centred.shift is not None
    assert centred.gain is not None
    with torch.no_grad():
        centred.shift.copy_(draw(6, seed=11))
        centred.gain.copy_(draw(6, seed=12))
    torch.testing.assert_close(centred(x), plain((x - centred.shift) * centred.gain))


def test_fresh_tables_give_outputs_of_variance_one_where_asked() -> None:
    torch.manual_seed(0)
    for weighting in WEIGHTINGS:
        made = MemoryLayer(64, 256, 8, weighting, std=None)  # type: ignore[arg-type]
        assert float(made(draw(2000, 64, dtype=torch.float32)).detach().var()) == pytest.approx(1.0, rel=0.15)
    assert float(MemoryLayer(64, 256, 8).tables.detach().std()) == pytest.approx(0.02, rel=0.01)


# --- int8


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_int8_tables_are_close_and_their_sums_exact(weighting: str) -> None:
    made = layer(32, 24, 4, weighting).float()
    packed = QuantMemoryLayer.of(made)
    x = draw(64, 32, dtype=torch.float32)
    expected, got = made(x).detach(), packed(x)
    assert float((got - expected).norm() / expected.norm()) < 0.012
    index, codes = packed.codes(x)
    total = torch.zeros(64, 24, dtype=torch.int64)
    for k in range(8):
        total += codes[:, k, None].long() * packed.weight[k, index[:, k]].long()
    factor = packed.scale * 2.0 ** -memory_hash.FRACTION_BITS[weighting]
    assert torch.equal(got, total.float() * factor + packed.bias)


def test_int8_tables_by_hand() -> None:
    made = MemoryLayer(2, 2, 1, "one")
    with torch.no_grad():
        made.tables.copy_(torch.tensor([[[1.0, -4.0], [0.5, 2.0]], [[0.25, 1.0], [-1.0, 3.0]]]))
    packed = QuantMemoryLayer.of(made)
    assert packed.scale.tolist() == pytest.approx([1 / 127, 4 / 127])
    assert packed.weight.tolist() == [[[127, -127], [64, 64]], [[32, 32], [-127, 95]]]
    torch.testing.assert_close(packed(torch.tensor([[1.0, -1.0]])), torch.tensor([[96 / 127, 4 * 96 / 127]]))


def test_a_column_of_zeros_stays_zero() -> None:
    made = MemoryLayer(4, 2, 2)
    with torch.no_grad():
        made.tables[:, :, 0] = 0.0
    packed = QuantMemoryLayer.of(made)
    assert packed(torch.randn(3, 4))[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_int8_keeps_shift_and_gain() -> None:
    made = layer(6, 4, 3, centred=True).float()
    with torch.no_grad():
        for value in (made.shift, made.gain):
            assert value is not None
            value.copy_(torch.randn(6))
    x = draw(9, 6, dtype=torch.float32)
    index, _ = QuantMemoryLayer.of(made).codes(x)
    assert torch.equal(index, made.rows(x)[0])


# --- counts


@pytest.mark.parametrize(("inputs", "bits", "half_bytes"), [(512, 4, 2_097_152), (512, 8, 16_777_216), (510, 10, 53_268_480)])
def test_table_bytes_of_the_paper(inputs: int, bits: int, half_bytes: int) -> None:
    with torch.device("meta"):
        made = MemoryLayer(inputs, 510 if bits == 10 else 512, bits)
    assert 2 * made.tables.numel() == half_bytes
    assert made.macs() == inputs // bits * (bits + made.out_features)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inputs": 10, "bits": 4}, "x: inputs must be a multiple of the hash's 4 bits, and outputs at least 1, got 10 and 3"),
        ({"bits": 0}, r"x: the bits of a hash must be in \[1, 16\], got 0; correct it"),
        ({"weighting": "half"}, "x: the weight must be one of p, l1p, l1, one, got 'half'; correct it"),
        ({"temperature": 0.0}, "x: the temperature must be above 0, got 0.0; correct it"),
    ],
)
def test_settings_that_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        MemoryLayer(**{"inputs": 8, "outputs": 3, "bits": 4, "who": "x", **options})  # type: ignore[arg-type]


def test_more_int8_tables_than_int32_can_sum_up() -> None:
    assert [memory_hash.most_tables(w) for w in WEIGHTINGS] == [1032, 516, 516, 1032]  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="x: int8 tables must be at most 516, or sums leave int32, got 517; use more bits"):
        QuantMemoryLayer(517, 1, 1, "l1p", who="x")
