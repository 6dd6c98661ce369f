"""Learn dense-sparse factors again, with the task: which coefficients are kept is decided while the model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError, closest

VARIANTS = ("a", "b")


@dataclass(frozen=True)
class Refactorize:
    """Train what `factorize` (method dense-sparse) left, with a straight-through gradient through the choice of coefficients.

    Source: DSFormer's straight-through factorizer, arXiv:2312.13211, in two readings: "a" trains the dictionary and a shadow of
    all coefficients, "b" a shadow of the dense matrix. Sizes stay as they are. The epoch with most correct validation answers
    is kept. Comes right after factorize and before quantize; with the settings `factorize` it does that one's work first, so
    that only the trained result is judged.
    """

    variant: str = "a"
    #: settings of factorize (its method is dense-sparse), such as {"budget": {"ratio": 2.8}}; empty: it was done before
    factorize: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 3
    batch: int = 32
    #: highest learning rate; half a cosine brings it to zero. Shadow coefficients move five times as fast
    lr: float = 5e-5
    #: "bce" or "ce", as the model was trained with
    loss: str = "ce"
    weight_decay: float = 0.01
    #: share of the original model's outputs in the targets, in [0, 1]
    distill: float = 0.0
    #: how fast coefficients that are not kept shrink ("a" only), added to their gradient
    decay: float = 2e-4
    #: share of the steps, the last ones, that keep the choice as it is, in [0, 1]
    freeze: float = 0.15
    #: name of the task's augmentation; "none" leaves inputs as they are
    augment: str = "none"
    #: "auto" takes a GPU where there is one
    device: str = "auto"
    seed: int = 0

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._schedule()
        self._first()
        if self.variant not in VARIANTS:
            raise RecipeError(f"refactorize: variant must be a or b, got {self.variant!r}; correct the recipe")
        if not 0.0 <= self.freeze <= 1.0 or not self.decay >= 0.0:
            raise RecipeError(
                f"refactorize: freeze must be in [0, 1] and decay at least 0, got {self.freeze} and {self.decay}; "
                "correct the recipe"
            )
        if self.device not in ("auto", "cpu", "cuda") or self.seed < 0:
            raise RecipeError(
                f"refactorize: device must be auto, cpu or cuda and seed at least 0, got {self.device!r} and {self.seed}; "
                "correct the recipe"
            )

    def _schedule(self) -> Any:
        from edgetk.tasks.training.loop import Schedule

        return Schedule(
            epochs=self.epochs, batch=self.batch, lr=self.lr, betas=(0.9, 0.999), shape="cosine", loss=self.loss,
            weight_decay=self.weight_decay, decoupled=True, distill=self.distill, seed=self.seed,
        )  # fmt: skip

    def _first(self) -> Any:
        """The pass that comes first; None where it was done before."""
        from edgetk.passes.factorize import Factorize

        if not self.factorize:
            return None
        settings: dict[str, Any] = {"method": "dense-sparse", **self.factorize}
        known = {f.name for f in fields(Factorize)}
        for name in settings:
            if name not in known:
                raise RecipeError(
                    f"refactorize: factorize must have settings of that pass, got {name!r}; {closest(name, known)}"
                )
        if settings["method"] != "dense-sparse":
            raise RecipeError(
                f"refactorize: the method of factorize must be dense-sparse, got {settings['method']!r}; leave it out"
            )
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        return Factorize(**plain)

    def check(self, bundle: Bundle) -> None:
        """There must be training data, float factors from factorize, and for "b" the dense matrices they came from."""
        from torch import nn

        from edgetk.models.layers.dense_sparse import groups_of
        from edgetk.tasks.training.tuning import require

        if any(getattr(m, "integer", False) for m in bundle.module.modules()):
            raise PreconditionError(
                "refactorize: must come before quantize, got integer weights; change the order in the recipe"
            )
        require("refactorize", bundle, self.augment, self.distill)
        first = self._first()
        if first is not None and not groups_of(bundle.module):
            first.check(bundle)
        if self.variant == "b":
            known = dict(bundle.original.named_modules()) if bundle.original is not None else {}
            for group in groups_of(bundle.module):
                for name in group.layers:
                    if type(known.get(name)) is not nn.Linear:
                        raise PreconditionError(
                            f"refactorize: variant b needs the dense matrix of {name}, got none in the model as it was opened; "
                            'use variant "a"'
                        )

    def __call__(self, bundle: Bundle) -> PassResult:
        import copy

        from edgetk.core.contracts import TrainingData
        from edgetk.models.layers.dense_sparse import groups_of
        from edgetk.passes import _straight_through as stf
        from edgetk.tasks.training.tuning import tune

        body = bundle.module
        first, about, structure = self._first(), {}, None
        if first is not None and not groups_of(body):
            made = first(bundle)
            body, about, structure = made.body, {"factorize": dict(made.notes)}, made.structure
            bundle = replace(bundle, body=body)
        groups = groups_of(body)
        if not groups:
            return PassResult(body, False, {"why": "there are no dense-sparse layers; factorize with that method first"})
        assert isinstance(bundle.data, TrainingData)
        rows = bundle.data.batches("cpu")[1]
        steps = self.epochs * (rows // self.batch)
        shells = copy.deepcopy(body)
        stf.begin(body, groups, self.variant, bundle.original, int(steps * (1 - self.freeze)), self.decay)
        before = stf.supports(body)
        between = stf.refresh if self.variant == "b" else None
        notes = tune(body, bundle, self._schedule(), self.augment, self.device, between)
        moved = stf.moved(before, stf.supports(body))
        stf.end(body, groups, shells)
        notes |= {"variant": self.variant, "steps": steps, "support_moved": round(moved, 6), **about}
        return PassResult(body, True, notes, structure)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """The layers of factorize, where it was done here; else nothing changes but weights and indices."""
        from edgetk.models.layers.dense_sparse import install
        from edgetk.models.layers.dense_sparse_sizes import Group

        install(body, [Group.from_json(group) for group in structure["groups"]])
        return body


PASS = Refactorize
