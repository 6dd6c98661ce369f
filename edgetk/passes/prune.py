"""Structured pruning: whole channels and memory orders are deleted, and what stays is refitted by least squares.

Which channels of a group go first is a question of its own: by least squares (Hassibi & Stork 1993), by magnitude (the l2 form
of Li et al. 2017, arXiv:1608.08710) or by the loss to first order (Molchanov et al. 2019, arXiv:1906.10771).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError

#: which channels of a group go first
CRITERIA = ("least-squares", "magnitude", "taylor")
#: shares of the model's multiply-accumulates to come down to, tried in this order until accuracy suffers
LADDER = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


@dataclass(frozen=True)
class Prune:
    """Delete the channels whose removal costs their reader's output least (optimal brain surgeon for blocks of columns).

    For every group and a few widths the change of the model's outputs is measured; the widths that save most
    multiply-accumulates for the least change are then taken further and further, until accuracy on the validation split falls
    by more than `max_drop`. `keep` fixes widths instead of searching (fine-tuning follows then).
    Works on modules that declare `groups()` (and `memory_groups()`).
    """

    #: accuracy on validation that the search may give up, in [0, 1]
    max_drop: float = 0.005
    #: fixed widths per group, such as {"embed.conv0": 96}; empty: search. The memory goes by its group's name too
    keep: Mapping[str, int] = field(default_factory=dict)
    #: which channels go first: "least-squares", "magnitude" or "taylor" (training data needed)
    criterion: str = "least-squares"
    #: readers get the weights that are best for the channels that stay
    refit: bool = True
    #: inputs that the second moments are taken over, and examples that gradients are
    calibration: int = 96
    #: validation examples that judge a candidate
    examples: int = 1000

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drop <= 1.0:
            raise RecipeError(f"prune: max_drop must be in [0, 1], got {self.max_drop}; correct the recipe")
        if self.criterion not in CRITERIA:
            raise RecipeError(
                f"prune: criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}; correct the recipe"
            )
        if self.calibration < 1 or self.examples < 1:
            raise RecipeError(
                f"prune: calibration and examples must be at least 1, got {self.calibration} and {self.examples}; "
                "correct the recipe"
            )

    def check(self, bundle: Bundle) -> None:
        """The module must declare its groups, their readers must still be linear layers, and there must be data."""
        from torch import nn

        from edgetk.models.layers.groups import is_depthwise
        from edgetk.models.layers.norm import BatchNorm
        from edgetk.passes._importance import require_gradients
        from edgetk.passes._search import declared
        from edgetk.passes._statistics import require_data

        if not hasattr(bundle.body, "groups"):
            raise PreconditionError(
                f"prune: the module must declare what can be removed by a method groups(), got {type(bundle.body).__name__} "
                "without one; add it (see docs/adding-a-pass.md) or leave prune out"
            )
        require_data(bundle, "prune")
        require_gradients(bundle, self.criterion, "prune")
        groups, memories = declared(bundle.module)
        makers = [p.path.rpartition(".")[0] for g in groups for p in g.producers if p.path.endswith(".weight")]
        for path in [*makers, *(g.reader for g in groups), *(m.reader for m in memories)]:
            layer = bundle.module.get_submodule(path)
            if type(layer) not in (nn.Linear, BatchNorm) and not is_depthwise(layer):
                raise PreconditionError(
                    f"prune: {path} must be a plain linear layer, got {type(layer).__name__}; "
                    "prune before factorize and quantize"
                )
        sizes = {g.name: g.size for g in groups} | {m.name: m.order for m in memories}
        for name, width in self.keep.items():
            if name not in sizes:
                raise PreconditionError(
                    f"prune: keep must name groups of the model ({', '.join(sizes)}), got {name!r}; correct it"
                )
            if not 1 <= width <= sizes[name]:
                raise PreconditionError(f"prune: keep {name} must be in [1, {sizes[name]}], got {width}; correct it")

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.passes._search import Search
        from edgetk.passes._statistics import Guide

        assert bundle.data is not None
        search = Search(bundle, bundle.data.calibration(self.calibration), self.keep, self.criterion, self.refit)
        tried: list[dict[str, Any]] = []
        plan = search.fixed(self.keep)
        if not self.keep:
            guide = Guide(bundle, self.examples)
            table = search.damage()
            for share in LADDER:
                candidate = search.plan(table, share)
                if candidate is None or (tried and widths(candidate) == tried[-1]["widths"]):
                    continue
                drop = guide.drop(replace(bundle, body=search.apply(candidate)))
                tried.append({"macs_share": share, "accuracy_drop": drop, "widths": widths(candidate)})
                if drop > self.max_drop:
                    break
                plan = candidate
            tried.append({"examples": guide.n})
        if not plan:
            return PassResult(bundle.body, False, {"tried": tried})
        body = search.apply(plan, final=True)
        signature = body.stream_signature() if hasattr(body, "stream_signature") else None  # type: ignore[operator]
        notes = {"widths": widths(plan), "tried": tried, "calibration_inputs": self.calibration}
        return PassResult(body, True, notes, {"keep": plan}, signature)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Delete the same channels; the refitted weights come afterwards."""
        from edgetk.models.layers.groups import delete
        from edgetk.passes._search import declared

        groups, memories = declared(body)
        for group in groups:
            if group.name in structure["keep"]:
                delete(body, group, structure["keep"][group.name])
        for memory in memories:
            if memory.name in structure["keep"]:
                memory.resize(body, structure["keep"][memory.name])
        return body


def widths(plan: Mapping[str, Any]) -> dict[str, int]:
    """How many channels, or which order, each group keeps."""
    return {name: len(kept) if isinstance(kept, list) else kept for name, kept in plan.items()}


PASS = Prune
