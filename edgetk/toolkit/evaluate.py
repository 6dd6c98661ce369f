"""A model as a function from features to class scores, at the end or after every frame, and its score on a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Data, Split
from edgetk.core.errors import InputError, PostconditionError, PreconditionError
from edgetk.core.figures import Score
from edgetk.core.runtime_options import open_session, session_options
from edgetk.core.signature import Signature
from edgetk.toolkit.calling import start, symbols

if TYPE_CHECKING:
    import torch

    Predict = Callable[[torch.Tensor], torch.Tensor]
    Step = Callable[..., Sequence[torch.Tensor]]


def predictor(bundle: Bundle) -> Predict:
    """Features (N, …) -> class scores (N, K), on the CPU, without gradients.

    A torch model is called in its first form; an ONNX graph is run by onnxruntime, one stream per example where it is a
    step graph (see `decisions`).
    """
    import torch

    if not bundle.is_torch:
        return graph_predictor(bundle.body.SerializeToString(), bundle.signature)
    form, module = bundle.forms()[0], bundle.module

    def run(features: torch.Tensor) -> torch.Tensor:
        module.eval()
        with torch.no_grad():
            if form.signature.is_streaming:
                return _stream(bundle, features)[:, -1]
            return form.call(features)[0]

    return run


def decider(bundle: Bundle) -> Predict:
    """Features (N, T, …) -> class scores after every token (N, T, K): row n is what a stream has decided after n + 1 tokens.

    A torch module that offers `running(x (B, T, …)) -> (B, T, K)` gives them at once; any other model is run step by step.
    Raises PreconditionError for a model without a stream form, or whose stream does not say its period.
    """
    import torch

    signature = bundle.signature
    if not signature.is_streaming:
        raise PreconditionError(
            f"evaluate: model {bundle.name} must have a stream form to decide early, got one for whole inputs alone; "
            "choose a streaming model, or its .stream.onnx"
        )
    if not signature.period_s:
        raise PreconditionError(
            f"evaluate: the stream of model {bundle.name} must say its period, got none, so its look-ahead is not known; "
            "set period_s in its signature"
        )
    if not bundle.is_torch:
        step = _graph_step(load_session(bundle.body.SerializeToString()), signature)
        return lambda features: decisions(step, signature, features)
    module = bundle.module
    whole = getattr(module, "running", None)

    def run(features: torch.Tensor) -> torch.Tensor:
        module.eval()
        with torch.no_grad():
            scores: torch.Tensor = whole(features) if whole is not None else _stream(bundle, features)
        return scores

    return run


def graph_predictor(content: bytes, signature: Signature) -> Predict:
    """`predictor` for the content of an ONNX file. Raises InputError where onnxruntime refuses it."""
    import torch

    session = load_session(content)
    if signature.is_streaming:
        step = _graph_step(session, signature)
        return lambda features: decisions(step, signature, features)[:, -1]
    name = signature.input_names[0]
    fixed = signature.inputs[0].shape[0]

    def run(features: torch.Tensor) -> torch.Tensor:
        size = fixed if isinstance(fixed, int) else len(features)
        parts = [features[i : i + size] for i in range(0, len(features), max(size, 1))]
        if isinstance(fixed, int) and parts and len(parts[-1]) < size:
            raise InputError(
                f"evaluate: examples must fill batches of {size}, got {len(features)}; export with a free batch size"
            )
        return torch.cat([torch.from_numpy(session.run(None, {name: part.numpy()})[0]) for part in parts])

    return run


def lookahead(signature: Signature) -> int:
    """How many steps a stream's output is behind its newest input."""
    return round(signature.lookahead_s / signature.period_s) if signature.period_s else 0


