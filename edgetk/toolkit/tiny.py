"""A streaming model of a few hundred weights with made-up data of three classes: the whole flow in seconds, without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Split
from edgetk.core.errors import InputError
from edgetk.core.figures import Score
from edgetk.core.signature import Signature, StateSpec, TensorSpec

FRAMES, FEATURES, HIDDEN = 6, 4, 8
#: hidden units of the ready-made model that never fire: what a pass that prunes should find
DEAD = 2
LABELS = ("falling", "flat", "rising")
PERIOD_S = 0.01
#: how much of its memory a step keeps
KEEP = 0.5


class TinyNet(nn.Module):
    """h_t = relu(W_1 x_t);  m_t = m_{t-1} / 2 + h_t;  y = W_2 mean(m).  Causal: the stream needs no look-ahead."""

    def __init__(self, hidden: int = HIDDEN, classes: int = len(LABELS)) -> None:
        super().__init__()
        self.encode = nn.Linear(FEATURES, hidden)
        self.decide = nn.Linear(hidden, classes)

    def memories(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> the sum of all memories (B, H)."""
        m = total = torch.zeros_like(self.encode(x[:, 0]))
        for t in range(FRAMES):
            m = KEEP * m + F.relu(self.encode(x[:, t]))
            total = total + m
        return total

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, F) -> scores (B, K)."""
        y: Tensor = self.decide(self.memories(x) / FRAMES)
        return y

    def forward(self, x: Tensor, m: Tensor, total: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        """One frame x (B, 1, F) and state -> running scores (B, 1, K), next state."""
        m = KEEP * m + F.relu(self.encode(x[:, 0]))
        total, count = total + m, count + 1.0
        return self.decide(total / count)[:, None], m, total, count


class TinyData:
    """Frames that fall, stay or rise over time, with noise; every split has its own random numbers."""

    origin = "made up"

    def __init__(self, labels: Sequence[str] = LABELS) -> None:
        self.labels = tuple(labels)

    def split(self, name: str) -> Split:
        """The split "train" (n = 192), "validation" or "test" (n = 96)."""
        seeds = {"train": 1, "validation": 2, "test": 3}
        if name not in seeds:
            raise InputError(f"tiny: the split must be one of {', '.join(seeds)}, got {name!r}; correct it")
        features, labels = _draw(seeds[name], 192 if name == "train" else 96)
        return Split(name, features, labels, "made up")

    def calibration(self, n: int) -> Tensor:
        """`n` inputs of the train split, balanced over the classes: (n, T, F)."""
        features = self.split("train").features
        return features.repeat(-(-n // len(features)), 1, 1)[:n]


class TinyTask:
    """The task of `TinyData`, named "tiny"."""

    name = "tiny"
    front_end: Mapping[str, Any] = {"features": FEATURES}

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> TinyData:
        """Made-up data; there is none in folders, and the labels are fixed."""
        if folder is not None:
            raise InputError(f"tiny: data is made up, so the folder must be none, got {folder}; leave --data out")
        if labels is not None and tuple(labels) != LABELS:
            raise InputError(f"tiny: labels must be {', '.join(LABELS)}, got {', '.join(labels)}; leave them out")
        return TinyData()

    def score(self, predict: Callable[[Tensor], Tensor], split: Split, official_only: bool = True) -> Score:
        """Right answers by arg-max."""
        right = int((predict(split.features).argmax(1) == split.labels).sum())
        return Score(right, len(split.labels), split.name, "made up")

    def read(self, path: Path) -> Tensor:
        """One input from text: T lines of F numbers. Raises InputError."""
        try:
            rows = [[float(v) for v in line.split()] for line in Path(path).read_text().splitlines() if line.strip()]
            x = torch.tensor(rows)
        except (OSError, ValueError) as error:
            raise InputError(f"tiny: {path} must be {FRAMES} lines of {FEATURES} numbers, got: {error}; correct it") from error
        if x.shape != (FRAMES, FEATURES) or not bool(x.isfinite().all()):
            raise InputError(f"tiny: {path} must be {FRAMES} lines of {FEATURES} numbers, got {tuple(x.shape)}; correct it")
        return x[None]


def tiny_bundle() -> Bundle:
    """The tiny model, already good at its task (weights by ridge regression, the same every time), with its data."""
    generator = torch.Generator().manual_seed(0)
    net = TinyNet()
    with torch.no_grad():
        for weight in (net.encode.weight, net.encode.bias):
            weight.copy_(torch.randn(weight.shape, generator=generator))
        train = TinyData().split("train")
        net.encode.weight[HIDDEN - DEAD :] = net.encode.bias[HIDDEN - DEAD :] = 0.0
        inputs = net.memories(train.features) / FRAMES
        design = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1).double()
        ridge = 1e-6 * torch.eye(
            HIDDEN + 1, dtype=torch.float64
        )  # the dead units leave the plain problem without a unique answer
        wanted = design.T @ F.one_hot(train.labels, len(LABELS)).double()
        solution = torch.linalg.solve(design.T @ design + ridge, wanted)
        net.decide.weight.copy_(solution[:-1].T)
        net.decide.bias.copy_(solution[-1])
    states = (("memory", HIDDEN), ("sum", HIDDEN), ("count", 1))
    return Bundle(
        name="tiny",
        body=net.eval(),
        signature=Signature(
            inputs=(TensorSpec("features", (1, 1, FEATURES), axes="B T F"),),
            outputs=(TensorSpec("scores", (1, 1, len(LABELS)), axes="B T K"),),
            state=tuple(StateSpec(TensorSpec(f"state_tiny_{name}", (1, width), axes="B C")) for name, width in states),
            period_s=PERIOD_S,
        ),
        clip=Signature(
            inputs=(TensorSpec("features", ("batch", FRAMES, FEATURES), axes="B T F"),),
            outputs=(TensorSpec("scores", ("batch", len(LABELS)), axes="B K"),),
        ),
        task="tiny",
        labels=LABELS,
        data=TinyData(),
    )


def _draw(seed: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(LABELS)
    time = torch.linspace(-1.0, 1.0, FRAMES)[None, :, None]
    slope = (labels - 1.0)[:, None, None]
    noise = torch.randn(n, FRAMES, FEATURES, generator=generator)
    return slope * time * torch.tensor([1.0, 0.5, -1.0, 0.25]) + 0.25 * noise, labels
