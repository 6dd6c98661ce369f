"""A model as a small C++ project on ONNX Runtime: sources, the proven graph, and test data that the project replays.

The sources are those of `edgetk/export/cpp`, the same for every model: what they need to know they read from the graph's
metadata. The folder `testdata/` holds what Python's ONNX Runtime gives for the same graph, on real inputs where there are any:

    features.npy       frames (T, F);  scores.npy, frame_scores.npy: rows with a decision, flush included; the second one with
                       the states that add up cleared before each step (edgetk/tasks/speech/detect.py)
    clip.wav           one second of sound, frames.npy its log-mel frames, clip_scores.npy the stream's rows for it as one clip
    inputs.npy, outputs.npy    of a model without a stream form
    bounds.json        what may differ;  checks.txt: which of the checks there are, one a line
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Lowered
from edgetk.core.signature import TensorSpec
from edgetk.core.target import Target
from edgetk.export import parity
from edgetk.export.c.names import identifier
from edgetk.export.to_onnx import EXPORTER, FILES, examples, front_end

#: templates of the project: copied as they are, but for README.md
SOURCES = Path(__file__).parent / "cpp"

#: log-mel frames of C++ and Python (normalised) differ by less
LOG_MEL_BOUND = 1e-4

#: States that add up over a stream; the runner clears them where each frame is scored alone.
SUMS = "state_head_"

#: What a clip's scores may differ by, from sound to decision, as a share of the largest: the front ends differ by rounding,
#: and a feature on the edge of two codes of an int8 or spiking network falls on either side.
CLIP_BOUNDS = {"float32": 1e-4, "int8": 0.05, "exact": 0.05}

#: whole inputs of a model without a stream
WHOLE = 2

Files = dict[str, bytes]


def project(low: Lowered, bundle: Bundle, target: Target, model: str, facts: Mapping[str, Any]) -> Files:
    """All files of the project, by name. `model` is what the user called it (see `edgetk.toolkit.source`), `facts` go into
    the graph's metadata.

    Raises ParityError before anything is made of a graph that does not compute what the model computes.
    """
    graph = next(e for e in EXPORTER((low,), bundle, target, facts) if e.format == "onnx")
    files = {**sources(bundle, model, low.form), f"model/{FILES[low.form]}": graph.content}
    return {**files, **{f"testdata/{name}": content for name, content in _test_data(graph, bundle).items()}}


def sources(bundle: Bundle, model: str, form: str = "stream") -> Files:
    """The project without model and test data, for one form of `bundle`."""
    files = {
        path.relative_to(SOURCES).as_posix(): path.read_bytes()
        for path in sorted(SOURCES.rglob("*"))
        if path.suffix in (".hpp", ".cpp", ".cmake", ".txt")
    }
    signature = bundle.clip if form == "clip" and bundle.clip is not None else bundle.signature
    facts = {
        "model": model,
        "file": FILES[form],
        "identifier": identifier(bundle.name),
        "labels": ", ".join(bundle.labels) or "without names",
        "input": f"`{signature.inputs[0].name}` {_shape(signature.inputs[0])}",
        "output": f"`{signature.outputs[0].name}` {_shape(signature.outputs[0])}",
        "states": len(signature.state),
        "period": f"{1e3 * signature.period_s:g} ms" if signature.period_s else "not told",
        "lookahead": f"{1e3 * signature.lookahead_s:g} ms",
        "front_end": front_end(bundle).get("kind", "none: it is given features"),
    }
    readme = Template((SOURCES / "README.md.in").read_text(encoding="utf-8")).substitute(facts)
    return {**files, "README.md": readme.encode(), "model.txt": f"{model}\n".encode(), ".gitignore": b"/build/\n"}


def _shape(spec: TensorSpec) -> str:
    return f"({', '.join(str(d) for d in spec.shape)})"


def _test_data(graph: Emitted, bundle: Bundle) -> Files:
    low = graph.lowered
    bounds = {"scores": parity.bound(low), "log_mel": LOG_MEL_BOUND}
    bounds["clip_scores"] = CLIP_BOUNDS["exact" if low.exact else low.precision]
    arrays, checks, files = _replayed(graph, bundle) if low.signature.is_streaming else _whole(graph, bundle)
    files |= {f"{name}.npy": npy(array) for name, array in arrays.items()}
    files["bounds.json"] = (json.dumps(bounds, indent=2, sort_keys=True) + "\n").encode()
    files["checks.txt"] = "".join(f"{check}\n" for check in checks).encode()
    return files


def _whole(graph: Emitted, bundle: Bundle) -> tuple[dict[str, np.ndarray], list[str], Files]:
    run, inputs = parity.runner(graph.content, graph.lowered.signature), examples(bundle, graph.lowered, WHOLE)[0]
    rows = np.concatenate([run(x.reshape(graph.lowered.signature.inputs[0].concrete()))[0] for x in inputs])
    return {"inputs": inputs, "outputs": rows.reshape(len(inputs), -1)}, ["whole"], {}


def _replayed(graph: Emitted, bundle: Bundle) -> tuple[dict[str, np.ndarray], list[str], Files]:
    signature = graph.lowered.signature
    frames = examples(bundle, graph.lowered, 1)[0]
    features = frames.reshape(frames.shape[1], -1)
    arrays = {"features": features, "scores": scores(graph, features)}
    checks, files = ["steps"], Files()
    if any(state.name.startswith(SUMS) for state in signature.state):
        arrays["frame_scores"] = scores(graph, features, each_frame=True)
        checks.append("each_frame")
    if front_end(bundle).get("kind") == "kaldi-log-mel":
        samples = _clip(bundle)
        arrays["frames"], padded = _log_mel(samples)
        arrays["clip_scores"] = scores(graph, padded)
        checks += ["log_mel", "clip"]
        files["clip.wav"] = wav(samples)
    return arrays, checks, files


def scores(graph: Emitted, features: np.ndarray, each_frame: bool = False) -> np.ndarray:
    """What the stream form gives for frames (T, F) and the flush in Python's ONNX Runtime: the rows with a decision (T, K).

    `each_frame`: with the states that add up over the stream at their start before every step.
    """
    signature = graph.lowered.signature
    run, start = parity.runner(graph.content, signature), parity.initial_state(signature)
    cleared = [each_frame and state.name.startswith(SUMS) for state in signature.state]

    def call(x: np.ndarray, *state: np.ndarray) -> tuple[np.ndarray, ...]:
        return run(x, *(first if clear else now for clear, first, now in zip(cleared, start, state, strict=True)))

    steps = features.reshape(1, len(features), *signature.inputs[0].concrete())
    late = round(signature.lookahead_s / signature.period_s) if signature.period_s else 0
    told = parity.flush_steps(signature)
    if late and not told:
        steps = np.concatenate([steps, np.zeros_like(steps[:, :late])], axis=1)
    rows = parity.stream(call, signature, (steps,), told)[0][0]
    found: np.ndarray = rows.reshape(len(rows), -1)[late:]
    return found


def _clip(bundle: Bundle) -> np.ndarray:
    """One second of sound, int16: a real clip of the validation split where the data has sound, else a chirp in noise."""
    from edgetk.tasks.speech import front_end as fe

    waves = getattr(bundle.data, "waves", None)
    if waves is not None:
        real: np.ndarray = waves("validation").samples[0].numpy()
        return real
    seconds = np.arange(fe.CLIP_SAMPLES) / fe.SAMPLE_RATE
    noise = np.random.default_rng(0).normal(0, 60, len(seconds))
    return np.round(9000 * np.sin(np.pi * seconds) * np.sin(2 * np.pi * (120 + 1500 * seconds) * seconds) + noise).astype(
        np.int16
    )


def _log_mel(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames (98, 128) of one second and the whole input (128, 128), padding included."""
    import torch

    from edgetk.tasks.speech import front_end as fe
    from edgetk.tasks.speech.log_mel import LogMel

    with torch.no_grad():
        whole = LogMel()(torch.from_numpy(samples.astype(np.float32) / 32768)[None])[0].numpy()
    return whole[: fe.CLIP_FRAMES], whole


def wav(samples: np.ndarray) -> bytes:
    """int16 samples at 16 kHz as the content of a mono WAV file."""
    import wave

    from edgetk.tasks.speech import front_end as fe

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(fe.SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """A C-ordered float32 array as the content of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


__all__ = ["LOG_MEL_BOUND", "SOURCES", "npy", "project", "scores", "sources", "wav"]
