"""A model as a function from features to class scores, whatever its body is, and its score on a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Data
from edgetk.core.errors import InputError, PostconditionError
from edgetk.core.figures import Score
from edgetk.core.signature import Signature
from edgetk.toolkit.calling import start, symbols

if TYPE_CHECKING:
    import torch

    Predict = Callable[[torch.Tensor], torch.Tensor]
    Step = Callable[..., list[torch.Tensor]]


def predictor(bundle: Bundle) -> Predict:
    """Features (N, …) -> class scores (N, K), on the CPU, without gradients.

    A torch model is called in its first form; an ONNX graph is run by onnxruntime, one stream per example where it is a
    step graph (see `stream_scores`).
    """
    import torch

    if not bundle.is_torch:
        return graph_predictor(bundle.body.SerializeToString(), bundle.signature)
    form, module = bundle.forms()[0], bundle.module

    def step(*inputs: torch.Tensor) -> list[torch.Tensor]:
        return list(form.call(*inputs))

    def run(features: torch.Tensor) -> torch.Tensor:
        module.eval()
        with torch.no_grad():
            if form.signature.is_streaming:
                return stream_scores(step, form.signature, features)
            return form.call(features)[0]

    return run


def graph_predictor(content: bytes, signature: Signature) -> Predict:
    """The same for the content of an ONNX file. Raises InputError where onnxruntime refuses it."""
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        reason = str(error).splitlines()[0]
        raise InputError(f"evaluate: the graph must load in onnxruntime, got: {reason}; export it again") from error
    if signature.is_streaming:

        def step(*inputs: torch.Tensor) -> list[torch.Tensor]:
            feed = {name: x.numpy() for name, x in zip(signature.input_names, inputs, strict=True)}
            return [torch.from_numpy(y) for y in session.run(list(signature.output_names), feed)]

        return lambda features: stream_scores(step, signature, features)
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


def stream_scores(step: Step, signature: Signature, features: torch.Tensor) -> torch.Tensor:
    """One stream per example: frames (N, T, …) pushed one by one, the last decision kept, (N, K).

    A model that looks ahead gets the missing frames as zeros at the end; where it has a `state_valid`, its first number is 0
    for those frames, so that they count as beyond the clip.
    """
    import torch

    behind = round(signature.lookahead_s / signature.period_s) if signature.period_s else 0
    count = len(signature.outputs)
    sizes = symbols(signature, 1)
    shape = signature.inputs[0].concrete(**sizes)
    valid = next((i for i, state in enumerate(signature.state) if state.name == "state_valid"), None)
    scores = []
    for clip in features:
        states = [start(state, sizes) for state in signature.state]
        outputs: list[torch.Tensor] = []
        for index, frame in enumerate(torch.cat([clip, clip.new_zeros((behind, *clip.shape[1:]))])):
            if index == len(clip) and valid is not None:
                states[valid] = states[valid].clone()
                states[valid].view(-1)[0] = 0
            outputs = step(frame.reshape(shape), *states)
            states = outputs[count:]
        scores.append(outputs[0].reshape(1, -1))
    return torch.cat(scores)


def evaluate(predict: Predict, task: str, data: Data, split: str, official_only: bool = True) -> Score:
    """The task's score of `predict` on a split of its data. Raises InputError for a split without examples."""
    score: Score = registry.load("task", task).score(predict, data.split(split), official_only)
    if not score.n:
        raise InputError(f"evaluate: the {split} split of {data.origin} must hold examples, got none; choose other data")
    return score


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
