"""The proof that a file computes what the model in memory computes: clips at once, streams step by step with their state.

Bounds are relative to the largest magnitude of each output in the reference:

    float32   1e-4    rounding in another order
    float16   0.02    eleven bits, rounded at every operator
    int8      0.05    about six steps of an 8-bit output: a value that falls on the other side of a rounding boundary moves
                      one step, and later layers carry that on; besides, the arg-max must agree wherever it is clear

Where nothing moves to the other side of a boundary, int8 outputs differ by rounding alone (1e-6). Where something does, deep
networks carry it to the outputs, by as much as computing the model in memory in float64 changes them: a file beyond the bound
then shows a model whose answers hang on rounding, which another kernel would change just as well, and is refused too.

A model with layers that are `hashed` has the bound of int8 in any precision: where a coordinate is nearly zero, a rounding
gives it the other sign, and another row of a table is read; so it is where two attention weights are nearly equal, and only
one of them is kept.

A model that declares exact sums (`Lowered.exact`) has the bound 0 in any precision: every output and state, bit for bit (but
for the sign of a zero, which no operator there can tell).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetk.core.artifact import Parity
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import ParityError, PreconditionError
from edgetk.core.runtime_options import open_session, session_options
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.export import operators as native

if TYPE_CHECKING:
    import onnx

BOUNDS = {"float32": 1e-4, "float16": 0.02, "int8": 0.05}

#: Share of inputs with a clear decision (the two best apart by half the bound) whose arg-max must be the same.
MIN_AGREEMENT = 0.95

#: Steps of a stream, and size of other symbolic dimensions, where no real inputs are given.
STEPS, SIZE = 32, 37

#: Differences below this are noise whatever the scale.
_FLOOR = 1e-7

Arrays = tuple[np.ndarray, ...]


def prove(
    lowered: Lowered,
    content: bytes | onnx.ModelProto,
    inputs: Sequence[np.ndarray] | int = 8,
    runtime: str = "onnxruntime",
    optimise: bool = True,
    operators: Path | None = None,
) -> Parity:
    """Run `content` in `runtime` (CPU, one thread) and the model in memory on the same inputs, and compare every output.

    inputs    one array for each input of the signature, or a number n of seeded random ones. Clip form: (n, …) where the
              first dimension is symbolic, else (n, *shape). Stream form: (n, steps, *shape), n whole streams; both sides start
              from the initial state and carry their own, and every step is compared, states included. The steps that flush
              look-ahead at the end of a stream are added where the model can tell them apart (`flush_steps`).
    optimise  onnxruntime's graph optimisations: all of them, or none
    operators the native operator library to run with (`edgetk.export.operators.library`); None: operators run as their bodies

    Raises ParityError, naming the output that differs most and by how much.
    """
    if runtime != "onnxruntime":
        raise PreconditionError(f"parity: runtime must be onnxruntime, got {runtime!r}; run other formats on their own device")
    assert lowered.reference is not None, "an exporter proves what it was given a reference for"
    signature = lowered.signature
    given = random_inputs(signature, inputs) if isinstance(inputs, int) else inputs
    arrays = tuple(np.asarray(x, spec.dtype) for x, spec in zip(given, signature.inputs, strict=True))
    candidate = runner(content if isinstance(content, bytes) else content.SerializeToString(), signature, optimise, operators)

    def run(call: Any) -> Arrays:
        if signature.is_streaming:
            return stream(call, signature, arrays, flush_steps(signature))
        return clip(call, signature, arrays)

    expected, got = run(lowered.reference), run(candidate)
    return compare(
        signature.output_names,
        expected,
        got,
        bound(lowered),
        reference="the model in memory",
        runtime=f"onnxruntime {_version()}, CPU, 1 thread, {'all' if optimise else 'no'} graph optimisations"
        + (f", operators of {operators.name}" if operators else ""),
        who=f"{lowered.form} form ({lowered.precision})",
    )


def bound(lowered: Lowered) -> float:
    """The share of the largest magnitude that outputs may differ by."""
    return 0.0 if lowered.exact else BOUNDS["int8" if lowered.hashed else lowered.precision]


def clip(call: Any, signature: Signature, inputs: Sequence[np.ndarray]) -> Arrays:
    """Outputs (n, …) of a form without state, in one batch where the batch is symbolic."""
    if isinstance(signature.inputs[0].shape[0], str):
        return tuple(np.asarray(y) for y in call(*inputs))
    outputs = [call(*(x[i] for x in inputs)) for i in range(len(inputs[0]))]
    return tuple(np.stack([y[k] for y in outputs]) for k in range(len(signature.outputs)))


#: The state whose first number tells a step inside a clip (1) from one that flushes look-ahead (0).
VALID = "state_valid"


def flush_steps(signature: Signature) -> int:
    """Steps of zeros that bring out what waits for look-ahead at the end of a stream; 0 without a `state_valid`."""
    told = any(state.name == VALID for state in signature.state)
    return round(signature.lookahead_s / signature.period_s) if told and signature.period_s else 0


def stream(call: Any, signature: Signature, inputs: Sequence[np.ndarray], flush: int = 0) -> Arrays:
    """Outputs and states (n, steps + flush, …) of a step form, each stream from the initial state on."""
    streams = []
    tail = [np.zeros((len(x), flush, *x.shape[2:]), x.dtype) for x in inputs]
    frames = [np.concatenate(pair, axis=1) for pair in zip(inputs, tail, strict=True)]
    valid = next((i for i, state in enumerate(signature.state) if state.name == VALID), 0)
    for i in range(len(inputs[0])):
        state: Arrays = initial_state(signature)
        steps = []
        for t in range(frames[0].shape[1]):
            if flush and t == inputs[0].shape[1]:
                ended = state[valid].copy()
                ended.flat[0] = 0
                state = (*state[:valid], ended, *state[valid + 1 :])
            y = call(*(x[i, t] for x in frames), *state)
            state = tuple(y[len(signature.outputs) :])
            steps.append(y)
        streams.append(tuple(np.stack([y[k] for y in steps]) for k in range(len(signature.output_names))))
    return tuple(np.stack([s[k] for s in streams]) for k in range(len(signature.output_names)))


def initial_state(signature: Signature) -> Arrays:
    """What each state holds at the start of a stream."""

    def start(state: StateSpec) -> np.ndarray:
        shape = state.spec.concrete()
        first = np.array(state.init, np.float32) if state.init else np.zeros(1, np.float32)
        size = int(np.prod(shape))
        return np.resize(first, size).reshape(shape).astype(state.spec.dtype)

    return tuple(start(s) for s in signature.state)


def random_inputs(signature: Signature, n: int, seed: int = 0) -> Arrays:
    """`n` seeded inputs (streams: of `STEPS` steps) in the layout that `prove` takes: normal, or 0 and 1 for integers."""
    rng = np.random.default_rng(seed)

    def shape(spec: TensorSpec) -> tuple[int, ...]:
        sizes = {d: SIZE for d in spec.shape if isinstance(d, str)}
        if signature.is_streaming:
            return (n, STEPS, *spec.concrete())
        return (n, *spec.concrete(**sizes)[1:]) if isinstance(spec.shape[0], str) else (n, *spec.concrete(**sizes))

    return tuple(draw(rng, shape(spec), spec.dtype) for spec in signature.inputs)


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Normal numbers, or 0 and 1 where `dtype` is no floating-point type (indices have to stay in range)."""
    if np.issubdtype(np.dtype(dtype), np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def steps_of(clips: np.ndarray, clip_spec: TensorSpec, step_spec: TensorSpec) -> np.ndarray:
    """Whole inputs (n, …) cut along their time axis "T" into the steps of a stream: (n, steps, *step shape)."""
    if "T" not in clip_spec.axes.split():
        raise PreconditionError(
            f"parity: input {clip_spec.name} must name its time axis T, got axes {clip_spec.axes!r}; add it to the signature"
        )
    axis = clip_spec.axes.split().index("T")
    frames = np.moveaxis(np.asarray(clips, np.float32), axis, 1)
    return np.ascontiguousarray(frames.reshape(frames.shape[0], frames.shape[1], *step_spec.concrete()))


def step_vs_clip(bundle: Bundle, inputs: np.ndarray | int = 4, bound: float = 1e-4) -> Parity:
    """Stream whole inputs through the step form and compare with the clip form, both in memory.

    Look-ahead is flushed by the module's own `flush(*state)` where it has one, else by frames of zeros. A clip output without
    a time axis is compared with the last decision of the stream.

    Raises PreconditionError (the model lacks one of the forms) or ParityError.
    """
    import torch

    if bundle.clip is None or not bundle.signature.is_streaming:
        raise PreconditionError(f"parity: {bundle.name} must have a clip and a stream form, got one; nothing to compare")
    signature, whole, module = bundle.signature, bundle.clip, bundle.module
    clips = random_inputs(whole, inputs)[0] if isinstance(inputs, int) else np.asarray(inputs, np.float32)
    frames = steps_of(clips, whole.inputs[0], signature.inputs[0])
    period = signature.period_s or 1.0
    lookahead = round(signature.lookahead_s / period)
    flush = getattr(module, "flush", None)
    if lookahead and flush is None:
        frames = np.concatenate([frames, np.zeros_like(frames[:, :lookahead])], axis=1)

    def call(*x: np.ndarray) -> Arrays:
        return tuple(y.numpy() for y in module(*map(torch.from_numpy, x)))

    with torch.no_grad():
        expected = module.clip(torch.from_numpy(clips)).numpy()  # type: ignore[operator]
        outputs = stream(call, signature, (frames,))
        got = outputs[0]
        if lookahead and flush is not None:
            last = [[torch.from_numpy(s[i, -1]) for s in outputs[len(signature.outputs) :]] for i in range(len(got))]
            tails = np.concatenate([flush(*state)[0].numpy() for state in last])
            got = np.concatenate([got, steps_of(tails, signature.outputs[0], signature.outputs[0])], axis=1)
    delayed = got[:, lookahead:]
    if "T" in whole.outputs[0].axes.split():
        got = np.moveaxis(delayed, 1, whole.outputs[0].axes.split().index("T")).reshape(expected.shape)
    else:
        got = delayed[:, -1].reshape(expected.shape)
    return compare(
        (whole.outputs[0].name,), (expected,), (got,), bound, reference="the clip form", runtime="torch", who="stream form"
    )


def runner(content: bytes, signature: Signature, optimise: bool = True, operators: Path | None = None) -> Callable[..., Arrays]:
    """A graph as a function in onnxruntime (CPU, one thread): inputs to outputs in the order of `signature`, states last."""
    session = _session(content, optimise, operators)

    def run(*x: np.ndarray) -> Arrays:
        return tuple(session.run(list(signature.output_names), dict(zip(signature.input_names, x, strict=True))))

    return run


def run_once(content: bytes, inputs: Sequence[np.ndarray]) -> Arrays:
    """A graph's outputs in onnxruntime, as it stands (no graph optimisations); inputs in the graph's order."""
    session = _session(content, optimise=False)
    return tuple(session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)}))


