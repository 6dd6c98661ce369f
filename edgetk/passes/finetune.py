"""Fine-tuning with distillation: a few epochs on the task's training data, learning from the model before compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult, TrainingData
from edgetk.core.errors import PreconditionError, RecipeError, closest


@dataclass(frozen=True)
class Finetune:
    """Train what the passes before left, with the uncompressed model's outputs mixed into the targets.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, with sigmoid outputs, since the task's loss is binary cross entropy.
    The epoch with most correct validation answers is kept. Comes before quantize.
    """

    epochs: int = 5
    batch: int = 128
    #: highest learning rate; half a cosine brings it to zero
    lr: float = 1e-3
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
            epochs=self.epochs, batch=self.batch, lr=self.lr, shape="cosine", average=self.average, distill=self.distill,
            seed=self.seed,
        )  # fmt: skip

    def check(self, bundle: Bundle) -> None:
        """There must be training data and trainable weights."""
        from edgetk.models.layers.quantized import QuantConv, QuantLinear

        if any(isinstance(m, QuantLinear | QuantConv) for m in bundle.module.modules()):
            raise PreconditionError("finetune: must come before quantize, got integer weights; change the order in the recipe")
        if not isinstance(bundle.data, TrainingData):
            raise PreconditionError(
                f"finetune: needs training data, got none for {bundle.name}; give the data set with --data or leave it out"
            )
        require = getattr(bundle.data, "require_training", None)  # what only some data sets can say without reading everything
        if require is not None:
            require()
        if self.distill > 0 and bundle.original is None:
            raise PreconditionError(
                f"finetune: distill={self.distill} needs the model before compression as teacher, got none; set distill to 0"
            )
        known = bundle.data.augmentations
        if self.augment not in known:
            raise PreconditionError(
                f"finetune: augment must be one of the task's, got {self.augment!r}; {closest(self.augment, known)}"
            )

    def __call__(self, bundle: Bundle) -> PassResult:
        import copy

        import torch

        from edgetk.models.layers.exact import settle
        from edgetk.tasks.training.loop import Training

        data = bundle.data
        assert isinstance(data, TrainingData)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        batches, rows = data.batches(device, data.augmentations[self.augment])
        validation = data.split("validation")
        body = bundle.module.to(device)
        teacher = copy.deepcopy(bundle.original).to(device).eval() if bundle.original is not None and self.distill > 0 else None
        training = Training(
            body, batches, rows, (validation.features.to(device), validation.labels.to(device)), self._schedule(), teacher
        )
        history = [[e.number, round(e.loss, 5), e.correct] for e in training]
        body.load_state_dict(training.best)
        settle(body)
        notes = {
            "history": history,
            "best_epoch": training.best_epoch,
            "validation_correct": training.best_correct,
            "validation_n": len(validation.labels),
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        }
        return PassResult(body.cpu().eval(), True, notes)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Nothing changes but weights."""
        return body


PASS = Finetune
