"""Plug-ins for tests: passes that behave, misbehave or get interrupted, all on the tiny model of `edgetk.testing`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.core.signature import Signature, StateSpec
from edgetk.testing import TinyNet

#: names of the phases in which Ctrl-C is pressed once
interrupts: set[str] = set()
#: names of passes in the order they ran
calls: list[str] = []


def interrupt(phase: str) -> None:
    """Press Ctrl-C if this phase is to be interrupted; the second time it goes through."""
    if phase in interrupts:
        interrupts.remove(phase)
        raise KeyboardInterrupt


class _Torch:
    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def check(self, bundle: Bundle) -> None:
        if not isinstance(bundle.body, TinyNet):
            raise PreconditionError(f"fake: the model must be tiny, got {bundle.name}; use another pass")

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        return resized(body, structure["hidden"])


def resized(net: TinyNet, hidden: int) -> TinyNet:
    """A copy with so many hidden units, the heaviest first; more than there are get zero weights."""
    order = net.decide.weight.norm(dim=0).argsort(descending=True, stable=True)[:hidden]
    new = TinyNet(hidden).eval()
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
        new.encode.weight[: len(order)] = net.encode.weight[order]
        new.encode.bias[: len(order)] = net.encode.bias[order]
        new.decide.weight[:, : len(order)] = net.decide.weight[:, order]
        new.decide.bias.copy_(net.decide.bias)
    return new


def with_states(signature: Signature, hidden: int) -> Signature:
    """The stream signature with states of another width."""
    states = tuple(
        s if s.name.endswith("count") else StateSpec(replace(s.spec, shape=(1, hidden)), s.init) for s in signature.state
    )
    return replace(signature, state=states)


@dataclass(frozen=True)
class Shrink(_Torch):
    """Keep the `hidden` units that weigh most."""

    hidden: int = 7

    def __post_init__(self) -> None:
        if not 1 <= self.hidden <= 4096:
            raise RecipeError(f"shrink: hidden must be in [1, 4096], got {self.hidden}; choose fewer or more")

    def __call__(self, bundle: Bundle) -> PassResult:
        calls.append("shrink")
        interrupt("pass")
        if self.hidden == bundle.body.encode.out_features:
            return PassResult(bundle.body, False)
        body = resized(bundle.body, self.hidden)
        notes = {"hidden": self.hidden}
        return PassResult(body, True, notes, {"hidden": self.hidden}, with_states(bundle.signature, self.hidden))


@dataclass(frozen=True)
class Nudge(_Torch):
    """Random noise on the weights, so that seeds matter."""

    amount: float = 1e-3

    def __call__(self, bundle: Bundle) -> PassResult:
        calls.append("nudge")
        with torch.no_grad():
            for parameter in bundle.module.parameters():
                parameter += self.amount * torch.randn_like(parameter)
        return PassResult(bundle.body, True)


@dataclass(frozen=True)
class Rescale(_Torch):
    """Lossless: relu(a x) = a relu(x)."""

    lossless: ClassVar[bool] = True
    factor: float = 2.0

    def __call__(self, bundle: Bundle) -> PassResult:
        calls.append("rescale")
        with torch.no_grad():
            bundle.body.encode.weight *= self.factor
            bundle.body.encode.bias *= self.factor
            bundle.body.decide.weight /= self.factor
        return PassResult(bundle.body, True)


@dataclass(frozen=True)
class Spoil(_Torch):
    """Zero all decisions."""

    def __call__(self, bundle: Bundle) -> PassResult:
        nn.init.zeros_(bundle.body.decide.weight)
        return PassResult(bundle.body, True)


@dataclass(frozen=True)
class Liar(_Torch):
    """Says lossless and is not."""

    lossless: ClassVar[bool] = True

    def __call__(self, bundle: Bundle) -> PassResult:
        with torch.no_grad():
            bundle.body.decide.weight += 0.1
        return PassResult(bundle.body, True)


@dataclass(frozen=True)
class Break(_Torch):
    """`how`: raise an error, give NaN weights, other states than declared, or notes that are no plain data."""

    how: str = "raise"

    def __call__(self, bundle: Bundle) -> PassResult:
        if self.how == "raise":
            raise ZeroDivisionError("division by zero")
        if self.how == "nan":
            nn.init.constant_(bundle.body.encode.weight, float("nan"))
        if self.how == "states":
            return PassResult(resized(bundle.body, 3), True, structure={"hidden": 3})
        return PassResult(bundle.body, True, notes={"tensor": torch.zeros(1)} if self.how == "notes" else {})


@dataclass(frozen=True)
class Meddle(_Torch):
    """Broken for the contract checks: changes what it was given, or rebuilds another shape."""

    how: str = "rebuild"

    def __call__(self, bundle: Bundle) -> PassResult:
        body = bundle.body if self.how == "random" else copy.deepcopy(bundle.body)
        if self.how == "random":
            with torch.no_grad():
                body.decide.bias += float(torch.empty(1).uniform_(generator=torch.Generator().manual_seed(len(calls))))
            calls.append("meddle")
            return PassResult(body, True)
        return PassResult(resized(body, 5), True, signature=with_states(bundle.signature, 5))


@dataclass(frozen=True)
class Strip:
    """On graphs: remove the documentation text."""

    accepts: ClassVar[tuple[str, ...]] = ("onnx",)
    lossless: ClassVar[bool] = True

    def check(self, bundle: Bundle) -> None:
        assert not bundle.is_torch

    def __call__(self, bundle: Bundle) -> PassResult:
        bundle.body.doc_string = ""
        return PassResult(bundle.body, True)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        return body
