"""Weights of LMUFormer in the layout of the authors' code (`lmu_rnn_conv1d`, one block)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from edgetk.core.errors import InputError
from edgetk.models.layers.frame_conv import from_conv1d
from edgetk.models.lmuformer import Config, LMUFormer

#: published name -> name here; the authors' BN weights and 1x1 convolutions keep their meaning
_PUBLISHED = (
    (r"patch_embed\.conv_layers\.(\d)\.0\.weight", r"embed.convs.\1.taps.weight"),
    (r"patch_embed\.conv_layers\.(\d)\.3\.(.*)", r"embed.norms.\1.\2"),
    (r"patch_embed\.rpe_conv\.weight", r"embed.position.taps.weight"),
    (r"block\.0\.attn\.lmu\.W_u\.(.*)", r"mixer.encoder.\1"),
    (r"block\.0\.attn\.lmu\.W_h\.(.*)", r"mixer.hidden.\1"),
    (r"block\.0\.attn\.proj_conv\.(.*)", r"mixer.proj.\1"),
    (r"block\.0\.attn\.proj_bn\.(.*)", r"mixer.norm.\1"),
    (r"block\.0\.mlp\.fc1_conv\.(.*)", r"channels.expand.\1"),
    (r"block\.0\.mlp\.fc1_bn\.(.*)", r"channels.norm1.\1"),
    (r"block\.0\.mlp\.fc2_conv\.(.*)", r"channels.reduce.\1"),
    (r"block\.0\.mlp\.fc2_bn\.(.*)", r"channels.norm2.\1"),
    (r"head\.(.*)", r"head.\1"),
)
_DERIVED = re.compile(r"block\.0\.attn\.lmu\.(A|B|H|fft_H)|.*\.num_batches_tracked")


def from_published(state: Mapping[str, Tensor]) -> LMUFormer:
    """A network with weights in the authors' layout (`lmu_rnn_conv1d`, one block); shapes are read off the weights.

    Raises InputError for a name that the layout does not have, or a missing one.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if _DERIVED.fullmatch(name):
            continue
        for pattern, here in _PUBLISHED:
            if re.fullmatch(pattern, name):
                wide = value.dim() == 3 and value.shape[-1] == 3
                flat = from_conv1d(value) if wide else value[..., 0] if value.dim() == 3 else value
                renamed[re.sub(pattern, here, name)] = flat
                break
        else:
            raise InputError(f"lmuformer: weights must use the names of lmu_rnn_conv1d with one block, got {name!r}")
    try:
        widths = tuple(renamed[f"embed.convs.{i}.taps.weight"].shape[0] for i in range(4))
        hidden, both = renamed["mixer.hidden.weight"].shape
        config = Config(
            features=renamed["embed.convs.0.taps.weight"].shape[1] // 3,
            classes=renamed["head.weight"].shape[0],
            widths=(widths[0], widths[1], widths[2], widths[3]),
            order=both - widths[3],
            hidden=hidden,
            ffn=renamed["channels.expand.weight"].shape[0],
        )
    except KeyError as error:
        raise InputError(f"lmuformer: weights of lmu_rnn_conv1d must hold every layer, got none for {error}") from error
    net = LMUFormer(config).eval()
    missing, _ = net.load_state_dict(renamed, strict=False)
    if lost := [n for n in missing if not n.endswith(("num_batches_tracked", ".pad"))]:
        raise InputError(f"lmuformer: weights of lmu_rnn_conv1d must hold every layer, got none for {', '.join(lost)}")
    return net
