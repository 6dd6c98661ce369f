"""The spiking LMUFormer's stream as plain nodes: convolutions are products behind delays, the memory is one delay per spike."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch

from edgetk.core.errors import PreconditionError
from edgetk.models.layers.frame_conv import TAPS
from edgetk.models.layers.lif import NormedLIF
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.layers.quantized import QuantLinear
from edgetk.models.layers.spiking_graph import INPUT, Delay, Product, Reads, Rounding, SpikingGraph, Wiring, rounding_of

if TYPE_CHECKING:
    from edgetk.models.lmuformer_spiking import SpikingLMUFormer

WHO = "spiking LMUFormer"


def graph_of(net: SpikingLMUFormer, limit: float) -> SpikingGraph:
    """The graph of `net`, with norms folded in a copy where that has not been done; `limit` bounds its features.

    A stream without edges: all its frames are valid from the first one on. Raises PreconditionError.
    """
    body, folded = _folded(net)
    wiring = Wiring(WHO)
    residual = _embed(body, wiring)
    residual += _token_mixer(body, wiring, residual)
    residual += _channel_mixer(body, wiring, residual)
    spikes = wiring.neurons("output_neurons", body.output, "output", *residual)
    head = wiring.layer("head", body.head, spikes)
    step = body.config.feature_step
    first = body.embed.layers()[0].taps
    rounding = (Rounding(step, -limit, limit - step),) if step else ()
    valid, *rest = body.zero_state()
    return SpikingGraph(
        width=body.config.features,
        nodes=wiring.nodes,
        edges=tuple(wiring.edges),
        output=head,
        rounding=(*rounding, *rounding_of(getattr(first, "down", first))),
        body=body,
        state=(torch.ones_like(valid), *rest),
        folded=folded,
    )


def _folded(net: SpikingLMUFormer) -> tuple[SpikingLMUFormer, tuple[str, ...]]:
    body = copy.deepcopy(net).eval()
    if not any(isinstance(m, BatchNorm) for m in body.modules()):
        return body, ()
    integers = [name for name, m in body.named_modules() if isinstance(m, QuantLinear)]
    if integers:
        raise PreconditionError(
            f"{WHO}: norms must be folded before layers are quantized, got norms beside the integer layer {integers[0]}; "
            "put the pass fold first"
        )
    return body, body.fold_norms()


def _embed(net: SpikingLMUFormer, wiring: Wiring) -> tuple[str, ...]:
    """What adds up to a token: the fourth convolution one step later, and the position encoding."""
    source = INPUT
    reads: Reads = "features"
    terms: tuple[str, ...] = ()
    for i, (conv, unit) in enumerate(zip(net.embed.layers()[:-1], net.embed.neurons, strict=True)):
        terms = wiring.window(f"embed_conv{i}", conv.taps, source, TAPS, reads)
        source = wiring.neurons(f"embed_neuron{i}", cast("NormedLIF", unit), f"embed.neurons.{i}", *terms)
        reads = "spikes"
    width = net.config.dim
    waiting = wiring.add("embed_residual", Delay(torch.ones(width, dtype=torch.int64)), *terms)
    return (waiting, *wiring.window("embed_position", net.embed.position.taps, source, TAPS))


def _token_mixer(net: SpikingLMUFormer, wiring: Wiring, residual: tuple[str, ...]) -> tuple[str, ...]:
    mixer, length = net.mixer, net.mixer.memory.length
    heard = wiring.neurons("mixer_input", mixer.input, "mixer.input", *residual)
    encoder = wiring.layer("mixer_encoder", mixer.encoder, heard)
    encoded = wiring.neurons("mixer_encoded", mixer.encoded, "mixer.encoded", encoder)
    copies = wiring.add("mixer_memory_copies", Product(torch.ones(length, 1)), encoded)
    past = wiring.add("mixer_memory_past", Delay(torch.arange(length - 1, -1, -1)), copies)
    memory = wiring.layer("mixer_memory", mixer.memory.taps, past)
    remembered = wiring.neurons("mixer_remembered", mixer.remembered, "mixer.remembered", memory)
    read = wiring.layer("mixer_read_memory", mixer.read_memory, remembered)
    beside = wiring.layer("mixer_read_input", mixer.read_input, heard)
    hidden = wiring.neurons("mixer_hidden", mixer.hidden, "mixer.hidden", read, beside)
    return (wiring.layer("mixer_proj", mixer.proj, hidden),)


def _channel_mixer(net: SpikingLMUFormer, wiring: Wiring, residual: tuple[str, ...]) -> tuple[str, ...]:
    channels = net.channels
    heard = wiring.neurons("channels_input", channels.input, "channels.input", *residual)
    expand = wiring.layer("channels_expand", channels.expand, heard)
    expanded = wiring.neurons("channels_expanded", channels.expanded, "channels.expanded", expand)
    return (wiring.layer("channels_reduce", channels.reduce, expanded),)
