"""DSFormer: a BERT-type encoder whose matrices are products of a small dense and a semi-structured sparse one.

Source: Chand, Prabhu & Kumar 2023, arXiv:2312.13211; free choices are listed in docs/dsformer.md.

    tokens -> embeddings -> layers of [attention, norm, up, gelu, down, norm] -> mean over tokens -> logits

A variant is the dense encoder that the pass `factorize` (method dense-sparse) makes a DSFormer of; "base"
has the shape of MiniLM-L6. `build(…, ratio=2.8)` factorizes from the start, for counting and for training from scratch.
Pretrained weights come from a Hugging Face folder: `open_folder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.errors import InputError, UsageError
from edgetk.models import _bert_published
from edgetk.models._bert_encoder import BertEncoder, Config, bundled
from edgetk.models.layers.dense_sparse import install, plan
from edgetk.models.layers.dense_sparse_sizes import Group


@dataclass(frozen=True)
class Shape:
    """An encoder and what it is for: `ratio` 1 leaves it dense, more makes its matrices so many times smaller."""

    encoder: Config
    task: str = "sst2"
    ratio: float = 1.0


VARIANTS: Mapping[str, Shape] = {
    "base": Shape(Config()),
    "tiny": Shape(Config(dim=128, layers=2, heads=2, ffn=512)),
}
#: entry of a bundle's `source["config"]` that is no field of `Config`
_RATIO, _TASK = "ratio", "task"


def build(variant: str = "base", **config: Any) -> Bundle:
    """An untrained encoder; `config` overrides fields of the variant's `Config`, its `ratio` and its `task`."""
    shape = VARIANTS[variant]
    ratio, task = float(config.pop(_RATIO, shape.ratio)), str(config.pop(_TASK, shape.task))
    if not ratio >= 1.0:
        raise UsageError(f"dsformer: ratio must be at least 1, got {ratio}; correct it")
    net = BertEncoder(replace(shape.encoder, **config))
    if ratio > 1.0:
        install(net, groups(net, ratio))
        for layer in net.modules():
            if (fresh := getattr(layer, "initialise", None)) is not None:
                fresh()
    return _bundle(net, variant, task, ratio)


def groups(net: BertEncoder, ratio: float) -> tuple[Group, ...]:
    """Which of the encoder's matrices share a dictionary (query, key and value of a layer), and their sizes at `ratio`."""
    made = []
    for i in range(len(net.layers)):
        names = [[f"attention.{n}" for n in ("query", "key", "value")], ["attention.output"], ["up"], ["down"]]
        made += [plan(net, [f"layers.{i}.{name}" for name in group], ratio) for group in names]
    return tuple(made)


def open_folder(folder: Path, task: str = "", classes: int = 2) -> Bundle | None:
    """The pretrained encoder in a Hugging Face folder with a fresh head for `task` (sst2 unless told); None for another
    kind of folder.

    Raises InputError where the folder holds something else than such an encoder.
    """
    if not _bert_published.is_folder(folder):
        return None
    task = task or VARIANTS["base"].task
    length = registry.load("task", task).front_end.get("tokens")
    if length is None:
        raise InputError(f"model {folder}: needs a task of texts, got {task}; name one with --task")
    return _bundle(_bert_published.read(folder, length, classes), "base", task, 1.0)


def _bundle(net: BertEncoder, variant: str, task: str, ratio: float) -> Bundle:
    return bundled(net, "dsformer", variant, {**asdict(net.config), _RATIO: ratio, _TASK: task}, task)
