"""EcoFormer: a pyramid transformer whose attention works on learned binary codes, and its counterparts to compare it with.

Sources: Liu et al., NeurIPS 2022, arXiv:2209.09004 (attention on codes); Wang et al. 2022, arXiv:2106.13797 (PVTv2); Chu
et al. 2021, arXiv:2104.13840 (Twins-SVT).

    image -> stages of [patches -> blocks -> norm], each on a coarser grid -> logits = head(mean over tokens)

A variant's name says its attention: none is EcoFormer's; "-msa" is softmax attention over all tokens, which EcoFormer is
made from and compared with; "-sra" is PVTv2's own, with keys and values of a coarser grid. The last stage has few tokens
and always softmax attention. `b0` to `b4` (PVTv2) and `twins-s` (Twins-SVT-S, here without its windows: each attention
sees all tokens, as the published comparison counts it) are the published sizes for 224 x 224 images; `cifar` is for 32 x 32
images and `kws` for spectrograms of 128 frames of 128 bands, both PVTv2 with 1024 tokens in their first stage.

A fresh EcoFormer has random hashes (`hash_state` says so), as its weights are random: call `learn_hashes` with the first
batch before training, outside of any captured step. No forward pass ever learns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import UsageError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.models._ecoformer_elements import declared
from edgetk.models._ecoformer_parts import EPS, Block, ConvMlp, Mlp, PatchEmbed, Stage, initialise
from edgetk.models.layers import elements
from edgetk.models.layers.attention import ReducedAttention, SoftmaxAttention, to_image
from edgetk.models.layers.binary_attention import Numerator
from edgetk.models.layers.elements import NEURONS
from edgetk.models.layers.groups import Group, rows
from edgetk.models.layers.hashed_attention import HashedAttention, learn_hashes
from edgetk.models.layers.kernel_hash import ANCHORS, BITS, STATES, KernelHash, Sigma

Attention = Literal["ecoformer", "msa", "sra"]
Family = Literal["pvt", "twins"]
ATTENTIONS: tuple[str, ...] = get_args(Attention)


@dataclass(frozen=True)
class Config:
    """One entry per stage where there are several.

    family      "pvt": patches overlap, MLPs hold a depthwise convolution; "twins": neither, but one behind the first block
    size        height and width of the image, or frames and bands of the spectrogram
    channels    of the image; 0 for spectrograms (B, T, F)
    patch       kernel and stride of the first stage's patches; the others' strides are 2
    reductions  of "sra" only: how much coarser the grid of keys and values is
    numerator   of EcoFormer's attention: "own_token" as published or "sum"
    sigma       of its hashes: of each "sample" as published or "frozen" at learning
    """

    attention: Attention = "ecoformer"
    family: Family = "pvt"
    size: tuple[int, int] = (224, 224)
    channels: int = 3
    classes: int = 1000
    patch: tuple[int, int] = (7, 4)
    dims: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    bits: int = BITS
    anchors: int = ANCHORS
    numerator: Numerator = "own_token"
    sigma: Sigma = "sample"

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise UsageError(f"ecoformer: attention must be one of {', '.join(ATTENTIONS)}, got {self.attention!r}; correct it")
        if self.family not in get_args(Family):
            raise UsageError(f"ecoformer: family must be one of {', '.join(get_args(Family))}, got {self.family!r}; correct it")
        stages = {len(self.dims), len(self.depths), len(self.heads), len(self.mlp_ratios), len(self.reductions)}
        if len(stages) != 1:
            raise UsageError(
                "ecoformer: dims, depths, heads, mlp_ratios and reductions must have one entry per stage, "
                f"got {', '.join(map(str, sorted(stages)))} entries; make them equally long"
            )


_SMALL = Config(
    dims=(32, 64, 128), depths=(2, 2, 4), heads=(1, 2, 4), mlp_ratios=(4, 4, 3), reductions=(4, 2, 1), size=(32, 32)
)
#: the variant that "ecoformer" alone stands for
DEFAULT = "kws"
#: the task that a size is made for
_TASKS: Mapping[str, str] = {"cifar": "cifar10", "kws": "speech-commands"}


def _with_attentions(sizes: Mapping[str, Config]) -> dict[str, Config]:
    """Each size with each attention. Twins has no "sra": its own would take turns with windows."""
    return {
        name if attention == "ecoformer" else f"{name}-{attention}": replace(config, attention=attention)
        for name, config in sizes.items()
        for attention in get_args(Attention)
        if not (config.family == "twins" and attention == "sra")
    }


VARIANTS: Mapping[str, Config] = _with_attentions(
    {
        "cifar": replace(_SMALL, patch=(3, 1), classes=10),
        "kws": replace(_SMALL, size=(128, 128), channels=0, depths=(2, 2, 2), classes=35),
        "b0": Config(dims=(32, 64, 160, 256)),
    }
)
#: the larger published sizes, for published weights and for counting; `build` makes them too
PUBLISHED: Mapping[str, Config] = _with_attentions(
    {
        "b1": Config(),
        "b2": Config(depths=(3, 4, 6, 3)),
        "b3": Config(depths=(3, 4, 18, 3)),
        "b4": Config(depths=(3, 8, 27, 3)),
        "twins-s": Config(
            family="twins",
            patch=(4, 4),
            dims=(64, 128, 256, 512),
            depths=(2, 2, 10, 4),
            heads=(2, 4, 8, 16),
            mlp_ratios=(4, 4, 4, 4),
        ),
    }
)


class PyramidTransformer(nn.Module):
    """images (B, C, H, W), or spectrograms (B, T, F) where the config has no channels, -> logits (B, K)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        inputs = max(config.channels, 1)
        self.stages = nn.ModuleList()
        for stage, dim in enumerate(config.dims):
            self.stages.append(self._stage(stage, inputs))
            inputs = dim
        self.head = nn.Linear(inputs, config.classes)
        initialise(self)

    def _stage(self, stage: int, inputs: int) -> Stage:
        c, dim = self.config, self.config.dims[stage]
        pvt, last = c.family == "pvt", stage == len(c.dims) - 1
        embed = PatchEmbed(inputs, dim, *(c.patch if stage == 0 else (3, 2) if pvt else (2, 2)))
        mlp, hidden = ConvMlp if pvt else Mlp, c.mlp_ratios[stage] * dim
        blocks = [Block(dim, self._attention(stage), mlp(dim, hidden)) for _ in range(c.depths[stage])]
        position = None if pvt else nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        return Stage(embed, blocks, position, nn.LayerNorm(dim, eps=EPS) if pvt or last else nn.Identity())

    def _attention(self, stage: int) -> nn.Module:
        c, dim, heads = self.config, self.config.dims[stage], self.config.heads[stage]
        if c.attention == "msa" or stage == len(c.dims) - 1:
            return SoftmaxAttention(dim, heads)
        if c.attention == "sra":
            return ReducedAttention(dim, heads, c.reductions[stage])
        who = f"ecoformer: stage {stage}"
        return HashedAttention(dim, heads, c.bits, c.anchors, c.numerator, c.sigma, who)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps():
            x = step(x)
        return x

    def steps(self) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Each stage, the last one with the head: `forward` is one after the other."""
        return tuple(functools.partial(self._through, s) for s in range(len(self.stages)))

    def _through(self, stage: int, x: Tensor) -> Tensor:
        image = x if x.dim() == 4 else x[:, None]
        tokens, grid = self.stages[stage](image)
        y: Tensor = to_image(tokens, grid) if stage < len(self.stages) - 1 else self.head(tokens.mean(dim=1))
        return y

    def hashes(self) -> tuple[KernelHash, ...]:
        """All hashes in order; none where the attention is another."""
        return tuple(m for m in self.modules() if isinstance(m, KernelHash))

    @property
    def hash_state(self) -> str:
        """The least of its hashes: "unlearned", "random" or "learned"; "none" where it has none."""
        states = [STATES.index(h.state) for h in self.hashes()]
        return STATES[min(states)] if states else "none"

    def learn_hashes(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[str, ...]:
        """Learn from the inputs x of one batch every hash that is not learned yet, and name their layers.

        To be called once before training, outside of a captured step; another call does nothing. `generator` (CPU) draws
        the anchors. Raises InputError where a stage has fewer tokens than a hash needs, or x is blank.
        """
        return learn_hashes(self, x, generator)

    def groups(self) -> tuple[Group, ...]:
        """What structured pruning may take: the hidden channels of the MLPs. Residual streams and heads stay."""
        found = []
        for s, (tokens, stage) in enumerate(zip(self.grid_sizes(), self.stages, strict=True)):
            assert isinstance(stage, Stage)
            for b, block in enumerate(stage.blocks):
                assert isinstance(block, Block)
                name, mlp = f"stages.{s}.blocks.{b}.mlp", block.mlp
                if not isinstance(mlp, ConvMlp | Mlp):
                    continue  # it was removed
                made = rows(f"{name}.expand", mlp.expand)
                if isinstance(mlp, ConvMlp):
                    made += rows(f"{name}.mix", mlp.mix)
                found.append(Group(name, mlp.reduce.in_features, made, f"{name}.reduce", runs=tokens))
        return tuple(found)

    def elements(self, neurons: int = NEURONS) -> tuple[elements.Block, ...]:
        """What pruning by blocks may take: attentions and heads, MLPs and groups of so many `neurons`."""
        return declared(self, neurons)

    def grid_sizes(self) -> tuple[int, ...]:
        """Tokens of each stage."""
        sizes = []
        height, width = self.config.size
        for s in range(len(self.stages)):
            stride = self.config.patch[1] if s == 0 else 2
            height, width = -(-height // stride), -(-width // stride)
            sizes.append(height * width)
        return tuple(sizes)

    def attention_costs(self) -> list[dict[str, Any]]:
        """Operations of the whole network, for one input, with EcoFormer's attention and with both others.

        By the paper's count (`edgetk.models.layers.operations`): `muls`, `adds`, `joules`, and `joules_with_distances`, which
        prices multiplications that the count leaves out. EcoFormer's comes first.
        """
        from edgetk.models._ecoformer_energy import compare

        found = compare(self.config)
        counted = {"ecoformer": found.ecoformer, "msa": found.msa, "sra": found.sra}
        return [
            {
                "attention": name,
                "muls": ops.muls,
                "adds": ops.adds,
                "joules": ops.joules(),
                "joules_with_distances": ops.joules(distances=True),
            }
            for name, ops in counted.items()
            if ops is not None
        ]

    def randomise_hashes(self) -> None:
        """Hashes that have seen no data."""
        for made in self.hashes():
            made.randomise()


def build(variant: str = "kws", **config: Any) -> Bundle:
    """An untrained network with random hashes; `config` overrides fields of the variant's `Config`."""
    changed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    shape = replace({**VARIANTS, **PUBLISHED}[variant], **changed)
    net = PyramidTransformer(shape).eval()
    net.randomise_hashes()
    image = TensorSpec("image", ("batch", shape.channels, *shape.size), axes="B C H W")
    features = TensorSpec("features", ("batch", *shape.size), axes="B T F")
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(shape).items()}
    return Bundle(
        name=f"ecoformer-{variant}",
        body=net,
        signature=Signature(
            inputs=(image if shape.channels else features,),
            outputs=(TensorSpec("logits", ("batch", shape.classes), axes="B K"),),
        ),
        source={"model": "ecoformer", "variant": variant, "config": plain},
        task=_TASKS.get(variant.split("-")[0], ""),
    )
