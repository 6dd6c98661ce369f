"""NIR files: `model.nir`, a spiking network's stream as LIF neurons, products and delays, read back, simulated and compared.

The file holds the stream without edges (see docs/nir.md); the length of a step is that of the model's signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetk.core.artifact import Parity
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered
from edgetk.core.errors import ParityError, PreconditionError
from edgetk.core.target import Target
from edgetk.export import _nir_graph, metadata, nir_run, parity
from edgetk.export._nir_exact import sums_are_exact
from edgetk.export.to_onnx import front_end, npz

if TYPE_CHECKING:
    from edgetk.models.layers.spiking_graph import SpikingGraph

FILE, TEST_FILE = "model.nir", "testdata/nir/sequence.npz"

#: Streams of the proof, whole inputs in each where there are real ones, and steps beyond the longest delay of a random one.
STREAMS, INPUTS, STEPS = 4, 2, 32

#: Share of spikes that may differ where sums are rounded, so that their order shows.
UNEQUAL = 1e-3

#: Decisions are divided in another order: a share of the largest magnitude.
ROUNDING = 1e-6

#: What is in the metadata of a graph in other words, or does not hold for a stream without edges.
_NOT_HERE = ("schema_version", "signature", "inputs", "outputs", "states", "parity", *metadata.FORM_FACTS)

_SAID = {
    "time_unit": "s",
    "method": "forward Euler with steps of dt; spike and reset in the same step; membranes start at v_reset, delays at 0",
    "threshold": "the network fires at or above it, NIR above: v_threshold is the next smaller float32 number",
    "decision": "class scores after a step are the mean of the outputs of all steps so far",
    "edges": "the stream that has always been running over zeros: no frame lies outside an utterance",
}


@dataclass(frozen=True)
class NirExporter:
    """Files of the format "nir", for modules with `spiking_graph()`."""

    format: str = "nir"

    def check(self, bundle: Bundle, target: Target) -> None:
        """The package must be there, and the model a stream with a period whose module gives a spiking graph."""
        _nir_graph.package()
        if not bundle.is_torch or not hasattr(bundle.body, "spiking_graph"):
            kind = type(bundle.body).__name__ if bundle.is_torch else "an ONNX graph"
            raise PreconditionError(
                f"nir: {bundle.name} must be a spiking model whose module has spiking_graph(), got {kind}; "
                "export it to onnx, or name another --target"
            )
        if bundle.signature.period_s is None:
            raise PreconditionError(
                f"nir: {bundle.name} must say how long a step takes, got a signature without period_s; add it"
            )
        bundle.body.spiking_graph()

    def __call__(
        self, lowered: Sequence[Lowered], bundle: Bundle, target: Target, facts: Mapping[str, Any] | None = None
    ) -> Sequence[Emitted]:
        """The file of the stream form and its test data; nothing where that form is not asked for.

        Raises PreconditionError (the network cannot be expressed) or ParityError (the file computes something else).
        """
        emitted: list[Emitted] = []
        for low in lowered:
            if low.signature.is_streaming:
                emitted.extend(_export(low, bundle, target, facts or {}))
        return emitted


def _export(low: Lowered, bundle: Bundle, target: Target, facts: Mapping[str, Any]) -> list[Emitted]:
    period = low.signature.period_s
    assert period is not None, "check saw to it"
    network: SpikingGraph = bundle.body.spiking_graph()
    rounding = np.array([[r.step, r.low, r.high] for r in network.rounding]).reshape(-1, 3)
    told = metadata.describe(low, bundle, target, front_end(bundle), facts)
    said = {key: text for key, text in told.items() if key not in _NOT_HERE}
    content = _nir_graph.to_bytes(
        _nir_graph.build(network, period, {**said, **_SAID, "dt": period, "input_rounding": rounding})
    )
    graph = _nir_graph.from_bytes(content)
    streams, real = _streams(low, bundle, network)
    run = nir_run.simulate(graph, streams.reshape(*streams.shape[:2], network.width))
    proof, notes = _prove(graph, low, network, streams, run)
    if network.folded:
        notes.append(f"{len(network.folded)} norms were folded into thresholds for this file, which rounds them: fold first")
    if real and bundle.clip is not None:
        notes.append(_beside_clips(graph, low, bundle, network))
    data = {"features": streams[0].reshape(-1, network.width), "output": run.output[0]}
    data |= {f"spikes_{name}": x[0].astype(np.uint8) for name, x in run.spikes.items()}
    return [
        Emitted(FILE, content, "nir", low, proof, tuple(notes)),
        Emitted(TEST_FILE, npz(data), "npz", low),
    ]


def _streams(low: Lowered, bundle: Bundle, network: SpikingGraph) -> tuple[np.ndarray, bool]:
    """Streams (n, steps, *step shape), and whether they are real inputs, end to end, or random numbers."""
    spec = low.signature.inputs[0]
    if bundle.data is not None and bundle.clip is not None:
        clips = bundle.data.calibration(STREAMS * INPUTS).numpy()
        frames = parity.steps_of(clips, bundle.clip.inputs[0], spec)
        return frames.reshape(STREAMS, -1, *spec.concrete()), True
    delays = [int(steps.max()) for node in network.nodes.values() if (steps := getattr(node, "steps", None)) is not None]
    rng = np.random.default_rng(0)
    return parity.draw(rng, (STREAMS, max(delays, default=0) + STEPS, *spec.concrete()), "float32"), False


def _prove(graph: Any, low: Lowered, network: SpikingGraph, streams: np.ndarray, run: nir_run.Run) -> tuple[Parity, list[str]]:
    """Compare what was read back and simulated with the module in memory, over whole streams.

    Where sums are exact: every spike and every membrane equal. Elsewhere: at most `UNEQUAL` of the spikes differ, and
    decisions by no more than the file's precision allows.
    """
    scores, spikes, membranes = _in_memory(low, network, streams)
    exact = sums_are_exact(graph)
    unequal = {name: int((run.spikes[name] != wanted).sum()) for name, wanted in spikes.items()}
    count, wrong = sum(x.size for x in spikes.values()), sum(unequal.values())
    if wrong > (0 if exact else UNEQUAL * count):
        worst = max(unequal, key=lambda name: unequal[name])
        raise ParityError(
            f"nir: spikes must be those of the model in memory, got {wrong} of {count} unequal, most of them in {worst}; "
            "do not use this file"
        )
    got = nir_run.decisions(run.output)
    agreement = float((got[:, -1].argmax(-1) == scores[:, -1].argmax(-1)).mean())
    scale = float(np.abs(scores).max())
    allowed = scale * (ROUNDING if exact else parity.BOUNDS["int8"])
    off = float(np.abs(got - scores).max())
    if not off <= allowed:
        raise ParityError(
            f"nir: decisions must differ from the model in memory by at most {allowed:.1e}, got {off:.1e} of {scale:.2g}; "
            "do not use this file"
        )
    if exact:
        off = max(float(np.abs(run.membranes[name] - wanted).max()) for name, wanted in membranes.items())
        scale = max(float(np.abs(wanted).max()) for wanted in membranes.values())
        allowed = 0.0
    what = "membranes" if exact else "decisions"
    runtime = f"nir_run, forward Euler, dt {graph.metadata['dt']:g} s"
    steps = streams.shape[0] * streams.shape[1]
    notes = [
        f"{count - wrong} of {count} spikes are equal, of {len(spikes)} populations over {steps} steps",
        "every sum is exact: no order of additions changes a spike"
        if exact
        else "sums are rounded: another order of additions may change a spike",
    ]
    return Parity(f"{what} of the model in memory", runtime, len(streams), off, scale, allowed, agreement), notes


def _in_memory(
    low: Lowered, network: SpikingGraph, streams: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores (n, T, K) of the module's own steps; spikes and membranes (n, T, C) by node, as its neurons give them."""
    import torch

    from edgetk.models.layers.spiking_graph import Neurons

    heard: dict[str, list[Any]] = {}
    handles = []
    for name, node in network.nodes.items():
        if isinstance(node, Neurons):
            taken = heard[name] = []
            module = network.body.get_submodule(node.module)
            handles.append(module.register_forward_hook(lambda module, x, y, taken=taken: taken.append(y)))
    n, steps = streams.shape[:2]
    state = tuple(s.expand(n, *s.shape[1:]) for s in network.state)
    scores = []
    try:
        with torch.no_grad():
            for frame in torch.from_numpy(streams).reshape(n, steps, *low.signature.inputs[0].concrete()[1:]).unbind(1):
                y, *following = network.body(frame, *state)
                state = tuple(following)
                scores.append(y.reshape(n, -1))
    finally:
        for handle in handles:
            handle.remove()
    spikes, membranes = (
        {name: torch.stack([y[part] for y in taken], dim=1).numpy() for name, taken in heard.items()} for part in (0, 1)
    )
    return torch.stack(scores, dim=1).numpy(), spikes, membranes


def _beside_clips(graph: Any, low: Lowered, bundle: Bundle, network: SpikingGraph) -> str:
    """How often the network without edges decides as the clip form does, whose neurons rest outside a clip."""
    import torch

    assert bundle.data is not None
    assert bundle.clip is not None
    clips = bundle.data.calibration(STREAMS * INPUTS)
    frames = parity.steps_of(clips.numpy(), bundle.clip.inputs[0], low.signature.inputs[0])
    frames = frames.reshape(*frames.shape[:2], network.width)
    wait = round(low.signature.lookahead_s / float(graph.metadata["dt"]))
    run = nir_run.simulate(graph, np.pad(frames, ((0, 0), (0, wait), (0, 0))))
    with torch.no_grad():
        wanted = bundle.predict()(clips).argmax(-1).numpy()
    same = int((run.output[:, wait:].mean(axis=1).argmax(-1) == wanted).sum())
    return f"without edges it decides {same} of {len(clips)} single clips, with {wait} frames of zeros behind, as the clip form"


EXPORTER = NirExporter()
