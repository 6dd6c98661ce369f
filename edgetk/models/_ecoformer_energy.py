"""What hashed attention saves by the published count, always against both baselines: softmax and reduced attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import torch

from edgetk.models.ecoformer import Attention, Config, PyramidTransformer
from edgetk.models.layers.operations import Operations, count_operations


@dataclass(frozen=True)
class Saving:
    """Shares of energy saved against softmax attention over all tokens, and against the reduced attention that is in use.

    `reduced` is None where the network has none (Twins). The first alone would say too much: nobody runs that baseline.
    """

    softmax: float
    reduced: float | None

    def __str__(self) -> str:
        usual = "none to compare with" if self.reduced is None else f"{self.reduced:.1%} less"
        return f"{self.softmax:.1%} less than softmax attention over all tokens; reduced attention (sra): {usual}"


@dataclass(frozen=True)
class Comparison:
    """Operations of one network with each attention, for one input."""

    ecoformer: Operations
    msa: Operations
    sra: Operations | None

    def saving(self, distances: bool = False) -> Saving:
        """What the hashed attention saves; `distances` prices the multiplications that the published count leaves out."""
        own = self.ecoformer.joules(distances)
        return Saving(1 - own / self.msa.joules(), None if self.sra is None else 1 - own / self.sra.joules())


def compare(config: Config) -> Comparison:
    """Count a network with EcoFormer's attention and with both others; the config's own attention does not matter."""
    counts = {a: _count(replace(config, attention=a)) for a in get_args(Attention) if (config.family, a) != ("twins", "sra")}
    return Comparison(counts["ecoformer"], counts["msa"], counts.get("sra"))


def _count(config: Config) -> Operations:
    with torch.device("meta"):
        net = PyramidTransformer(config).eval()
        net.randomise_hashes()
        x = torch.empty(1, config.channels, *config.size) if config.channels else torch.empty(1, *config.size)
    return count_operations(net, x)


__all__ = ["Comparison", "Saving", "compare"]
