"""Straight-through factorizers: D and the sparse S are learned with the task, and which numbers of S are kept with them.

Source: DSFormer, Chand, Prabhu & Kumar 2023, arXiv:2312.13211, names the idea; which of two readings is the paper's could not
be verified, so both are here behind one interface (docs/dsformer.md). Forward A^ = D S, S projected to s non-zeros a column;
backward the projection counts as the identity, so that numbers that are not kept go on learning:

    A  shadow coefficients S~:  S = Top_s(S~);              dD = G S^T, dS~ = D^T G,  with G = dLoss / dA^
    B  shadow matrix A~:        D, S = a few rounds on A~;  dA~ = G

Stabilisers: dictionary columns of norm 1 at every step; dropped numbers decay (SR-STE, Zhou et al. 2021, arXiv:2102.04010);
the support is frozen for the last steps. Nothing in a step looks at values, so that it can be captured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.models.layers.dense_sparse import fill
from edgetk.models.layers.dense_sparse_sizes import Group
from edgetk.models.layers.precision import no_autocast
from edgetk.passes._dictionary import TINY, Factors, improve, largest, lines, normalised, support

#: how much faster shadow coefficients move than other weights: Adam's steps do not depend on a gradient's size
SPEED = 5.0
#: gradient steps on coefficients and on the dictionary in one step of variant B
STEPS = 3


class _Masked(torch.autograd.Function):
    """shadow * kept, whose gradient reaches every entry; those dropped decay besides."""

    @staticmethod
    def forward(ctx: Any, shadow: Tensor, kept: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(shadow, kept)
        ctx.decay = decay
        return shadow * kept

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        shadow, kept = ctx.saved_tensors
        return gradient + ctx.decay * torch.where(kept, 0.0, shadow), None, None


class Factorizer(nn.Module):
    """A (short, long) as D S while it is trained; what both variants share. `steps` of training, the last ones frozen.

    `advance` comes once before each training step, `columns` gives a part of A^ with gradients, `factors` what is kept.
    """

    def __init__(self, shape: tuple[int, int], nonzeros: int, grouped: bool, freeze_at: int) -> None:
        super().__init__()
        self.nonzeros, self.grouped = nonzeros, grouped
        self.register_buffer("kept", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("freeze_at", torch.tensor(freeze_at))
        self.kept: Tensor
        self.step: Tensor
        self.freeze_at: Tensor

    def choose(self, numbers: Tensor) -> Tensor:
        """The support of numbers (r, long): theirs, or the frozen one."""
        return torch.where(self.step > self.freeze_at, self.kept, support(numbers, self.nonzeros, self.grouped))

    def advance(self) -> None:
        raise NotImplementedError

    def columns(self, start: int, stop: int) -> Tensor:
        raise NotImplementedError

    def factors(self) -> Factors:
        raise NotImplementedError

    def refresh(self, rounds: int = 1) -> None:
        """A longer look at the factors between epochs, outside of a captured step. Nothing unless a variant needs it."""


class ShadowCoefficients(Factorizer):
    """Variant A: D and all r x long numbers of S~ are trained. The parameter is S~ / SPEED."""

    def __init__(self, initial: Factors, nonzeros: int, grouped: bool, freeze_at: int, decay: float = 2e-4) -> None:
        super().__init__(tuple(initial.coefficients.shape), nonzeros, grouped, freeze_at)  # type: ignore[arg-type]
        unit = normalised(initial)
        self.decay = decay
        self.dictionary = nn.Parameter(unit.dictionary.clone())
        self.shadow = nn.Parameter(unit.coefficients / SPEED)

    @torch.no_grad()
    def advance(self) -> None:
        norms = self.dictionary.norm(dim=0).clamp_min(TINY)
        self.dictionary.div_(norms)
        self.shadow.mul_(norms[:, None])
        self.kept.copy_(self.choose(self.shadow))
        self.step.add_(1)

    def columns(self, start: int, stop: int) -> Tensor:
        shadow = self.shadow[:, start:stop] * SPEED
        kept = self.kept[:, start:stop] if self.training else self.choose(self.shadow)[:, start:stop]
        masked: Tensor = _Masked.apply(shadow, kept, self.decay)  # type: ignore[no-untyped-call]
        return self.dictionary @ masked

    @torch.no_grad()
    def factors(self) -> Factors:
        return Factors(self.dictionary.detach(), self.shadow * SPEED * self.choose(self.shadow))


class ShadowMatrix(Factorizer):
    """Variant B: a dense A~ is trained, and D and S follow it by a few gradient steps each."""

    def __init__(self, matrix: Tensor, initial: Factors, nonzeros: int, grouped: bool, freeze_at: int) -> None:
        super().__init__(tuple(initial.coefficients.shape), nonzeros, grouped, freeze_at)  # type: ignore[arg-type]
        unit = normalised(initial)
        self.shadow = nn.Parameter(matrix.clone())
        self.register_buffer("dictionary", unit.dictionary.clone())
        self.register_buffer("coefficients", unit.coefficients.clone())
        self.dictionary: Tensor
        self.coefficients: Tensor

    @torch.no_grad()
    def advance(self) -> None:
        with no_autocast(self.shadow):  # small steps vanish in half precision
            self._follow()
        self.step.add_(1)

    def _follow(self) -> None:
        a, d, s = self.shadow, self.dictionary, self.coefficients
        gram, target = d.T @ d, d.T @ a
        rate = 1.0 / largest(gram)
        for _ in range(STEPS):
            moved = s + rate * (target - gram @ s)
            self.kept.copy_(self.choose(moved))
            s = moved * self.kept
        gram, target = s @ s.T, a @ s.T
        rate = 1.0 / largest(gram)
        for _ in range(STEPS):
            d = d + rate * (target - d @ gram)
        self._take(normalised(Factors(d, s)))

    def columns(self, start: int, stop: int) -> Tensor:
        part = self.shadow[:, start:stop]
        approximated = self.dictionary @ self.coefficients[:, start:stop]
        return part + (approximated - part).detach()

    @torch.no_grad()
    def factors(self) -> Factors:
        return Factors(self.dictionary.clone(), self.coefficients.clone())

    @torch.no_grad()
    def refresh(self, rounds: int = 1) -> None:
        if bool(self.step > self.freeze_at):
            return
        found = Factors(self.dictionary, self.coefficients)
        for _ in range(rounds):
            found = improve(self.shadow.detach(), found, self.nonzeros, self.grouped)
        self._take(found)

    def _take(self, found: Factors) -> None:
        self.dictionary.copy_(found.dictionary)
        self.coefficients.copy_(found.coefficients)


class StraightThroughLinear(nn.Module):
    """A linear layer whose matrix is columns `start` to `stop` of a factorizer's A^; the first of a group owns it."""

    def __init__(self, layer: Any, group: Group, start: int, factorizer: Factorizer, owns: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.side = layer.in_features, layer.out_features, group.side
        self.start, self.stop = start, start + layer.sparse.lines
        self._shared = (factorizer,)  # in a tuple: only the owner lists its weights
        self.factorizer = factorizer if owns else None
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.factorizer is not None:
            self.factorizer.advance()
        matrix = self._shared[0].columns(self.start, self.stop)
        y = nn.functional.linear(x, matrix.T if self.side == "outputs" else matrix)
        return y if self.bias is None else y + self.bias


def begin(body: nn.Module, groups: Sequence[Group], variant: str, original: nn.Module, freeze_at: int, decay: float) -> None:
    """Put straight-through layers in the places of dense-sparse ones, in `body` itself; `freeze_at` a step of training.

    `original` has the dense matrices, which variant B begins with.
    """
    for group in groups:
        layers: list[Any] = [body.get_submodule(name) for name in group.layers]
        first = layers[0]
        weight = first.dictionary.weight.detach()
        coefficients = torch.cat([layer.sparse.matrix().detach() for layer in layers]).T.contiguous()
        initial = Factors((weight.T if group.side == "outputs" else weight).contiguous(), coefficients)
        made: Factorizer
        if variant == "a":
            made = ShadowCoefficients(initial, group.nonzeros, group.grouped, freeze_at, decay)
        else:
            made = ShadowMatrix(matrix_of(original, group), initial, group.nonzeros, group.grouped, freeze_at)
        start = 0
        for name, layer in zip(group.layers, layers, strict=True):
            body.set_submodule(name, StraightThroughLinear(layer, group, start, made, owns=layer is first))
            start += layer.sparse.lines


def end(body: nn.Module, groups: Sequence[Group], shells: nn.Module) -> None:
    """Put the learned factors into dense-sparse layers again: those of `shells`, a body as it was before `begin`."""
    for group in groups:
        layers: list[Any] = [body.get_submodule(name) for name in group.layers]
        found = layers[0].factorizer.factors()
        for name, layer in zip(group.layers, layers, strict=True):
            shell: Any = shells.get_submodule(name)
            if shell.bias is not None:
                with torch.no_grad():
                    shell.bias.copy_(layer.bias)
            body.set_submodule(name, shell)
        fill(body, group, found.dictionary, *lines(found.coefficients, group.nonzeros, group.grouped))


def refresh(body: nn.Module, rounds: int = 1) -> None:
    """Between two epochs: see `Factorizer.refresh`."""
    for module in body.modules():
        if isinstance(module, Factorizer):
            module.refresh(rounds)


def supports(body: nn.Module) -> list[Tensor]:
    """Which coefficients each factorizer in `body` keeps now, in order."""
    return [m.factors().coefficients.ne(0).cpu() for m in body.modules() if isinstance(m, Factorizer)]


def moved(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Share of the kept coefficients that were not kept before."""
    new = sum(int((b & ~a).sum()) for a, b in zip(before, after, strict=True))
    return new / max(1, sum(int(b.sum()) for b in after))


def matrix_of(body: nn.Module, group: Group) -> Tensor:
    """The dense matrices of a group's linear layers as A (short, lines)."""
    layers: list[Any] = [body.get_submodule(name) for name in group.layers]
    weight = torch.cat([layer.weight.detach() for layer in layers]).float()  # (m, n), as nn.Linear has it
    return (weight.T if group.side == "outputs" else weight).contiguous()


__all__ = [
    "Factorizer",
    "ShadowCoefficients",
    "ShadowMatrix",
    "StraightThroughLinear",
    "begin",
    "end",
    "matrix_of",
    "moved",
    "refresh",
    "supports",
]
