"""A BERT-type encoder with a classifier on top: token numbers in, class scores out; every linear map is an `nn.Linear`.

Source: Devlin et al. 2018, arXiv:1810.04805 (norms behind the sums, as published). The pooled vector is the mean over the real
tokens, as sentence encoders have it (Reimers & Gurevych 2019, arXiv:1908.10084, section 3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import UsageError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models.layers import hard_attention
from edgetk.models.layers.attention import merge_heads, split_heads
from edgetk.models.layers.elements import NEURONS, Block, block, gone, plain
from edgetk.models.layers.groups import Group, rows

PAD, SEP = 0, 102
#: what is added to the score of a padded token: exp() of it is 0 in float32, and it is finite in float16
MASKED: Final = -3e4


@dataclass(frozen=True)
class Config:
    """The defaults are MiniLM-L6's shape (Wang et al. 2020, arXiv:2002.10957: 6 layers of 384).

    `length` tokens of an input; `positions` rows of the position table, at least as many; `classes` 0: the pooled vector
    itself comes out. `hard`: so many of the largest attention weights of a query count, in every layer (0: all).
    """

    length: int = 64
    classes: int = 2
    vocabulary: int = 30522
    positions: int = 512
    dim: int = 384
    layers: int = 6
    heads: int = 12
    ffn: int = 1536
    dropout: float = 0.1
    hard: int = 0

    def __post_init__(self) -> None:
        hard_attention.require(self.hard, "bert")
        if self.dim % self.heads:
            raise UsageError(f"bert: dim must be a multiple of heads, got {self.dim} and {self.heads}; change one of them")
        if not 2 <= self.length <= self.positions:
            raise UsageError(
                f"bert: length must be in [2, {self.positions}], as many as there are positions, got {self.length}; correct it"
            )


class Embeddings(nn.Module):
    """norm(word + position + segment): tokens (B, T) int64 -> (B, T, C). The second segment begins after the first [SEP]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocabulary, config.dim)
        self.position = nn.Embedding(config.positions, config.dim)
        self.segment = nn.Embedding(2, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        ends = (tokens == SEP).to(torch.int64)
        before = ends.cumsum(1) - ends  # how many [SEP] come before a token
        second = (before == 1) & (tokens != PAD)
        segments = torch.where(second[..., None], self.segment.weight[1], self.segment.weight[0])
        x = self.word(tokens) + self.position.weight[: tokens.shape[1]] + segments
        y: Tensor = self.dropout(self.norm(x))
        return y


class Attention(nn.Module):
    """Softmax attention of x (B, T, C) with `mask` (B, 1, 1, T) added to the scores; before residual and norm.

    Heads are `width` numbers each, as many as the layers have rows for. `hard`: so many weights of a query count (0: all).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.width = config.dim // config.heads
        self.hard = config.hard
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim)
        self.value = nn.Linear(config.dim, config.dim)
        self.output = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        made = (self.query(x), self.key(x), self.value(x))
        q, k, v = (split_heads(part, part.shape[-1] // self.width) for part in made)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + mask.to(q.dtype)
        weights = self.dropout(torch.softmax(scores, dim=-1).to(v.dtype))
        y: Tensor = self.output(merge_heads(hard_attention.mix(weights, v, self.hard)))
        return y

    @property
    def hashed(self) -> bool:
        """True where a rounding may exchange two weights that are nearly equal, of which one is kept."""
        return self.hard > 0


class Layer(nn.Module):
    """x = norm(x + attention(x)); x = norm(x + down(gelu(up(x)))). Without one of the two its norm stays."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.up = nn.Linear(config.dim, config.ffn)
        self.down = nn.Linear(config.ffn, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if not gone(self.attention):
            x = x + self.dropout(self.attention(x, mask))
        x = self.attention_norm(x)
        if not gone(self.down):
            x = x + self.dropout(self.down(F.gelu(self.up(x))))
        y: Tensor = self.norm(x)
        return y


class BertEncoder(nn.Module):
    """Token numbers (B, T), in any number format, -> class scores (B, K), or the pooled vector (B, C) without classes.

    Padding is token 0; numbers outside of the vocabulary count as its first or last one.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.dim, config.classes) if config.classes else None
        self.apply(_initialise)

    def tokens(self, x: Tensor) -> Tensor:
        """(B, T) int64, each in the vocabulary."""
        return x.to(torch.int64).clamp(0, self.config.vocabulary - 1)

    def encode(self, x: Tensor) -> Tensor:
        """Token numbers (B, T) -> the last layer's vectors (B, T, C)."""
        states, padding = self._embed(x)
        for layer in self.layers:
            states = layer(states, padding * MASKED)
        y: Tensor = states
        return y

    def forward(self, x: Tensor) -> Tensor:
        made: Any = x
        for step in self.steps():
            made = step(made)
        y: Tensor = made
        return y

    def steps(self) -> tuple[Callable[..., Any], ...]:
        """The embeddings, each layer, and what follows: `forward` is one after the other."""
        return (self._embed, *(functools.partial(self._through, i) for i in range(len(self.layers))), self._decide)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, T, C), and 1 for each padding (B, 1, 1, T)."""
        tokens = self.tokens(x)
        return self.embeddings(tokens), (tokens == PAD).to(torch.float32)[:, None, None, :]

    def _through(self, layer: int, made: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        states, padding = made
        y: Tensor = self.layers[layer](states, padding * MASKED)
        return y, padding

    def _decide(self, made: tuple[Tensor, Tensor]) -> Tensor:
        states, padding = made
        real = (1.0 - padding[:, 0, 0, :, None]).to(states.dtype)
        pooled = (states * real).sum(1) / real.sum(1).clamp_min(1.0)
        y: Tensor = pooled if self.head is None else self.head(self.dropout(pooled))
        return y

    def trimmed(self, x: Tensor) -> Tensor:
        """Token numbers (B, T) without the last tokens that are padding in every row."""
        return x[:, : max(2, int((self.tokens(x) != PAD).sum(1).max()))]

    def elements(self, neurons: int = NEURONS) -> tuple[Block, ...]:
        """Attentions with their heads, feed-forward networks with groups of so many `neurons`; none of what was factorized."""
        found, length = [], self.config.length
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            path, attention = f"layers.{i}", layer.attention
            if isinstance(attention, Attention) and plain(attention, "query", "key", "value", "output"):
                at = f"{path}.attention"
                made = tuple(s for name in ("query", "key", "value") for s in rows(f"{at}.{name}", getattr(attention, name)))
                group = Group(at, attention.output.in_features, made, f"{at}.output")
                products = 2 * length * length * group.size
                found.append(
                    block(self, at, "attention", i + 1, group, attention.width, length, products, [at], f"{at}.output.bias", at)
                )
            if plain(layer, "up", "down"):
                group = Group(f"{path}.ffn", layer.down.in_features, rows(f"{path}.up", layer.up), f"{path}.down")
                away = [f"{path}.up", f"{path}.down"]
                found.append(block(self, group.name, "ffn", i + 1, group, neurons, length, 0, away, f"{path}.down.bias"))
        return tuple(found)

    def matrices(self) -> tuple[str, ...]:
        """Names of the encoder's linear layers, in order of computation: what factorization and pruning work on."""
        return tuple(name for name, m in self.layers.named_modules(prefix="layers") if isinstance(m, nn.Linear))


def bundled(net: BertEncoder, family: str, variant: str, config: Mapping[str, Any], task: str) -> Bundle:
    """`net` as the variant of a family of the zoo that `config` builds again."""
    shape = net.config
    outputs = TensorSpec("logits", ("batch", shape.classes), axes="B K")
    if not shape.classes:
        outputs = TensorSpec("embedding", ("batch", shape.dim), axes="B C")
    return Bundle(
        name=family if variant == "base" else f"{family}-{variant}",
        body=net.eval(),
        signature=Signature(
            inputs=(TensorSpec("tokens", ("batch", shape.length), axes="B N"),),
            outputs=(outputs,),
        ),
        source={"model": family, "variant": variant, "config": dict(config)},
        task=task,
    )


def _initialise(layer: nn.Module) -> None:
    """Normal weights of standard deviation 0.02, biases zero, as published."""
    if isinstance(layer, nn.Linear | nn.Embedding):
        nn.init.normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


#: Hugging Face's name of a part -> ours; `{}` is the layer's number
NAMES: Final[Mapping[str, str]] = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.segment",
    "embeddings.LayerNorm": "embeddings.norm",
    "encoder.layer.{}.attention.self.query": "layers.{}.attention.query",
    "encoder.layer.{}.attention.self.key": "layers.{}.attention.key",
    "encoder.layer.{}.attention.self.value": "layers.{}.attention.value",
    "encoder.layer.{}.attention.output.dense": "layers.{}.attention.output",
    "encoder.layer.{}.attention.output.LayerNorm": "layers.{}.attention_norm",
    "encoder.layer.{}.intermediate.dense": "layers.{}.up",
    "encoder.layer.{}.output.dense": "layers.{}.down",
    "encoder.layer.{}.output.LayerNorm": "layers.{}.norm",
}

__all__ = ["MASKED", "NAMES", "PAD", "SEP", "Attention", "BertEncoder", "Config", "Embeddings", "Layer", "bundled"]
