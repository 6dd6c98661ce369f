"""A streaming model as one function a frame, whatever runs it: torch, onnxruntime, or generated C."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from edgetk.core.bundle import Bundle
from edgetk.core.errors import InputError, UsageError
from edgetk.core.signature import Signature
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.detect import CLEARED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetk.core.contracts import Lowered

    Row = NDArray[np.float32]

#: what `--runtime` takes
RUNTIMES: Final = ("torch", "onnxruntime", "c")
#: the board whose operator set graphs are written for where a model in memory is to run in onnxruntime
_HOST: Final = "host"
#: many frames at once: tokens of a piece, frames before it, pieces of a batch
PIECE, BEFORE, _AT_ONCE = 1024, 384, 4


class Steps(Protocol):
    """What the listener, the view and the evaluation need of a network. `runtime` says in words what runs it."""

    runtime: str

    def reset(self) -> None:
        """Start a new stream."""
        ...

    def state(self) -> Mapping[str, NDArray[Any]]:
        """What is carried to the next step, by name."""
        ...

    def __call__(self, frame: Row) -> Row:
        """Features of one frame (F,) -> the logits of that frame alone (K,), `lookahead` frames late.

        The sums over the stream (`edgetk.tasks.speech.detect`, step 1) are cleared before every step.
        """
        ...


@dataclass(frozen=True)
class Streamed:
    """A model ready to listen: `steps` runs it; look-ahead in frames."""

    name: str
    labels: tuple[str, ...]
    lookahead: int
    period_s: float
    steps: Steps

    @property
    def runtime(self) -> str:
        return self.steps.runtime


def open_stream(model: str, runtime: str | None = None, task: str | None = None) -> Streamed:
    """The model `model` (as `source.open_model` takes it) in `runtime`, or in what it comes for: a graph in onnxruntime, a
    model in memory in torch.

    A model without a stream form is run on windows (`edgetk.toolkit.stream_windows`).

    Raises UsageError (an unknown runtime, or one that cannot run this kind of model) and InputError (a model that does not read
    what the speech front end gives, or has no labels).
    """
    from edgetk.toolkit import source

    if runtime is not None and runtime not in RUNTIMES:
        raise UsageError(f"stream: --runtime must be one of {', '.join(RUNTIMES)}, got {runtime}; correct it")
    return of_bundle(source.open_model(model, task=task), runtime)


def of_bundle(bundle: Bundle, runtime: str | None = None) -> Streamed:
    """`open_stream` for a model that is open already."""
    from edgetk.toolkit.evaluate import lookahead

    signature = bundle.signature
    labels = bundle.labels
    chosen = runtime or ("torch" if bundle.is_torch else "onnxruntime")
    if not labels:
        raise InputError(f"stream: model {bundle.name} must say its labels, got none; train it: edgetk train")
    if not signature.is_streaming:
        from edgetk.toolkit.stream_windows import WindowSteps

        return Streamed(bundle.name, labels, 0, fe.HOP_SAMPLES / fe.SAMPLE_RATE, WindowSteps(bundle, chosen))
    _check(bundle)
    steps: Steps
    if chosen == "torch":
        if not bundle.is_torch:
            raise UsageError(
                f"stream: --runtime torch needs a model in memory, got the graph {bundle.name}; leave --runtime out"
            )
        steps = TorchSteps(bundle)
    else:
        lowered = _lowered(bundle)
        steps = OnnxSteps(lowered) if chosen == "onnxruntime" else CSteps(lowered, bundle)
    assert signature.period_s, "checked"
    return Streamed(bundle.name, labels, lookahead(signature), signature.period_s, steps)


def _check(bundle: Bundle) -> None:
    """The stream must read the frames of the speech front end."""
    from edgetk.toolkit import calling

    signature, who = bundle.signature, f"stream: model {bundle.name}"
    wanted = fe.HOP_SAMPLES / fe.SAMPLE_RATE
    if len(signature.inputs) != 1 or signature.period_s != wanted:
        raise InputError(
            f"{who} must take one frame every {wanted:g} s, got {len(signature.inputs)} inputs every "
            f"{signature.period_s or 0:g} s; choose a model of the task speech-commands"
        )
    shape = signature.inputs[0].concrete(**calling.symbols(signature, 1))
    if int(np.prod(shape)) != fe.N_MELS:
        raise InputError(
            f"{who} must take frames of {fe.N_MELS} log-mel bands, got {' x '.join(map(str, shape))}; "
            "choose a model of the task speech-commands"
        )


def _cleared(signature: Signature) -> list[int]:
    """Which states are sums over the stream."""
    return [i for i, state in enumerate(signature.state) if state.name.startswith(CLEARED)]


class TorchSteps:
    """A module in memory, on one thread's worth of work a step."""

    def __init__(self, bundle: Bundle) -> None:
        import torch

        from edgetk.toolkit import calling
        from edgetk.toolkit.evaluate import lookahead

        self.runtime = f"torch {torch.__version__.partition('+')[0]}"
        self._module = bundle.module.eval()
        signature = bundle.signature
        sizes = calling.symbols(signature, 1)
        self._shape = signature.inputs[0].concrete(**sizes)
        self._start = [calling.start(state, sizes) for state in signature.state]
        self._cleared, self._outputs = _cleared(signature), len(signature.outputs)
        self._names = [state.name for state in signature.state]
        self._classes, self._lookahead = len(bundle.labels), lookahead(signature)
        self.reset()

    def reset(self) -> None:
        self._state = list(self._start)

    def state(self) -> Mapping[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in zip(self._names, self._state, strict=True)}

    def whole(self, features: Row) -> Row | None:
        """All rows (T, K) of frames (T, F), many frames at once, where the module offers `running`; else None.

        Pieces of PIECE tokens, each after BEFORE frames that bring its state up to date: what is older has faded from the
        memory (a test holds the difference from single steps below 1e-3 of the largest logit).
        """
        running = getattr(self._module, "running", None)
        if running is None:
            return None
        import torch

        total = len(features)
        rows = np.empty((total, self._classes), dtype=np.float32)
        alike: dict[tuple[int, int], list[int]] = {}
        for start in range(0, total, PIECE):
            low, high = max(start - BEFORE, 0), min(start + PIECE + self._lookahead, total)
            alike.setdefault((start - low, high - low), []).append(start)
        with torch.inference_mode():
            for (before, length), starts in alike.items():
                for at in range(0, len(starts), _AT_ONCE):
                    group = starts[at : at + _AT_ONCE]
                    x = torch.from_numpy(np.stack([features[s - before : s - before + length] for s in group]))
                    sums = running(x).double() * torch.arange(1, length + 1, dtype=torch.float64)[:, None]
                    own = torch.diff(sums, dim=1, prepend=torch.zeros_like(sums[:, :1])).numpy()
                    for start, piece in zip(group, own, strict=True):
                        stop = min(start + PIECE, total)
                        rows[start:stop] = piece[before : before + stop - start]
        # a step's row is `lookahead` frames late, and those of the first steps belong to no frame
        return np.concatenate((np.zeros_like(rows[: self._lookahead]), rows))[:total]

    def __call__(self, frame: Row) -> Row:
        import torch

        for i in self._cleared:
            self._state[i] = self._start[i]
        with torch.inference_mode():
            outputs = self._module(torch.from_numpy(frame).reshape(self._shape), *self._state)
        self._state = list(outputs[self._outputs :])
        row: Row = outputs[0].reshape(-1).numpy()
        return row


