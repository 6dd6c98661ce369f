"""The proof: equal where equal, and one clear text where not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_toys import causal, plain, quantized, target
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from edgetk.core.contracts import Lowered
from edgetk.core.errors import ParityError, PreconditionError
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.export import parity
from edgetk.export.lower import lower


@cache
def stream() -> Lowered:
    return lower(causal(), target(), ["stream"])[0]


@cache
def linear() -> Lowered:
    torch.manual_seed(0)
    return lower(plain(nn.Linear(3, 4), (3,), (4,)), target())[0]


def changed(low: Lowered, name: str, change: Any) -> bytes:
    """The file with one of its weights changed."""
    model = onnx.ModelProto()
    model.CopyFrom(low.graph)
    tensor = next(i for i in model.graph.initializer if i.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    return model.SerializeToString()


@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 40), streams=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_streams_of_any_length_are_equal(steps: int, streams: int, seed: int) -> None:
    frames = np.random.default_rng(seed).standard_normal((streams, steps, 1, 1, 5)).astype(np.float32)
    proof = parity.prove(stream(), stream().graph, [frames])
    assert proof.passed
    assert proof.n == streams
    assert proof.agreement == 1.0
    assert 0 < proof.scale < 10


def test_says_how_it_was_proven() -> None:
    proof = parity.prove(linear(), linear().graph, 5)
    assert proof.n == 5
    assert proof.bound == pytest.approx(1e-4 * proof.scale)
    assert proof.runtime.startswith("onnxruntime 1.")
    assert proof.runtime.endswith("CPU, 1 thread, all graph optimisations")
    assert parity.prove(linear(), linear().graph, 1, optimise=False).runtime.endswith("no graph optimisations")


def test_a_wrong_weight_is_found_in_the_output() -> None:
    content = changed(linear(), "weight", lambda w: w * 1.01)
    with pytest.raises(
        ParityError, match=r"parity: output y of the clip form \(float32\) must differ from the model in memory"
    ):
        parity.prove(linear(), content)


def test_a_state_that_is_not_fed_back_rightly_is_found() -> None:
    content = changed(stream(), "gate.bias", lambda w: w + 0.5)
    with pytest.raises(ParityError, match=r"of the stream form .* at most .*, got .* over n=2; do not use this file"):
        parity.prove(stream(), content, 2)


def test_nan_is_not_equal() -> None:
    content = changed(linear(), "bias", lambda b: np.full_like(b, np.nan))
    with pytest.raises(ParityError, match=r"output y of the clip form .* must be finite, got NaN or infinity"):
        parity.prove(linear(), content)


def test_a_wrong_shape_is_not_equal() -> None:
    low = linear()
    other = replace(low, reference=lambda x: (np.zeros((len(x), 5), np.float32),))
    with pytest.raises(ParityError, match=r"y of the clip form .* must have shape \(8, 5\), got \(8, 4\)"):
        parity.prove(other, low.graph)


def test_int8_decisions_must_agree() -> None:
    low = lower(quantized(), target())[0]
    assert low.reference is not None
    reference = low.reference

    def near(x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Within the bound, but the runner-up wins."""
        y = reference(x)[0].copy()
        best, second = np.argsort(y, axis=-1)[:, ::-1][:, :2].T
        rows = np.arange(len(y))
        y[rows, second] = y[rows, best] + 0.03 * np.abs(y).max()
        y[:] = np.clip(y, None, y[rows, second][:, None])
        return (y,)

    far = replace(low, reference=near)
    inputs = parity.random_inputs(low.signature, 64)[0]
    gap = np.sort(reference(inputs)[0], axis=-1)
    close = (gap[:, -1] - gap[:, -2]) < 0.01 * np.abs(gap).max()
    assert close.any()
    with pytest.raises(
        ParityError, match=r"decision of the clip form \(int8\) must agree .* for 95% of clear inputs, got \d+%"
    ):
        parity.prove(far, low.graph, [inputs[close]])


def test_a_file_that_does_not_load_is_said() -> None:
    with pytest.raises(ParityError, match=r"onnxruntime must load the file, got: .*; this is a fault of the export"):
        parity.prove(linear(), b"not a graph")


def test_other_runtimes_are_refused() -> None:
    with pytest.raises(PreconditionError, match="runtime must be onnxruntime, got 'tensorrt'"):
        parity.prove(linear(), linear().graph, runtime="tensorrt")


def test_initial_state_follows_the_signature() -> None:
    spec = TensorSpec("state_a", (1, 2, 2))
    signature = Signature((), (), (StateSpec(spec, (1.0, 2.0, 3.0, 4.0)), StateSpec(spec)))
    first, zero = parity.initial_state(signature)
    assert first.tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
    assert not zero.any()


def test_clips_are_cut_along_their_time_axis() -> None:
    clips = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    steps = parity.steps_of(clips, TensorSpec("x", ("batch", 2, 3), axes="B F T"), TensorSpec("x", (1, 2, 1)))
    assert steps.shape == (2, 3, 1, 2, 1)
    assert steps[0, 1].ravel().tolist() == [1.0, 4.0]
    with pytest.raises(PreconditionError, match="input x must name its time axis T, got axes 'B F'; add it"):
        parity.steps_of(clips, TensorSpec("x", (1, 2), axes="B F"), TensorSpec("x", (1, 2)))


class Delayed(nn.Module):
    """Each output is the frame one step later minus the one before it; the clip sees zeros beyond its end."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.wrong = nn.Parameter(torch.tensor(wrong))

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """x (B, 1, F), past (B, 2, F)."""
        return x - past[:, :1] + self.wrong, torch.cat([past[:, 1:], x], dim=1)

    def clip(self, x: Tensor) -> Tensor:
        wide = nn.functional.pad(x, (0, 0, 1, 1))
        return wide[:, 2:] - wide[:, :-2]


def delayed(net: nn.Module) -> Any:
    x, y = TensorSpec("x", (1, 1, 3), axes="B T F"), TensorSpec("y", (1, 1, 3), axes="B T F")
    whole = Signature((replace(x, shape=("batch", 7, 3)),), (replace(y, shape=("batch", 7, 3)),))
    stream = Signature((x,), (y,), (StateSpec(TensorSpec("state_past", (1, 2, 3))),), period_s=0.01, lookahead_s=0.01)
    return replace(causal(), name="delayed", body=net, signature=stream, clip=whole)


def test_stream_equals_clip_with_look_ahead() -> None:
    assert parity.step_vs_clip(causal()).passed
    assert parity.step_vs_clip(delayed(Delayed())).max_abs == 0.0
    with pytest.raises(ParityError, match="output y of the stream form must differ from the clip form by at most"):
        parity.step_vs_clip(delayed(Delayed(0.1)))


def test_look_ahead_is_flushed_by_the_module_where_it_can() -> None:
    class Flushing(Delayed):
        def flush(self, past: Tensor) -> tuple[Tensor, ...]:
            return self.forward(torch.full((1, 1, 3), self.last), past)

    net = Flushing()
    net.last = 0.0  # type: ignore[assignment]
    assert parity.step_vs_clip(delayed(net)).passed
    net.last = 1.0  # type: ignore[assignment]
    with pytest.raises(ParityError):
        parity.step_vs_clip(delayed(net))


def test_needs_both_forms() -> None:
    with pytest.raises(PreconditionError, match="plain must have a clip and a stream form"):
        parity.step_vs_clip(plain(nn.Linear(3, 4), (3,), (4,)))
