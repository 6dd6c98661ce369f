"""Wide transformers: all attention heads of a deep encoder side by side in one layer, for text and for spectrograms.

Source: Brown et al. 2022, arXiv:2210.00640 (heads moved from depth to width, everything else constant); the encoder is that of
Long Range Arena, Tay et al. 2020, arXiv:2011.04006: norms in front, attention without biases, a token for the class.

    tokens -> embedding + positions -> layers of [x += attention(norm(x)); x += mlp(norm(x))] -> norm -> class token -> head

A variant's name is layers x heads: "1x16" has the sixteen heads of "4x4" in one layer, and 1.83 times fewer parameters. They
read bytes; those that start with "tokens" read WordPiece units, most of their parameters are the embedding's. With
`turns` heads are computed so many at a time, so that the memory for scores does not grow with their number; outputs are the
same. `mixer` names how tokens look at each other (`edgetk.models.layers.mixers`).

The head reads the class token only, so the last layer need not compute any other: with `last` = "class" it has one query for
each head, and its feed-forward network runs once. Outputs are the same; what is left of a single layer's work are its keys and
values. "all" is the layer as published. Nor does that query ever change: `fold_norms` multiplies it out, and what is left is a
weighted mean of the tokens for each head (`edgetk.models.layers.pooled_attention`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models._wide_parts import Config, Layer, WideAttention
from edgetk.models.layers import mixers
from edgetk.models.layers.elements import NEURONS, Block, block, plain
from edgetk.models.layers.groups import Group, rows
from edgetk.models.layers.pooled_attention import PooledAttention

#: mixers that treat all heads alike, so that any of them may go
SEPARATE = ("softmax", "hard", "linear", "local", "performer")
#: byte 0 does not occur in text: it is padding
PAD = 0

_DEEP = Config(dim=512, head_width=64, ffn=2048)
VARIANTS: Mapping[str, Config] = {
    **{f"{n}x{h}": Config(layers=n, heads=h) for n, h in ((4, 4), (2, 8), (1, 16))},
    **{f"{n}x{h}": replace(_DEEP, layers=n, heads=h) for n, h in ((6, 8), (3, 16), (2, 24), (1, 48))},
    **{f"tokens-{n}x{h}": Config(layers=n, heads=h, vocabulary=30522, length=512) for n, h in ((4, 4), (1, 16))},
    "kws": Config(heads=8, dim=128, head_width=32, ffn=512, vocabulary=0, length=128, classes=35),
}
#: the variant that "wide" alone stands for
DEFAULT = "1x16"


class WideEncoder(nn.Module):
    """Token numbers (B, T) in any number format, or spectrograms (B, T, F), -> class scores (B, K).

    The last norm has no parameters, the head no biases, and the class token is the last row of the embedding: so the number
    of parameters is the published rule's.
    """

    positions: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        if c.vocabulary:
            self.embedding = nn.Embedding(c.vocabulary + 1, c.dim)
        else:
            self.embed = nn.Linear(c.features, c.dim)
            self.class_token = nn.Parameter(torch.zeros(c.dim))
        self.register_buffer("positions", sinusoids(c.length + 1, c.dim), persistent=False)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.dim, elementwise_affine=False)
        self.hidden = nn.Linear(c.dim, c.ffn, bias=False)
        self.head = nn.Linear(c.ffn, c.classes, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if self.config.vocabulary:
            nn.init.normal_(self.embedding.weight, std=1.0)
            nn.init.zeros_(self.embedding.weight[-1])

    def forward(self, x: Tensor) -> Tensor:
        made: Any = x
        for step in self.steps():
            made = step(made)
        y: Tensor = made
        return y

    def steps(self) -> tuple[Callable[[Any], Any], ...]:
        """The embedding, each layer, and the decision: `forward` is one after the other."""
        return (self._start, *(functools.partial(self._through, i) for i in range(len(self.layers))), self._decide)

    def _through(self, layer: int, made: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        states, real = made
        return self.layers[layer](states, real, 1 if self._alone(layer) else None), real

    def _alone(self, layer: int) -> bool:
        """Whether this layer computes the class token only."""
        return layer == len(self.layers) - 1 and self.config.last == "class"

    def _decide(self, made: tuple[Tensor, Tensor | None]) -> Tensor:
        y: Tensor = self.head(torch.relu(self.hidden(self.norm(made[0][:, 0]))))
        return y

    def fold_norms(self) -> tuple[str, ...]:
        """Multiply out the query and the norm in front of a single layer of softmax attention, exactly; give the norm's path.

        Nothing is done to other encoders, nor where a pass has changed the layers: ().
        """
        layer = self.layers[0]
        assert isinstance(layer, Layer)
        attention = layer.attention
        if not self._alone(0) or not isinstance(attention, WideAttention) or mixers.name_of(attention.mixer) != "softmax":
            return ()
        if not plain(attention, "to_q", "to_k", "to_v", "proj"):
            return ()
        token = self.embedding.weight[-1] if self.config.vocabulary else self.class_token
        layer.attention = PooledAttention.of(attention, layer.attention_norm, token.detach() + self.positions[0])
        layer.attention_norm = nn.LayerNorm(self.config.dim, elementwise_affine=False)
        layer.train(self.training)
        return ("layers.0.attention_norm",)

    def groups(self) -> tuple[Group, ...]:
        """What structured pruning may take: the feed-forward channels."""
        found = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            path = f"layers.{i}"
            if isinstance(layer.up, nn.Linear):
                found.append(Group(f"{path}.ffn", layer.down.in_features, rows(f"{path}.up", layer.up), f"{path}.down"))
        return tuple(found)

    def elements(self, neurons: int = NEURONS) -> tuple[Block, ...]:
        """Attentions with their heads, where the mixer has nothing of its own for each head, and feed-forward networks with
        groups of so many `neurons`; a sum that goes takes its norm along."""
        found, runs = [], self.config.length + 1
        networks = {group.name: group for group in self.groups()}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            path, attention = f"layers.{i}", layer.attention
            if isinstance(attention, WideAttention):
                at, kind = f"{path}.attention", mixers.name_of(attention.mixer)
                away = [f"{path}.attention_norm", at]
                group = None
                if kind in SEPARATE and plain(attention, "to_q", "to_k", "to_v", "proj"):
                    made = tuple(s for name in ("to_q", "to_k", "to_v") for s in rows(f"{at}.{name}", getattr(attention, name)))
                    group = Group(at, attention.proj.in_features, made, f"{at}.proj")
                hard = at if kind in ("softmax", "hard") else ""
                macs = attention.more_macs(runs, 1 if self._alone(i) else runs)
                found.append(block(self, at, "attention", i + 1, group, attention.width, runs, macs, away, hard=hard))
            name = f"{path}.ffn"
            if name in networks and plain(layer, "up", "down"):
                away, uses = [f"{path}.{part}" for part in ("norm", "up", "down")], 1 if self._alone(i) else runs
                found.append(block(self, name, "ffn", i + 1, networks[name], neurons, uses, 0, away, f"{path}.down.bias"))
        return tuple(found)

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The class token and what follows it (B, 1 + T, C), and which of them are real."""
        if self.config.vocabulary:
            tokens = x.to(torch.int64).clamp(0, self.config.vocabulary - 1)
            first = torch.full_like(tokens[:, :1], self.config.vocabulary)
            embedded = self.embedding(torch.cat([first, tokens], dim=1))
            real = torch.cat([torch.ones_like(first, dtype=torch.bool), tokens != PAD], dim=1)
        else:
            start = self.class_token.expand(x.shape[0], 1, -1)
            embedded, real = torch.cat([start, self.embed(x)], dim=1), None
        return self.dropout(embedded + self.positions[: embedded.shape[1]]), real


