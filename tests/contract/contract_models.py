"""Models that plug-ins are tried on: small ones of every kind a pass may accept, with made-up data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgetk.core import registry
from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.contracts import Split
from edgetk.core.errors import InputError
from edgetk.testing import tiny_bundle
from edgetk.toolkit.calling import seeded

FRAMES, FEATURES, CLASSES = 16, 8, 3
Batches = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Words:
    """Three classes, each with its own band of features; the shape of speech features, only smaller."""

    labels = ("one", "two", "three")
    origin = "made up"
    augmentations: Mapping[str, Any] = {"none": None}

    def split(self, name: str) -> Split:
        sizes = {"train": 48, "validation": 24, "test": 24}
        if name not in sizes:
            raise InputError(f"words: the split must be one of {', '.join(sizes)}, got {name!r}; correct it")
        generator = torch.Generator().manual_seed(list(sizes).index(name))
        labels = torch.arange(sizes[name]) % CLASSES
        features = torch.randn(sizes[name], FRAMES, FEATURES, generator=generator)
        for k in range(CLASSES):
            features[labels == k, :, 2 * k : 2 * k + 2] += 2.0
        return Split(name, features, labels, self.origin)

    def calibration(self, n: int) -> torch.Tensor:
        features = self.split("train").features
        return features.repeat(-(-n // len(features)), 1, 1)[:n]

    def batches(self, device: torch.device | str, augmentation: Any = None) -> tuple[Batches, int]:
        train = self.split("train")

        def draw(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return train.features[rows], torch.nn.functional.one_hot(train.labels[rows], CLASSES).float()

        return draw, len(train.labels)


def lmuformer() -> Bundle:
    """A narrow LMUFormer whose norms have seen data."""
    return _narrow("lmuformer", "xs")


def spiking() -> Bundle:
    """A narrow spiking LMUFormer whose norms have seen data."""
    return _narrow("lmuformer-spiking", "s")


def _narrow(family: str, variant: str) -> Bundle:
    with seeded(0):
        build = registry.load("model", family)
        bundle: Bundle = build(
            variant, widths=(16, 16, 16, 16), order=8, hidden=16, ffn=32, features=FEATURES, frames=FRAMES, classes=CLASSES
        )
        for name, value in bundle.module.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
    return replace(bundle, data=Words(), labels=Words.labels, original=bundle.body)


def transformer() -> Bundle:
    """Two stages of softmax attention, with 128 and 32 tokens."""
    with seeded(0):
        shape = {"size": (FRAMES, FEATURES), "patch": (3, 1), "dims": (8, 16), "depths": (1, 1), "heads": (1, 2)}
        build = registry.load("model", "ecoformer")
        bundle: Bundle = build("kws-msa", **shape, mlp_ratios=(2, 2), reductions=(1, 1), classes=CLASSES)
    return replace(bundle, data=Words(), labels=Words.labels, original=bundle.body)


def factorized() -> Bundle:
    """The transformer with dense-sparse layers."""
    made, bundle = registry.load("pass", "factorize"), transformer()
    body = copy.deepcopy(bundle.body)
    settings = {"method": "dense-sparse", "budget": {"ratio": 1.5}, "min_weights": 512, "rounds": 2, "calibration": 24}
    result = made(**settings)(replace(bundle, body=body))
    return bundle.with_body(result.body, PassRecord("factorize", settings, {}, result.structure))


def graph() -> Bundle:
    """The whole-input form of the tiny model as an ONNX body."""
    from edgetk.export.lower import lower
    from edgetk.targets import board

    bundle = tiny_bundle()
    low = lower(bundle, board.load("host"), ["clip"])[0]
    return replace(bundle, body=low.graph, signature=low.signature, clip=None)


def binary_pictures(folder: Path) -> Path:
    """Random pictures in the binary layout of CIFAR-10: 20 a file, two of each class."""
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        records = random.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) // 2  # one of every class is left when every tenth is held out
        records.tofile(folder / name)
    return folder


def texts(folder: Path, name: str) -> Path:
    """Made-up texts of a task in its published layout: 45 to train on and 45 to test on."""
    layout = registry.load("task", name).layout
    for part in ("train", "dev"):
        lines = ["a header"] if layout.header else []
        for i in range(45):
            fields = ["a field"] * layout.columns
            for column in layout.texts:
                fields[column] = f"{part} text {i}"
            fields[layout.label] = layout.labels[i % 2]
            lines.append("\t".join(fields))
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def reviews(folder: Path) -> Path:
    """Reviews of random words of four letters in the layout of IMDb's archive."""
    random = np.random.default_rng(0)
    for part, name in ((part, name) for part in ("train", "test") for name in ("neg", "pos")):
        (folder / part / name).mkdir(parents=True)
        for n in range(12):
            text = random.integers(97, 123, 150, dtype=np.uint8)
            text[4::5] = ord(" ")
            (folder / part / name / f"{n:02}.txt").write_bytes(text.tobytes())
    return folder