class OnnxSteps:
    """A step graph in onnxruntime, one thread, float or int8 alike."""

    def __init__(self, lowered: Lowered) -> None:
        import onnxruntime

        from edgetk.targets.meters.agent import ort
        from edgetk.toolkit import calling
        from edgetk.toolkit.evaluate import load_session

        signature = lowered.signature
        self.runtime = f"onnxruntime {onnxruntime.__version__}, {lowered.precision}"
        sizes = calling.symbols(signature, 1)
        self._input, self._shape = signature.inputs[0].name, signature.inputs[0].concrete(**sizes)
        self._start = {state.name: calling.start(state, sizes).numpy() for state in signature.state}
        self._cleared = {signature.state[i].name: self._start[signature.state[i].name] for i in _cleared(signature)}
        fed_back = {state.name: state.output for state in signature.state}
        self._stepper = ort.Stepper(load_session(lowered.graph.SerializeToString()), {}, fed_back, [signature.outputs[0].name])
        self.reset()

    def reset(self) -> None:
        self._stepper.feeds.update(self._start)

    def state(self) -> Mapping[str, NDArray[Any]]:
        return {name: self._stepper.feeds[name] for name in self._start}

    def __call__(self, frame: Row) -> Row:
        self._stepper.feeds.update(self._cleared)
        self._stepper.feeds[self._input] = frame.reshape(self._shape)
        row: Row = self._stepper.run()[1][0].reshape(-1)
        return row


class CSteps:
    """The generated C of a step graph, compiled here into a shared library; needs make and a C compiler."""

    def __init__(self, lowered: Lowered, bundle: Bundle) -> None:
        from edgetk.export import c_run, to_c

        with tempfile.TemporaryDirectory(prefix="edgetk-stream-") as folder:
            for name, content in to_c.project(lowered, bundle).items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            library = c_run.load(c_run.build(Path(folder)))  # stays mapped when its file is gone
        self.runtime = f"generated C, {lowered.precision}, {library.isa}"
        self._stream = library.stream()
        self._cleared = [
            self._stream.states[lowered.signature.state[i].name.removeprefix("state_")] for i in _cleared(lowered.signature)
        ]
        self._start = [part.copy() for part in self._cleared]

    def reset(self) -> None:
        self._stream.reset()

    def state(self) -> Mapping[str, NDArray[Any]]:
        return {f"state_{name}": part for name, part in self._stream.states.items()}

    def __call__(self, frame: Row) -> Row:
        for part, start in zip(self._cleared, self._start, strict=True):
            part[:] = start
        row: Row = self._stream.step(frame)[0]
        return row


def _lowered(bundle: Bundle) -> Lowered:
    """The step graph of a model, with its signature and precision, as written for this machine."""
    from edgetk.export import lower
    from edgetk.targets import board

    (lowered,) = lower.lower(bundle, board.load(_HOST), ["stream"])
    return lowered
