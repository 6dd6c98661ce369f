"""Weights of LMUFormer in the layout of the authors' code (`lmu_rnn_conv1d`, one block)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
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
_ADVICE = "hand in the state dict of that network"
_DERIVED = re.compile(r"block\.0\.attn\.lmu\.(A|B|H|fft_H)|.*\.num_batches_tracked")


def from_published(state: Mapping[str, Tensor]) -> LMUFormer:
    """A network with weights in the authors' layout (`lmu_rnn_conv1d`, one block); shapes are read off the weights.

    The memory's matrices, where `state` has them, must be those of theta = 128, which all published weights have.
    Raises InputError for a name that the layout does not have, a missing one, a shape that does not fit, or another theta.
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
            raise InputError(f"lmuformer: weights must use the names of lmu_rnn_conv1d with one block, got {name!r}; {_ADVICE}")
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
        raise InputError(
            f"lmuformer: weights of lmu_rnn_conv1d must hold every layer, got none for {error}; {_ADVICE}"
        ) from error
    net = LMUFormer(config).eval()
    wanted = {n: v for n, v in net.state_dict().items() if not n.endswith(("num_batches_tracked", ".pad"))}
    if lost := sorted(wanted.keys() - renamed.keys()):
        raise InputError(
            f"lmuformer: weights of lmu_rnn_conv1d must hold every layer, got none for {', '.join(lost)}; {_ADVICE}"
        )
    if extra := sorted(renamed.keys() - wanted.keys()):
        raise InputError(f"lmuformer: weights must be those of one block, got also {', '.join(extra)}; {_ADVICE}")
    for name, value in renamed.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"lmuformer: {name} must have the shape {tuple(wanted[name].shape)}, got {tuple(value.shape)}; {_ADVICE}"
            )
    a = state.get("block.0.attn.lmu.A", net.mixer.memory.A)
    if a.shape != net.mixer.memory.A.shape or not torch.allclose(a.float(), net.mixer.memory.A, atol=1e-4):
        raise InputError(f"lmuformer: the memory must be that of theta={config.theta:g}, got another matrix A; {_ADVICE}")
    net.load_state_dict(renamed, strict=False)
    return net
