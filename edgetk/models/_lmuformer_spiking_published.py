"""Weights of the spiking LMUFormer in the layout of the authors' code (`slmu_rnn_ms_conv1d`, one block)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from edgetk.core.errors import InputError
from edgetk.models.layers.frame_conv import from_conv1d
from edgetk.models.layers.lmu import LegendreMemory
from edgetk.models.lmuformer_spiking import Config, SpikingLMUFormer

#: published name -> name here
_PUBLISHED = (
    (r"patch_embed\.proj_conv(\d?)\.weight", r"embed.convs.\1.taps.weight"),
    (r"patch_embed\.proj_bn(\d?)\.(.*)", r"embed.neurons.\1.norm.\2"),
    (r"patch_embed\.rpe_conv\.weight", r"embed.position.taps.weight"),
    (r"block\.0\.attn\.prev_bn\.(.*)", r"mixer.input.norm.\1"),
    (r"block\.0\.attn\.lmu\.W_u\.(.*)", r"mixer.encoder.\1"),
    (r"block\.0\.attn\.lmu\.bn_u\.(.*)", r"mixer.encoded.norm.\1"),
    (r"block\.0\.attn\.lmu\.bn_m\.(.*)", r"mixer.remembered.norm.\1"),
    (r"block\.0\.attn\.lmu\.W_h\.(.*)", r"mixer.read.\1"),
    (r"block\.0\.attn\.lmu\.bn_h\.(.*)", r"mixer.hidden.norm.\1"),
    (r"block\.0\.attn\.proj_conv\.(.*)", r"mixer.proj.\1"),
    (r"block\.0\.attn\.proj_bn\.(.*)", r"mixer.norm.\1"),
    (r"block\.0\.mlp\.fc1_bn\.(.*)", r"channels.input.norm.\1"),
    (r"block\.0\.mlp\.fc1_conv\.(.*)", r"channels.expand.\1"),
    (r"block\.0\.mlp\.fc2_bn\.(.*)", r"channels.expanded.norm.\1"),
    (r"block\.0\.mlp\.fc2_conv\.(.*)", r"channels.reduce.\1"),
    (r"head_bn\.(.*)", r"output.norm.\1"),
    (r"head\.(.*)", r"head.\1"),
)
_DERIVED = re.compile(r"block\.0\.attn\.lmu\.(A|B|H|fft_H)|.*\.num_batches_tracked")
_ADVICE = "hand in the state dict of that network"


def from_published(state: Mapping[str, Tensor]) -> SpikingLMUFormer:
    """A network with weights in the authors' layout (`slmu_rnn_ms_conv1d`, one block); shapes are read off the weights.

    It takes features as they are (`feature_step` 0) and leaves the weights as they are: call `settle` for exact sums. The
    memory's matrices, where `state` has them, must be those of theta = 128, which all published weights have.
    Raises InputError for a name that the layout does not have, a missing one, a shape that does not fit, or another theta.
    """
    renamed = _renamed(state)
    try:
        widths = tuple(renamed[f"embed.convs.{i}.taps.weight"].shape[0] for i in range(4))
        read = renamed.pop("mixer.read.weight")
        config = Config(
            features=renamed["embed.convs.0.taps.weight"].shape[1] // 3,
            classes=renamed["head.weight"].shape[0],
            widths=(widths[0], widths[1], widths[2], widths[3]),
            order=read.shape[1] - widths[3],
            hidden=read.shape[0],
            ffn=renamed["channels.expand.weight"].shape[0],
            feature_step=0.0,
        )
        # The published layer reads [m; x]; here two layers read them side by side.
        renamed["mixer.read_memory.weight"] = read[:, : config.order]
        renamed["mixer.read_input.weight"] = read[:, config.order :]
        renamed["mixer.read_input.bias"] = renamed.pop("mixer.read.bias")
    except KeyError as error:
        raise _missing(str(error).strip("'")) from error
    net = SpikingLMUFormer(config).eval()
    outside = ("num_batches_tracked", ".pad", ".threshold", ".rest")
    wanted = {n: v for n, v in net.state_dict().items() if not n.endswith(outside)}
    if lost := sorted(wanted.keys() - renamed.keys()):
        raise _missing(", ".join(lost))
    if extra := sorted(renamed.keys() - wanted.keys()):
        raise InputError(f"lmuformer-spiking: weights must be those of one block, got also {', '.join(extra)}; {_ADVICE}")
    for name, value in renamed.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"lmuformer-spiking: {name} must have the shape {tuple(wanted[name].shape)}, got {tuple(value.shape)}; "
                f"{_ADVICE}"
            )
    ours = LegendreMemory(config.order, config.theta, config.frames).A
    a = state.get("block.0.attn.lmu.A", ours)
    if a.shape != ours.shape or not torch.allclose(a.float(), ours, atol=1e-4):
        raise InputError(
            f"lmuformer-spiking: the memory must be that of theta={config.theta:g}, got another matrix A; {_ADVICE}"
        )
    net.load_state_dict(renamed, strict=False)
    return net


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if _DERIVED.fullmatch(name):
            continue
        for pattern, here in _PUBLISHED:
            match = re.fullmatch(pattern, name)
            if match:
                wide = value.dim() == 3 and value.shape[-1] == 3
                flat = from_conv1d(value) if wide else value[..., 0] if value.dim() == 3 else value
                # the authors' first layer has no number
                renamed[match.expand(here).replace("..", ".0.")] = flat
                break
        else:
            raise InputError(
                f"lmuformer-spiking: weights must use the names of slmu_rnn_ms_conv1d with one block, got {name!r}; {_ADVICE}"
            )
    return renamed


def _missing(names: str) -> InputError:
    return InputError(
        f"lmuformer-spiking: weights of slmu_rnn_ms_conv1d must hold every layer, got none for {names}; {_ADVICE}"
    )
