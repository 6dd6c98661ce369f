"""What the tests of passes work on: a narrow LMUFormer that has learned three made-up words, and users' small modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.contracts import Pass, Split
from edgetk.core.errors import InputError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.lmuformer import LMUFormer, build
from edgetk.tasks.training.loop import Schedule, Training

FRAMES, FEATURES, CLASSES = 16, 8, 3
SIZES = {"train": 96, "validation": 48, "test": 48}


class Frozen:
    """Data to calibrate and validate on; three classes, each with its own band of features."""

    labels: tuple[str, ...] = ("one", "two", "three")
    origin = "made up"

    def split(self, name: str) -> Split:
        if name not in SIZES:
            raise InputError(f"words: the split must be one of {', '.join(SIZES)}, got {name!r}; correct it")
        generator = torch.Generator().manual_seed(list(SIZES).index(name))
        labels = torch.arange(SIZES[name]) % CLASSES
        features = torch.randn(SIZES[name], FRAMES, FEATURES, generator=generator)
        for k in range(CLASSES):
            features[labels == k, :, 2 * k : 2 * k + 2] += 1.5
        return Split(name, features, labels, self.origin)

    def calibration(self, n: int) -> Tensor:
        return self.split("train").features[:n]


class Words(Frozen):
    """The same, and a training split to learn from."""

    augmentations: Mapping[str, Any] = {"none": None, "louder": 2.0}

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        train = self.split("train")
        features = train.features * (augmentation or 1.0)
        return lambda rows: (features[rows], F.one_hot(train.labels[rows], CLASSES).float()), len(train.labels)


class Examples(Frozen):
    """A few given inputs to calibrate and train on; example i is of class i."""

    augmentations: Mapping[str, Any] = {"none": None}

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.labels = tuple(f"class {i}" for i in range(len(x)))

    def calibration(self, n: int) -> Tensor:
        return self.x[:n]

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        return lambda rows: (self.x[rows], torch.eye(len(self.x))[rows]), len(self.x)


def stir(net: nn.Module, seed: int = 0) -> None:
    """Give every batch norm statistics and weights of its own, negative ones too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNorm | nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.normal_(0, 1, generator=generator)
                module.bias.normal_(0, 0.5, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)


@cache
def _learned() -> Bundle:
    torch.manual_seed(0)
    bundle = build(
        "xs",
        widths=(16, 16, 16, 16),
        order=16,
        hidden=16,
        ffn=32,
        features=FEATURES,
        frames=FRAMES,
        classes=CLASSES,
        theta=16.0,
    )
    net, data = bundle.module, Words()
    assert isinstance(net, LMUFormer)
    stir(net)
    with torch.no_grad():
        net.mixer.hidden.weight.normal_(0, 0.3)
        net.mixer.encoder.weight.normal_(0, 0.3)
        net.mixer.encoder.bias.fill_(0.5)
    batches, rows = data.batches("cpu")
    validation = data.split("validation")
    training = Training(
        net, batches, rows, (validation.features, validation.labels), Schedule(epochs=12, batch=16, lr=1e-2, shape="cosine")
    )
    list(training)
    net.load_state_dict(training.best)
    net.eval()
    return replace(bundle, data=Words(), labels=Words.labels, original=copy.deepcopy(net))


def learned() -> Bundle:
    """A narrow LMUFormer that was trained on the words: a copy to work on."""
    bundle = _learned()
    return replace(bundle, body=copy.deepcopy(bundle.body))


def around(net: nn.Module, *shape: int, outputs: int = CLASSES, data: Any = None) -> Bundle:
    """A user's module with inputs (batch, *shape)."""
    return Bundle(
        name="user",
        body=net.eval(),
        signature=Signature((TensorSpec("x", ("batch", *shape)),), (TensorSpec("y", ("batch", outputs)),)),
        task="speech-commands",
        data=data,
        labels=Words.labels,
    )


def applied(made: Pass, bundle: Bundle, name: str = "") -> Bundle:
    """Check, run and record a pass as the runner does."""
    made.check(bundle)
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    record = PassRecord(name or type(made).__name__.lower(), {}, result.notes, result.structure)
    after = bundle.with_body(result.body, record, signature=result.signature or bundle.signature)
    after.module.eval()
    return after


def outputs(bundle: Bundle, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return bundle.predict()(inputs)


def streamed(bundle: Bundle, x: Tensor) -> Tensor:
    """All decisions of a stream over x (B, T, F) and its flush."""
    net = bundle.module
    assert isinstance(net, LMUFormer)
    with torch.no_grad():
        y, *state = net(x, *net.zero_state(len(x)))
        return torch.cat([y, net.flush(*state)[0]], dim=1)


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest magnitude of `b`."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def right(bundle: Bundle) -> int:
    """Right answers on the validation split."""
    split = Words().split("validation")
    return int((outputs(bundle, split.features).argmax(1) == split.labels).sum())
