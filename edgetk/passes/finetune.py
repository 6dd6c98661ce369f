"""Fine-tuning with distillation: a few epochs on the task's training data, learning from the model before compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError


@dataclass(frozen=True)
class Finetune:
    """Train what the passes before left, with the uncompressed model's outputs mixed into the targets.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, with sigmoids where the loss is binary cross entropy.
    The epoch with most correct validation answers is kept. Comes before quantize.
    """

    epochs: int = 5
    batch: int = 128
    #: highest learning rate; half a cosine brings it to zero
    lr: float = 1e-3
    #: "bce" or "ce", as the model was trained with
    loss: str = "bce"
    #: share of the original model's outputs in the targets, in [0, 1]
    distill: float = 0.5
    #: decay of the average of the weights that is evaluated
    average: float = 0.998
    #: name of the task's augmentation; "none" leaves inputs as they are
    augment: str = "robust"
    #: "auto" takes a GPU where there is one
    device: str = "auto"
    seed: int = 0

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._schedule()
        if self.device not in ("auto", "cpu", "cuda") or self.seed < 0:
            raise RecipeError(
                f"finetune: device must be auto, cpu or cuda and seed at least 0, got {self.device!r} and {self.seed}; "
                "correct the recipe"
            )

    def _schedule(self) -> Any:
        from edgetk.tasks.training.loop import Schedule

        return Schedule(
            epochs=self.epochs, batch=self.batch, lr=self.lr, shape="cosine", loss=self.loss, average=self.average,
            distill=self.distill, seed=self.seed,
        )  # fmt: skip

    def check(self, bundle: Bundle) -> None:
        """There must be training data and trainable weights."""
        from edgetk.tasks.training.tuning import require

        if any(getattr(m, "integer", False) for m in bundle.module.modules()):
            raise PreconditionError("finetune: must come before quantize, got integer weights; change the order in the recipe")
        require("finetune", bundle, self.augment, self.distill)

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.models.layers.exact import settle
        from edgetk.tasks.training.tuning import tune

        body = bundle.module
        notes = tune(body, bundle, self._schedule(), self.augment, self.device)
        settle(body)
        return PassResult(body, True, notes)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Nothing changes but weights."""
        return body


PASS = Finetune
