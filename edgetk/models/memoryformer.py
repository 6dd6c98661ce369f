"""MemoryFormer: a transformer whose matrices are tables of rows that tokens choose by their signs, and its dense twin.

Source: Ding et al., NeurIPS 2024, arXiv:2411.12992. The only dense layers left are the head and the embedding:

    tokens -> embedding -> blocks [norm, tables, attention; norm, tables, norm, tables] -> norm -> head

A table layer does about tau times less arithmetic than the matrix it stands for, and holds 2^tau / tau times its numbers: it
trades memory for work, and is no compression. Norms make coordinates zero on average, so that all rows are used.

`base` spots keywords (spectrograms, 32 tokens of four frames), `text` decides on a review (bytes, four a token), `lm` says
which byte comes next (`running` after each byte). A variant that ends in "dense" has the blocks of a plain transformer of the
same width. `PUBLISHED` has the paper's shapes; they hold up to 13 billion entries: build them on the device "meta" to count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import UsageError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models import _memoryformer_elements
from edgetk.models._memoryformer_parts import DenseBlock, MemoryBlock, Rotary
from edgetk.models.layers.elements import NEURONS, Block, gone
from edgetk.models.layers.groups import Group, rows
from edgetk.models.layers.memory_hash import Weighting
from edgetk.models.layers.memory_layer import STD

Blocks = Literal["memory", "dense"]


@dataclass(frozen=True)
class Config:
    """Sizes and kind of everything.

    blocks      "memory": tables; "dense": matrices
    vocabulary  of tokens that come as numbers; 0: spectrograms of `features` bands
    length      tokens or frames of an input, `patch` of them make one token of the network
    causal      a token sees those before it only, and the last one decides; else all decide, by their mean
    bits        tau: coordinates that choose a row;  extra  bits more between the two feed-forward layers
    weighting   of a row: "p" as published, "l1p" as in the authors' code; `temperature` of p
    std         size of fresh table entries; None: outputs of variance one
    """

    blocks: Blocks = "memory"
    vocabulary: int = 0
    features: int = 128
    length: int = 128
    patch: int = 1
    causal: bool = False
    classes: int = 35
    layers: int = 4
    dim: int = 96
    heads: int = 4
    bits: int = 4
    extra: int = 2
    weighting: Weighting = "p"
    temperature: float = 1.0
    std: float | None = STD

    def __post_init__(self) -> None:
        if self.blocks not in get_args(Blocks):
            raise UsageError(f"memoryformer: blocks must be one of memory, dense, got {self.blocks!r}; correct it")
        divided = {"heads": (self.dim, self.heads), "patch": (self.length, self.patch)}
        if self.vocabulary:
            divided["patch of tokens"] = (self.dim, self.patch)
        for name, (whole, part) in divided.items():
            if part < 1 or whole % part:
                raise UsageError(f"memoryformer: {name} must divide {whole}, got {part}; change one of them")
        if self.extra < 0:
            raise UsageError(f"memoryformer: extra must be at least 0, got {self.extra}; correct it")


def _twins(sizes: Mapping[str, Config]) -> dict[str, Config]:
    """Each size with tables and with matrices."""
    dense = {("dense" if name == "base" else f"{name}-dense"): replace(c, blocks="dense") for name, c in sizes.items()}
    return {**sizes, **dense}


VARIANTS: Mapping[str, Config] = _twins(
    {
        "base": Config(patch=4, layers=3),
        "text": Config(vocabulary=256, length=1000, patch=4, classes=2, layers=2),
        "lm": Config(vocabulary=256, length=256, causal=True, classes=256, layers=2, dim=128),
    }
)
_PYTHIA = Config(vocabulary=50304, length=2048, causal=True, classes=50304, layers=6, dim=512, heads=8, bits=8)
#: the paper's shapes, of the sizes of Pythia-70M, -160M and -410M
PUBLISHED: Mapping[str, Config] = {
    "paper-tiny": _PYTHIA,
    "paper-small": replace(_PYTHIA, layers=12, dim=768, heads=12),
    "paper-base": replace(_PYTHIA, layers=24, dim=1024, heads=16),
}
_TASKS = {"base": "speech-commands", "dense": "speech-commands", "text": "imdb-bytes", "lm": "imdb-bytes-lm"}


class MemoryFormer(nn.Module):
    """features (B, T, F), or token numbers (B, T) in float32, -> logits (B, K)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.embed: nn.Module
        if c.vocabulary:
            self.embed = nn.Embedding(c.vocabulary, c.dim // c.patch)
        else:
            self.embed = nn.Linear(c.patch * c.features, c.dim)
        self.rotary = Rotary(c.length // c.patch, c.dim // c.heads)
        self.blocks = nn.ModuleList(self._block(i) for i in range(c.layers))
        self.norm = nn.LayerNorm(c.dim)
        self.head = nn.Linear(c.dim, c.classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)

    def _block(self, index: int) -> nn.Module:
        c = self.config
        if c.blocks == "dense":
            return DenseBlock(c.dim, c.heads, c.causal)
        who = f"memoryformer: blocks.{index}"
        return MemoryBlock(c.dim, c.heads, c.bits, c.extra, c.weighting, c.temperature, c.std, c.causal, who)

    def tokens(self, x: Tensor) -> Tensor:
        """What the head reads, (B, N, C)."""
        for step in self.steps()[:-1]:
            x = step(x)
        y: Tensor = self.norm(x)
        return y

    def steps(self) -> tuple[Callable[[Tensor], Tensor], ...]:
        """The embedding, each block, and the decision: `forward` is one after the other."""
        return (self._embed, *(partial(self._through, i) for i in range(len(self.blocks))), self._decide)

    def _embed(self, x: Tensor) -> Tensor:
        c = self.config
        if c.vocabulary:  # whatever is no token number counts as the nearest one
            x = self.embed(x.round().clamp(0, c.vocabulary - 1).long())
            return x.reshape(x.shape[0], -1, c.dim)
        y: Tensor = self.embed(x.reshape(x.shape[0], -1, c.patch * c.features))
        return y

    def _through(self, block: int, x: Tensor) -> Tensor:
        y: Tensor = self.blocks[block](x, self.rotary)
        return y

    def _decide(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        y: Tensor = self.head(x[:, -1] if self.config.causal else x.mean(dim=1))
        return y

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps():
            x = step(x)
        return x

    def running(self, x: Tensor) -> Tensor:
        """What a causal model decides after each token: x (B, T) -> (B, N, K)."""
        y: Tensor = self.head(self.tokens(x))
        return y

    def groups(self) -> tuple[Group, ...]:
        """What structured pruning may take: the feed-forward channels of dense blocks. Tables have no channels to spare: a hash
        reads all of its bits."""
        found = []
        for i, block in enumerate(self.blocks):
            if isinstance(block, DenseBlock) and not gone(block.expand):
                name = f"blocks.{i}"
                made = rows(f"{name}.expand", block.expand)
                found.append(Group(f"{name}.ffn", block.reduce.in_features, made, f"{name}.reduce"))
        return tuple(found)

    def elements(self, neurons: int = NEURONS) -> tuple[Block, ...]:
        """What a search may take: attentions and feed-forward networks, of dense blocks also heads and groups of `neurons`."""
        return _memoryformer_elements.declared(self, neurons)


def build(variant: str = "base", **config: Any) -> Bundle:
    """An untrained network; `config` overrides fields of the variant's `Config`."""
    shape = replace({**VARIANTS, **PUBLISHED}[variant], **config)
    tokens = TensorSpec("tokens", ("batch", shape.length), axes="B T")
    features = TensorSpec("features", ("batch", shape.length, shape.features), axes="B T F")
    net = MemoryFormer(shape).eval()
    return Bundle(
        name="memoryformer" if variant == "base" else f"memoryformer-{variant}",
        body=net,
        signature=Signature(
            inputs=(tokens if shape.vocabulary else features,),
            outputs=(TensorSpec("logits", ("batch", shape.classes), axes="B K"),),
        ),
        source={"model": "memoryformer", "variant": variant, "config": asdict(shape)},
        task=_TASKS.get(variant.split("-")[0], ""),
    )
