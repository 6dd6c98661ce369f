"""Kernelized hashes: codes and their learning against the authors' recorded run, gradients, states, and refusals."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgetk.core.errors import InputError, PreconditionError, UsageError
from edgetk.models.layers import hash_learning, kernel_hash
from edgetk.models.layers.hash_learning import learn_bits, similarity_targets
from edgetk.models.layers.kernel_hash import KernelHash, sign, unit

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    with np.load(DATA / "eco_ksh_learning.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def random_vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sign_has_a_clipped_straight_through_gradient() -> None:
    y = torch.tensor([-1.5, -1.0, -0.99, -0.3, 0.0, 0.2, 0.99, 1.0, 1.7], requires_grad=True)
    codes = sign(y)
    codes.backward(torch.arange(1.0, 10.0))
    assert codes.tolist() == [-1, -1, -1, -1, 0, 1, 1, 1, 1]
    assert y.grad is not None
    assert y.grad.tolist() == [0, 0, 3, 4, 5, 6, 7, 0, 0]


def test_codes_of_the_recorded_hash(recorded: dict[str, Tensor]) -> None:
    made = KernelHash(heads=2, dim=8)
    for here, there in (("A", "A_final"), ("mvec", "mvec"), ("anchor", "anchor")):
        getattr(made, here).copy_(recorded[there])
    made.mark_learned()
    kernel, sigma = made.kernel(recorded["X"])
    assert gap(kernel, recorded["kernel"]) <= 1e-6
    assert gap(sigma[..., 0, 0], recorded["sigma"]) <= 1e-6
    assert gap(made.response(recorded["X"]), recorded["pre_sign"]) <= 1e-5
    assert float(recorded["pre_sign"].abs().min()) > 1e-4  # far enough from 0 for the codes to be compared
    assert torch.equal(made(recorded["X"]), recorded["codes"].float())
    assert torch.equal(made(7.0 * recorded["X"]), recorded["codes"].float()), "only directions count"


def test_learning_follows_the_recorded_run(recorded: dict[str, Tensor]) -> None:
    made = KernelHash(heads=2, dim=8)
    made.A.copy_(recorded["A_init"])
    found = made.learn_from(recorded["X"], recorded["anchor"])
    assert found.losses.shape == (16, 100)
    assert gap(found.losses.double(), recorded["losses"]) <= 1e-5
    assert float(found.losses[0, 0]) == pytest.approx(-0.96199, abs=1e-5)
    assert float(found.losses[0, -1]) == pytest.approx(-1.05297, abs=1e-5)
    assert sum(found.changed) == 11
    kept = [bool(torch.equal(made.A[:, r], recorded["A_init"][:, r])) for r in range(16)]
    assert kept == [not changed for changed in found.changed]
    assert gap(made.A, recorded["A_final"]) <= 1e-5
    assert gap(made.mvec, recorded["mvec"]) <= 1e-6
    assert made.state == "learned"


def test_targets_are_the_recorded_ones_and_multiply_like_a_matrix(recorded: dict[str, Tensor]) -> None:
    targets = similarity_targets(recorded["X"])
    dense = recorded["S0"].float()
    assert torch.equal(targets.dense(), dense)
    y = random_vectors(2, 2, 64)
    assert gap(targets.product(y), (dense @ y[..., None])[..., 0]) <= 1e-5
    assert gap(targets.transposed_product(y), (y[..., None, :] @ dense)[..., 0, :]) <= 1e-5


def test_targets_come_in_parts_where_tokens_are_many(recorded: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_learning, "_CHUNK", 1)
    assert torch.equal(similarity_targets(recorded["X"]).dense(), recorded["S0"].float())


def test_targets_of_tokens_that_are_all_alike_are_signs() -> None:
    targets = similarity_targets(unit(torch.ones(1, 1, 20, 3)), k=10).dense()
    assert set(targets.unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_learning_is_the_written_out_algorithm() -> None:
    """Bit by bit with dense R, autograd and torch's own Nesterov steps."""
    z = unit(random_vectors(2, 2, 30, 4))
    made = KernelHash(heads=2, dim=4, bits=3, anchors=5)
    made.anchor.copy_(z[:1, :, :5])
    kernel, _ = made.kernel(z)
    centred = kernel - kernel.mean(dim=(0, 2), keepdim=True)
    start = random_vectors(2, 3, 5, seed=1)
    targets = similarity_targets(z)
    found = learn_bits(centred, start, targets)
    residual = 3.0 * targets.dense()
    for r in range(3):

        def loss(y: Tensor, residual: Tensor = residual) -> Tensor:
            return -(y[..., None, :] @ residual @ y[..., None]).mean() / (30 * 3)

        a = start[:, r].clone().requires_grad_()
        optimizer = torch.optim.SGD([a], lr=5e-4, momentum=0.9, nesterov=True)
        for _ in range(100):
            optimizer.zero_grad()
            loss(2 * torch.sigmoid((centred @ a[..., None])[..., 0]) - 1).backward()
            optimizer.step()
        hard = [torch.where((centred @ w[..., None])[..., 0] > 0, 1.0, -1.0) for w in (start[:, r], a.detach())]
        better = bool(loss(hard[1]) < loss(hard[0]))
        assert found.changed[r] == better
        assert gap(found.A[:, r], a.detach() if better else start[:, r]) <= 1e-5
        y = hard[int(better)]
        residual = residual - y[..., :, None] * y[..., None, :]


def test_anchors_are_tokens_of_the_first_sample_at_the_same_places_in_all_heads() -> None:
    z = random_vectors(3, 2, 40, 4)
    made = KernelHash(heads=2, dim=4)
    made.learn(z, torch.Generator().manual_seed(5))
    chosen = torch.randperm(40, generator=torch.Generator().manual_seed(5))[:25]
    assert torch.equal(made.anchor[0], unit(z)[0][:, chosen])


