"""Second moments of what layers read, over calibration inputs, and the accuracy that guides a search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Split
from edgetk.core.errors import PreconditionError
from edgetk.models.layers.observe import OutputChange, inputs_of

#: inputs on which the change of a model's outputs is seen
CHANGE_INPUTS = 32


@dataclass(frozen=True)
class Moments:
    """E[[z; 1] [z; 1]^T] (K + 1, K + 1) in float64 of a layer's inputs z (K,): what least squares needs to know of them."""

    second: Tensor

    @property
    def mean(self) -> Tensor:
        return self.second[-1, :-1]

    @property
    def covariance(self) -> Tensor:
        """(K, K)."""
        return self.second[:-1, :-1] - torch.outer(self.mean, self.mean)


class Collector:
    """Adds rows (…, K) up to `Moments`."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._rows = 0

    def add(self, rows: Tensor) -> None:
        flat = rows.detach().reshape(-1, rows.shape[-1]).double()  # or variances beside a large mean are lost in rounding
        wide = torch.cat([flat, flat.new_ones(len(flat), 1)], dim=1)
        product = wide.T @ wide
        self._sum = product if self._sum is None else self._sum + product
        self._rows += len(flat)

    def moments(self) -> Moments:
        assert self._sum is not None, "nothing was collected"
        return Moments(self._sum / self._rows)


def collect(bundle: Bundle, names: list[str], inputs: Tensor) -> dict[str, Moments]:
    """Moments of the inputs of the layers `names` while the whole-input form runs over `inputs` (n, …)."""
    collectors = {name: Collector() for name in names}
    with inputs_of(bundle.module, {name: c.add for name, c in collectors.items()}), torch.inference_mode():
        run(bundle, inputs)
    return {name: c.moments() for name, c in collectors.items()}


def output_change(bundle: Bundle, inputs: Tensor) -> OutputChange:
    """The change of `bundle`'s outputs on a few of `inputs`, spread over all of them."""
    some = torch.linspace(0, len(inputs) - 1, min(CHANGE_INPUTS, len(inputs))).long()
    return OutputChange(bundle.predict(), inputs[some])


def run(bundle: Bundle, inputs: Tensor, batch: int = 32) -> None:
    """The whole-input form over `inputs`, in batches, for its side effects."""
    predict = bundle.predict()
    for part in torch.split(inputs, batch):
        predict(part)


def require_data(bundle: Bundle, who: str) -> None:
    """Raise PreconditionError where there is nothing to calibrate on."""
    if bundle.data is None:
        raise PreconditionError(
            f"{who}: needs calibration data, got a model without a task; name one with --task and its data with --data"
        )


def judging(bundle: Bundle, examples: int) -> Split:
    """At most so many examples of the validation split, balanced over the classes."""
    assert bundle.data is not None
    whole = bundle.data.split("validation")
    order = torch.argsort(_rank_within_class(whole.labels), stable=True)[:examples]
    return Split(whole.name, whole.features[order], whole.labels[order], whole.origin)


class Guide:
    """Accuracy on a fixed part of the validation split, balanced over the classes. A search never looks at the test."""

    def __init__(self, bundle: Bundle, examples: int) -> None:
        self._split = judging(bundle, examples)
        self._task = registry.load("task", bundle.task)
        self.n = len(self._split.labels)
        self.correct_before = self.correct(bundle)

    def correct(self, bundle: Bundle) -> int:
        """Correct answers of the whole-input form."""
        result: int = self._task.score(bundle.predict(), self._split, official_only=False).correct
        return result

    def drop(self, bundle: Bundle) -> float:
        """Share of examples lost against the model as it came."""
        return (self.correct_before - self.correct(bundle)) / self.n


def _rank_within_class(labels: Tensor) -> Tensor:
    """How many earlier examples share each one's class."""
    rank = torch.zeros_like(labels)
    for label in set(labels.tolist()):
        where = labels == label
        rank[where] = torch.arange(int(where.sum()))
    return rank
