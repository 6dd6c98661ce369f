"""Firing rates of spiking models, recorded on clips that the report names, for the energy of what is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered

if TYPE_CHECKING:
    from edgetk.targets.firing import Firing

#: whole inputs that rates of the clip form are taken on, and of the stream form, which runs step by step
CLIPS, STREAMS = 64, 8


def is_spiking(bundle: Bundle) -> bool:
    """Whether a model says which of its layers read spikes."""
    return bundle.is_torch and hasattr(bundle.body, "spike_driven")


def rates(bundle: Bundle) -> dict[str, Any]:
    """How often each group of neurons fires, spikes per neuron and frame, on `CLIPS` examples of the validation split.

    For the card of a trained model: `{"rates": {name: rate}, "n": …, "origin": …}`; empty for a model without spikes or data.
    """
    if not is_spiking(bundle) or bundle.data is None or bundle.clip is None:
        return {}
    import torch

    from edgetk.models.layers.lif import spikes_of

    split = bundle.data.split("validation")
    chosen = split.features[:: max(1, len(split.labels) // CLIPS)][:CLIPS]
    found: dict[str, float] = {}
    with torch.no_grad(), spikes_of(bundle.module, lambda name, spikes: found.update({name: float(spikes.mean())})):
        bundle.predict()(chosen)
    named = {name: round(rate, 4) for name, rate in found.items()}
    return {"rates": named, "n": len(chosen), "origin": f"spread evenly over {split.origin}"}


def firings(lowered: Mapping[str, Lowered], bundle: Bundle) -> dict[str, Firing]:
    """What fired in each form, by form; empty for a model without spikes or without data.

    The examples are spread evenly over the validation split. Streams run over the frames of a clip, without the flush.
    """
    if not is_spiking(bundle) or bundle.data is None:
        return {}
    from edgetk.export.parity import steps_of
    from edgetk.targets.firing import record

    split = bundle.data.split("validation")
    found = {}
    for form, low in lowered.items():
        wanted = min(STREAMS if low.signature.is_streaming else CLIPS, len(split.labels))
        every = len(split.labels) // wanted
        examples = split.features[::every][:wanted].numpy()
        spec = low.signature.inputs[0]
        if low.signature.is_streaming:
            whole = bundle.clip.inputs[0] if bundle.clip is not None else spec
            examples = steps_of(examples, whole, spec)
        origin = f"every {every}. example of {split.origin}" if every > 1 else split.origin
        found[form] = record(low.graph, low.signature, {spec.name: examples}, origin)
    return found