def _session(content: bytes, optimise: bool, operators: Path | None = None) -> Any:
    options = session_options(optimise=optimise)
    if operators is not None:
        native.register(options, operators)
    try:
        return open_session(content, options)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        reason = str(error).strip().splitlines()[0]
        raise ParityError(f"parity: onnxruntime must load the file, got: {reason}; this is a fault of the export") from error


def _version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def compare(
    names: Sequence[str], expected: Arrays, got: Arrays, relative: float, reference: str, runtime: str, who: str
) -> Parity:
    """The output whose difference is largest against its bound decides."""
    worst, culprit = None, ""
    agreement, decided = _agreement(expected[0], got[0], relative)
    for name, a, b in zip(names, expected, got, strict=True):
        if a.shape != b.shape:
            raise ParityError(f"parity: {name} of the {who} must have shape {a.shape}, got {b.shape}; do not use this file")
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        scale = float(np.abs(wide_a).max(initial=0.0))
        bound = max(relative * scale, _FLOOR) if relative else 0.0
        difference = float(np.abs(wide_a - wide_b).max(initial=0.0))
        parity = Parity(reference, runtime, len(a), difference, scale, bound, agreement)
        if not np.isfinite(difference):
            raise ParityError(f"parity: output {name} of the {who} must be finite, got NaN or infinity; do not use this file")
        if worst is None or _excess(parity) > _excess(worst):
            worst, culprit = parity, name
    assert worst is not None
    if not worst.passed:
        promise = f"differ from {reference} by at most {worst.bound:.1e}" if worst.bound else f"equal {reference} bit for bit"
        raise ParityError(
            f"parity: output {culprit} of the {who} must {promise}, "
            f"got {worst.max_abs:.1e} of {worst.scale:.2g} over n={worst.n}; do not use this file"
        )
    if decided < MIN_AGREEMENT:
        raise ParityError(
            f"parity: the decision of the {who} must agree with {reference} for {MIN_AGREEMENT:.0%} of clear inputs, "
            f"got {decided:.0%} over n={worst.n}; do not use this file"
        )
    return worst


def _excess(parity: Parity) -> float:
    """The difference in units of the bound; where none is allowed, in its own."""
    return parity.max_abs / (parity.bound or 1.0)


def _agreement(expected: np.ndarray, got: np.ndarray, relative: float) -> tuple[float, float]:
    """Share of inputs with the same arg-max of the last axis (streams: at the last step): of all, and of clear ones."""
    if expected.ndim < 2 or expected.shape[-1] < 2 or expected.shape != got.shape:
        return 1.0, 1.0
    classes = expected.shape[-1]
    a, b = (x.reshape(len(x), -1, classes)[:, -1] for x in (expected, got))
    same = a.argmax(-1) == b.argmax(-1)
    top = np.sort(a, axis=-1)
    clear = top[:, -1] - top[:, -2] > 0.5 * relative * np.abs(expected).max(initial=0.0)
    return float(same.mean()), float(same[clear].mean()) if clear.any() else 1.0


__all__ = ["BOUNDS", "compare", "initial_state", "prove", "random_inputs", "run_once", "runner", "step_vs_clip", "steps_of"]