def sinusoids(count: int, dim: int) -> Tensor:
    """Positions (count, dim): sines, then cosines (Vaswani et al. 2017, arXiv:1706.03762, section 3.5, in LRA's order)."""
    rates = torch.exp(torch.arange(dim // 2) * (-math.log(10000.0) / max(dim // 2 - 1, 1)))
    angles = torch.arange(count)[:, None] * rates
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


def build(variant: str = DEFAULT, **config: Any) -> Bundle:
    """An untrained encoder; `config` overrides fields of the variant's `Config`."""
    shape = replace(VARIANTS[variant], **config)
    source = {**asdict(shape), "settings": dict(shape.settings)}
    text = TensorSpec("tokens", ("batch", shape.length), axes="B N")
    sound = TensorSpec("features", ("batch", shape.length, shape.features), axes="B T F")
    return Bundle(
        name=f"wide-{variant}",
        body=WideEncoder(shape).eval(),
        signature=Signature(
            inputs=(text if shape.vocabulary else sound,),
            outputs=(TensorSpec("logits", ("batch", shape.classes), axes="B K"),),
        ),
        source={"model": "wide", "variant": variant, "config": source},
        task="imdb-bytes" if shape.vocabulary == 256 else "imdb-tokens" if shape.vocabulary else "speech-commands",
    )


__all__ = ["DEFAULT", "VARIANTS", "Config", "Layer", "WideAttention", "WideEncoder", "build", "sinusoids"]
