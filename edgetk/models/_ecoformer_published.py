"""Weights of PVTv2 and EcoFormer in the layout of the authors' code, hash buffers included."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from edgetk.core.errors import InputError
from edgetk.models.ecoformer import Attention, Config, PyramidTransformer
from edgetk.models.layers.kernel_hash import LEARNED

#: published name within a block's attention -> name here
_ATTENTION = {"fast_attention.ksh": "hash", "sr": "reduce"}
_BLOCK = {"mlp.fc1": "mlp.expand", "mlp.dwconv.dwconv": "mlp.mix", "mlp.fc2": "mlp.reduce"}
#: not weights of the network: left over from the class that the authors' attention derives from
_DEAD = re.compile(r".*\.fast_attention\.projection_matrix")
_ADVICE = "hand in the state dict of one of the published PVTv2 or EcoFormer networks"
HEADS = (1, 2, 5, 8)


def from_published(state: Mapping[str, Tensor], size: tuple[int, int] = (224, 224)) -> PyramidTransformer:
    """A network with weights in the authors' layout; its attention and its shape are read off the names and the weights.

    The four stages have 1, 2, 5 and 8 heads, as in b0 to b4; hashes count as learned. Raises InputError for a name that the
    layout does not have, a missing one, or a shape that does not fit.
    """
    weights = {_name(name): value for name, value in state.items() if not _DEAD.fullmatch(name)}
    try:
        config = _config(weights, size)
    except (KeyError, IndexError) as error:
        raise InputError(f"ecoformer: weights must hold every layer, got none for {error}; {_ADVICE}") from error
    for name in [n for n in weights if n.endswith(".attention.q.weight") or n.endswith(".attention.q.bias")]:
        stage = name.rpartition(".attention.")[0]
        if f"{stage}.attention.reduce.weight" not in weights:  # the last stage: the same as one layer of three outputs
            kind = name.rpartition(".")[2]
            parts = [weights.pop(f"{stage}.attention.{part}.{kind}") for part in ("q", "kv")]
            weights[f"{stage}.attention.qkv.{kind}"] = torch.cat(parts)
    net = PyramidTransformer(config).eval()
    for name in net.state_dict():
        if name.endswith(".hash.learned"):
            weights[name] = torch.tensor(LEARNED, dtype=torch.uint8)
    wanted = net.state_dict()
    if lost := sorted(wanted.keys() - weights.keys()):
        raise InputError(f"ecoformer: weights must hold every layer, got none for {', '.join(lost[:3])}; {_ADVICE}")
    if extra := sorted(weights.keys() - wanted.keys()):
        raise InputError(f"ecoformer: weights must be those of one network, got also {', '.join(extra[:3])}; {_ADVICE}")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"ecoformer: {name} must have the shape {tuple(wanted[name].shape)}, got {tuple(value.shape)}; {_ADVICE}"
            )
    net.load_state_dict(weights)
    return net


def _name(name: str) -> str:
    """The name here of a published weight."""
    if match := re.fullmatch(r"patch_embed(\d)\.(proj|norm)\.(\w+)", name):
        stage, part, kind = match.groups()
        return f"stages.{int(stage) - 1}.embed.{part}.{kind}"
    if match := re.fullmatch(r"norm(\d)\.(\w+)", name):
        return f"stages.{int(match[1]) - 1}.norm.{match[2]}"
    if match := re.fullmatch(r"block(\d)\.(\d+)\.(norm1|norm2|mlp\.fc1|mlp\.fc2|mlp\.dwconv\.dwconv)\.(\w+)", name):
        stage, block, part, kind = match.groups()
        return f"stages.{int(stage) - 1}.blocks.{block}.{_BLOCK.get(part, part)}.{kind}"
    if match := re.fullmatch(
        r"block(\d)\.(\d+)\.attn\.(q|kv|qkv|sr|norm|proj|to_qk|to_v|fast_attention\.ksh)\.(weight|bias|A|mvec|anchor)", name
    ):
        stage, block, part, kind = match.groups()
        return f"stages.{int(stage) - 1}.blocks.{block}.attention.{_ATTENTION.get(part, part)}.{kind}"
    if re.fullmatch(r"head\.(weight|bias)", name):
        return name
    raise InputError(f"ecoformer: weights must use the names of the authors' PVTv2, got {name!r}; {_ADVICE}")


def _config(weights: Mapping[str, Tensor], size: tuple[int, int]) -> Config:
    first = "stages.0.blocks.0.attention"
    kinds: dict[str, Attention] = {"to_qk": "ecoformer", "qkv": "msa", "q": "sra"}
    attention = next(kind for layer, kind in kinds.items() if layer == "q" or f"{first}.{layer}.weight" in weights)
    stages = range(4)
    dims = tuple(weights[f"stages.{i}.embed.proj.weight"].shape[0] for i in stages)
    depths = tuple(len({n.split(".")[3] for n in weights if n.startswith(f"stages.{i}.blocks.")}) for i in stages)
    hidden = [weights[f"stages.{i}.blocks.0.mlp.expand.weight"].shape[0] for i in stages]
    reductions = [weights.get(f"stages.{i}.blocks.0.attention.reduce.weight") for i in stages]
    codes = weights[f"{first}.hash.A"].shape if attention == "ecoformer" else None
    plain = Config()
    return Config(
        attention=attention,
        size=size,
        channels=weights["stages.0.embed.proj.weight"].shape[1],
        classes=weights["head.weight"].shape[0],
        dims=dims,
        depths=depths,
        heads=HEADS,
        mlp_ratios=tuple(h // d for h, d in zip(hidden, dims, strict=True)),
        reductions=tuple(plain.reductions[i] if r is None else r.shape[-1] for i, r in enumerate(reductions)),
        bits=codes[1] if codes else plain.bits,
        anchors=codes[2] if codes else plain.anchors,
    )