def decisions(step: Step, signature: Signature, features: torch.Tensor, flush: Step | None = None) -> torch.Tensor:
    """One stream per example: frames (N, T, …) pushed one by one, the decision after each token, (N, T, K).

    A model that looks ahead gives its first decisions late and the last ones when the stream ends: by `flush(*state)`, or else
    by frames of zeros; where it has a `state_valid`, its first number is 0 for those frames, so that they count as beyond the
    clip. Raises PostconditionError where `flush` gives more or fewer than are missing.
    """
    import torch

    from edgetk.export.parity import steps_of

    behind, count = lookahead(signature), len(signature.outputs)
    sizes = symbols(signature, 1)
    shape, spec = signature.inputs[0].concrete(**sizes), signature.outputs[0]
    valid = next((i for i, state in enumerate(signature.state) if state.name == "state_valid"), None)
    streams = []
    for clip in features:
        states = [start(state, sizes) for state in signature.state]
        rows: list[torch.Tensor] = []
        missing = 0 if flush else behind
        for index, frame in enumerate(torch.cat([clip, clip.new_zeros((missing, *clip.shape[1:]))])):
            if index == len(clip) and valid is not None:
                states[valid] = states[valid].clone()
                states[valid].view(-1)[0] = 0
            outputs = step(frame.reshape(shape), *states)
            states = list(outputs[count:])
            rows.append(outputs[0].reshape(1, -1))
        if flush and behind:
            tail = steps_of(flush(*states)[0].numpy(), spec, spec)
            rows.append(torch.from_numpy(tail).reshape(tail.shape[1], -1))
        stream = torch.cat(rows)[behind:]
        if len(stream) != len(clip):
            raise PostconditionError(
                f"evaluate: flush must give the {behind} decisions that wait for look-ahead, "
                f"got {behind + len(stream) - len(clip)}; correct the model"
            )
        streams.append(stream)
    return torch.stack(streams)


def _stream(bundle: Bundle, features: torch.Tensor) -> torch.Tensor:
    """`decisions` of a torch model: whole inputs (N, …) cut along the time axis that its clip form names, if it has one."""
    import torch

    from edgetk.export.parity import steps_of

    signature, module = bundle.signature, bundle.module
    if bundle.clip is not None:
        features = torch.from_numpy(steps_of(features.numpy(), bundle.clip.inputs[0], signature.inputs[0]))
    return decisions(module, signature, features, getattr(module, "flush", None))


def load_session(content: bytes) -> Any:
    """An ONNX file in onnxruntime on one thread. Raises InputError where it refuses it."""

    try:
        return open_session(content, session_options())
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        reason = str(error).splitlines()[0]
        raise InputError(f"evaluate: the graph must load in onnxruntime, got: {reason}; export it again") from error


def _graph_step(session: Any, signature: Signature) -> Step:
    import torch

    def step(*inputs: torch.Tensor) -> list[torch.Tensor]:
        feed = {name: x.numpy() for name, x in zip(signature.input_names, inputs, strict=True)}
        return [torch.from_numpy(y) for y in session.run(list(signature.output_names), feed)]

    return step


def evaluate(predict: Predict, task: str, data: Data, split: str, official_only: bool = True) -> Score:
    """The task's score of `predict` on a split of its data. Raises InputError for a split without examples."""
    return score(predict, task, data.split(split), data.origin, official_only)


def score(predict: Predict, task: str, split: Split, origin: str, official_only: bool = True) -> Score:
    """The same for a split that is at hand, of the data called `origin`."""
    found: Score = registry.load("task", task).score(predict, split, official_only)
    if not found.n:
        raise InputError(f"evaluate: the {split.name} split of {origin} must hold examples, got none; choose other data")
    return found


def ranked(scores: torch.Tensor, labels: Sequence[str], who: str) -> list[tuple[str, float]]:
    """Labels (or class numbers, where there are none) with the scores (1, K) of one example, best first.

    Raises PostconditionError unless the scores are one row of finite numbers, one per label.
    """
    finite = bool(scores.isfinite().all())
    if scores.ndim != 2 or len(scores) != 1 or len(labels) not in (0, scores.shape[1]) or not finite:
        raise PostconditionError(
            f"{who}: must give one finite score per class of one example (1, {len(labels) or 'classes'}), "
            f"got {tuple(scores.shape)}{'' if finite else ' with NaN or infinity'}; correct the model's output"
        )
    names = labels or [f"class {i}" for i in range(scores.shape[1])]
    return sorted(zip(names, scores[0].tolist(), strict=True), key=lambda pair: -pair[1])
