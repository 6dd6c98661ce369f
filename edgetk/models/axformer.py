"""AxFormer: a BERT-type encoder without the blocks, heads and groups of neurons that its task does not need.

Source: Nagarajan et al. 2020, arXiv:2010.03688; free choices are listed in docs/axformer.md.

    tokens -> embeddings -> layers of [attention, norm, up, gelu, down, norm], some of it gone -> mean over tokens -> logits

The pass `prune-blocks` finds out what that is; `build(…, removed=…, hardened=…)` makes such an encoder from the start, as
large as a search left it: for training, for counting. "base" is the whole encoder that a search begins with, of MiniLM-L6's
shape, "tiny" a small one that has lost one of everything. `found_in` reads what a search found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgetk.core.bundle import Bundle
from edgetk.core.errors import InputError
from edgetk.models._bert_encoder import BertEncoder, Config, bundled
from edgetk.models.layers.elements import NEURONS, declared
from edgetk.models.layers.removal import delete


@dataclass(frozen=True)
class Shape:
    """An encoder, and what of it is gone: blocks and parts by name.

    hardened  attentions that keep their largest weights only: name -> how many
    neurons   of a feed-forward network that go together, which the names of parts follow from
    """

    encoder: Config
    task: str = "sst2"
    removed: tuple[str, ...] = ()
    hardened: Mapping[str, int] = field(default_factory=dict)
    neurons: int = NEURONS


_TINY = Config(dim=128, layers=3, heads=4, ffn=512)
VARIANTS: Mapping[str, Shape] = {
    "base": Shape(Config()),
    "tiny": Shape(
        _TINY,
        removed=("layers.2.ffn", "layers.2.attention.1", "layers.1.attention", "layers.1.ffn.3", "layers.0.attention.2"),
        hardened={"layers.0.attention": 30},
        neurons=128,
    ),
}
#: entries of a bundle's `source["config"]` that are no fields of `Config`
_OWN = ("task", "removed", "hardened", "neurons")


def build(variant: str = "base", **config: Any) -> Bundle:
    """An untrained encoder; `config` overrides fields of the variant's `Config` and of its `Shape`.

    Raises PreconditionError for a name in `removed` or `hardened` that the encoder does not have.
    """
    own = {name: config.pop(name) for name in _OWN if name in config}
    shape = replace(VARIANTS[variant], **own)
    net = BertEncoder(replace(shape.encoder, **config))
    delete(net, declared(net, shape.neurons), shape.removed, shape.hardened)
    about = {
        "task": shape.task,
        "removed": list(shape.removed),
        "hardened": dict(shape.hardened),
        "neurons": shape.neurons,
    }
    return bundled(net, "axformer", variant, {**asdict(net.config), **about}, shape.task)


def found_in(path: Path) -> dict[str, Any]:
    """What a search found, as settings of `build`: from the report.json of a run with the pass `prune-blocks`.

    Raises InputError for another file, or a run in which nothing was removed.
    """
    try:
        lineage = json.loads(Path(path).read_text(encoding="utf-8"))["lineage"]
        found: list[Any] = [line["structure"] for line in lineage if line["name"] == "prune-blocks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: must be the report.json of a run, got: {error!r}; name the one in its run folder") from error
    if len(found) != 1:
        raise InputError(
            f"{path}: must be of a run with one prune-blocks that removed something, got {len(found)}; choose another run"
        )
    return {"removed": found[0]["removed"], "hardened": found[0]["hard"], "neurons": found[0]["neurons"]}


__all__ = ["VARIANTS", "Shape", "build", "found_in"]