def test_learning_is_repeatable_and_starts_from_the_stored_weights() -> None:
    z = random_vectors(2, 1, 30, 4)
    first = KernelHash(heads=1, dim=4, bits=2)
    second = copy.deepcopy(first)
    for made in (first, second):
        made.learn(z, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_hash_learning_refuses_what_it_cannot_learn_from() -> None:
    made = KernelHash(heads=2, dim=4, who="block 3")
    with pytest.raises(InputError, match=r"block 3: learning needs \(B, 2, N, 4\) with N >= 25, got \(1, 2, 24, 4\); use"):
        made.learn(torch.ones(1, 2, 24, 4))
    blank = random_vectors(1, 2, 30, 4)
    blank[0, 1, 7] = 0.0
    with pytest.raises(InputError, match=r"block 3: vectors to learn from must be finite and not all zeros, got some"):
        made.learn(blank)
    with pytest.raises(InputError, match=r"hash learning: needs at least 20 tokens, got 19; use softmax attention"):
        similarity_targets(torch.ones(1, 1, 19, 4))
    z = unit(random_vectors(1, 1, 30, 4))
    broken = torch.full((1, 1, 30, 5), math.nan)
    with pytest.raises(InputError, match=r"hash learning: the loss of bit 0 must be a number, got NaN or infinity; look for"):
        learn_bits(broken, torch.ones(1, 2, 5), similarity_targets(z))
    assert made.state == "unlearned"


def test_an_unlearned_hash_refuses_to_work() -> None:
    made = KernelHash(heads=1, dim=4)
    for mode in (True, False):
        with pytest.raises(PreconditionError, match=r"hash: must be learned on data before it is used, got an unlearned hash"):
            made.train(mode)(torch.ones(1, 1, 30, 4))


def test_the_state_travels_with_the_weights() -> None:
    made = KernelHash(heads=1, dim=4)
    made.randomise()
    assert made.state == "random"
    fresh = KernelHash(heads=1, dim=4)
    fresh.load_state_dict(made.state_dict())
    assert fresh.state == "random"
    made.learn(random_vectors(1, 1, 30, 4))
    fresh.load_state_dict(made.state_dict())
    assert fresh.state == "learned"
    z = random_vectors(2, 1, 9, 4)
    assert torch.equal(fresh(z), made(z))
    fresh.load_state_dict(KernelHash(heads=1, dim=4).state_dict())
    assert fresh.state == "unlearned"


def test_a_random_hash_splits_random_directions_in_halves() -> None:
    torch.manual_seed(0)
    made = KernelHash(heads=2, dim=16)
    made.randomise()
    assert gap(made.anchor.norm(dim=-1), torch.ones(1, 2, 25)) <= 1e-6
    share = (made(random_vectors(1, 2, 2000, 16)) > 0).float().mean(dim=(0, 2))
    assert float((share - 0.5).abs().max()) < 0.15


def test_a_vector_of_zeros_does_not_spoil_its_sample() -> None:
    made = KernelHash(heads=1, dim=4)
    made.randomise()
    z = random_vectors(1, 1, 30, 4)
    z[0, 0, 3] = 0.0
    z.requires_grad_()
    y = made.response(z)
    y.sum().backward()
    assert z.grad is not None
    assert bool(torch.isfinite(y).all())
    assert bool(torch.isfinite(z.grad).all())


def test_sigma_couples_the_tokens_of_a_sample_unless_it_is_frozen() -> None:
    z = random_vectors(3, 2, 30, 4)
    other = z.clone()
    other[:, :, 15:] = z[:, :, :1]  # other neighbours, the same first half
    made = KernelHash(heads=2, dim=4)
    made.learn(z)
    assert gap(made.response(z)[:, :, :15], made.response(other)[:, :, :15]) > 1e-3
    _, sigma = made.kernel(unit(z))
    made.freeze_sigma(z)
    assert made.sigma is not None
    assert gap(made.sigma, sigma.mean(0, keepdim=True)) <= 1e-6
    assert gap(made.response(z)[:, :, :15], made.response(other)[:, :, :15]) <= 1e-6
    declared = KernelHash(heads=2, dim=4, sigma="frozen")
    declared.load_state_dict(made.state_dict())
    assert torch.equal(declared(z), made(z))


def test_a_hash_with_declared_frozen_sigma_takes_it_when_it_learns() -> None:
    z = random_vectors(3, 2, 30, 4)
    made = KernelHash(heads=2, dim=4, sigma="frozen")
    made.learn(z)
    distances = (unit(z)[:, :, :, None] - made.anchor[:, :, None]).square().sum(-1)
    assert made.sigma is not None
    assert gap(made.sigma[0, :, 0, 0], distances.mean(dim=(0, 2, 3))) <= 1e-5
    kernel, _ = made.kernel(unit(z))
    assert gap(made.mvec, kernel.mean(dim=(0, 2), keepdim=True)) <= 1e-6


def test_an_unknown_sigma_is_refused() -> None:
    with pytest.raises(UsageError, match=r"hash: sigma must be one of sample, frozen, got 'token'; correct it"):
        KernelHash(heads=1, dim=4, sigma="token")  # type: ignore[arg-type]


def test_squared_distances_are_those_between_vectors() -> None:
    z, anchor = random_vectors(2, 3, 5, 4), random_vectors(1, 3, 6, 4, seed=1)
    wanted = (z[:, :, :, None] - anchor[:, :, None]).square().sum(-1)
    assert gap(kernel_hash.squared_distances(z, anchor), wanted) <= 1e-5
