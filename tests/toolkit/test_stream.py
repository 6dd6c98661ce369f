"""Streams through one interface: every runtime gives the same rows, and listening gives what scoring at once gives."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import InputError, PostconditionError, UsageError
from edgetk.core.signature import TensorSpec
from edgetk.models import ecoformer
from edgetk.models.lmuformer import build
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.detect import Detector, Rule
from edgetk.tasks.speech.gate import GateRule, levels, segments
from edgetk.toolkit import stream
from edgetk.toolkit.stream_listen import Listener, Timings
from edgetk.toolkit.stream_study import frames_of

LABELS = ("yes", "no", "go")
RULE = Rule(window=10, threshold=0.6, hold=1, refractory=5)


def tiny(seed: int = 0, **config: object) -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = {"widths": (8, 8, 8, 8), "order": 8, "hidden": 8, "ffn": 8, "classes": 3, **config}
        bundle = build("xs", **shape)
        bundle.module.head.weight.detach().normal_(0, 3)
    return replace(bundle, labels=LABELS)


def tones(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of noise over a quiet background."""
    random = np.random.default_rng(seed)
    n = round(16000 * seconds)
    loud = np.repeat(random.choice([0.002, 0.2], math.ceil(n / 8000), p=[0.7, 0.3]), 8000)[:n]
    return (random.normal(0, 1, n) * loud).astype(np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny()


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return frames_of(tones(2.0))


@pytest.fixture(scope="module")
def lowered(bundle: Bundle) -> Lowered:
    """The step graph, written once: that takes longer than all the rest."""
    return stream._lowered(bundle)


def rows(steps: stream.Steps, features: np.ndarray) -> np.ndarray:
    steps.reset()
    return np.stack([steps(frame) for frame in features])


def test_rows_are_the_logits_of_single_frames(bundle: Bundle, features: np.ndarray) -> None:
    """n times the running mean minus n - 1 times the one before it."""
    got = rows(stream.of_bundle(bundle).steps, features)
    with torch.inference_mode():
        mean = bundle.module.running(torch.from_numpy(features)[None])[0].double()
    sums = mean * torch.arange(1, len(mean) + 1)[:, None]
    single = torch.diff(sums, dim=0, prepend=torch.zeros(1, 3)).numpy()
    assert not got[:5].any()  # they belong to no frame
    assert got[5:] == pytest.approx(single[:-5], abs=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "c"])
def test_every_runtime_gives_the_rows_of_torch(
    bundle: Bundle, lowered: Lowered, features: np.ndarray, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime == "c" and (shutil.which("make") is None or shutil.which("cc") is None):
        pytest.skip("no make and C compiler here")
    monkeypatch.setattr(stream, "_lowered", lambda _bundle: lowered)
    reference = stream.of_bundle(bundle)
    other = stream.of_bundle(bundle, runtime)
    for _ in range(2):  # the second time from a reset
        assert rows(other.steps, features) == pytest.approx(rows(reference.steps, features), abs=1e-4)
    assert other.runtime.startswith("onnxruntime" if runtime == "onnxruntime" else "generated C, float32")
    states = other.steps.state()
    assert set(states) == {state.name for state in bundle.signature.state}
    for name, value in reference.steps.state().items():
        assert states[name].ravel() == pytest.approx(value.ravel(), abs=1e-4), name


def test_many_frames_at_once_give_what_steps_give(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    features = frames_of(tones(4.0, seed=1))
    steps = stream.of_bundle(bundle).steps
    assert isinstance(steps, stream.TorchSteps)
    stepped = rows(steps, features)
    monkeypatch.setattr(stream, "PIECE", 130)
    monkeypatch.setattr(stream, "BEFORE", 260)
    whole = steps.whole(features)
    assert whole is not None
    assert np.abs(whole - stepped).max() < 1e-3 * np.abs(stepped).max()
    assert whole.shape == stepped.shape


def test_a_module_without_running_decisions_has_no_short_way() -> None:
    bundle = tiny()
    monkey = type("Plain", (torch.nn.Module,), {"forward": lambda self, *x: bundle.body(*x)})()
    steps = stream.TorchSteps(replace(bundle, body=monkey))
    assert steps.whole(np.zeros((3, 128), dtype=np.float32)) is None


def test_listening_in_pieces_gives_what_the_detector_gives_on_all_rows(bundle: Bundle) -> None:
    sound = tones(4.0, seed=2)
    streamed = stream.of_bundle(bundle)
    detector = Detector(RULE, LABELS)
    expected = []
    for row in rows(streamed.steps, frames_of(sound))[5:]:
        if (hit := detector.push(row)) is not None:
            expected.append((round(hit.heard_s(5), 3), LABELS[hit.label]))
    assert len(expected) > 2
    for size in (777, len(sound)):
        listener = Listener(streamed, RULE)
        got = [h for at in range(0, len(sound), size) for h in listener.push(sound[at : at + size])]
        assert [(round(h.time_s, 3), h.word) for h in got] == expected
        assert listener.sound_s == pytest.approx(4.0)
        assert listener.duty == 1.0


def test_the_gate_runs_the_network_on_its_segments_alone(bundle: Bundle) -> None:
    sound = tones(8.0, seed=4)
    gate = GateRule(margin_db=10.0, hang=20, preroll=15)
    streamed = stream.of_bundle(bundle)
    listener = Listener(streamed, RULE, gate)
    got = [h for at in range(0, len(sound), 320) for h in listener.push(sound[at : at + 320])]
    features, expected, steps = frames_of(sound), [], 0
    parts = segments(levels(sound), gate)
    assert len(parts) > 1
    for start, end in parts:
        detector = Detector(RULE, LABELS)
        steps += end - start
        for row in rows(streamed.steps, features[start:end])[5:]:
            if (hit := detector.push(row)) is not None:
                expected.append((round(hit.heard_s(5) + start * 0.01, 3), LABELS[hit.label]))
    assert expected
    assert [(round(h.time_s, 3), h.word) for h in got] == expected
    assert listener.network.n == steps < listener.front_end.n
    assert listener.duty == pytest.approx(steps / len(features))
    listener.reset()
    assert listener.push(np.zeros(3200, dtype=np.float32)) == []
    assert listener.probabilities is None


def test_samples_and_scores_must_be_finite(bundle: Bundle) -> None:
    listener = Listener(stream.of_bundle(bundle), RULE)
    with pytest.raises(
        InputError, match=r"^stream: samples must be finite, got NaN or infinity after 0.0 s; check the source$"
    ):
        listener.push(np.full(160, np.nan, dtype=np.float32))
    broken = tiny()
    torch.nn.init.constant_(broken.module.head.bias, math.inf)
    listener = Listener(stream.of_bundle(broken), RULE)
    with pytest.raises(
        PostconditionError, match=r"^model lmuformer-xs: scores must be finite, got NaN or infinity after 0.1 s; look"
    ):
        listener.push(tones(0.1))


def test_what_cannot_listen_is_refused(bundle: Bundle, lowered: Lowered) -> None:
    def refused(changed: Bundle, error: type[Exception], text: str, runtime: str | None = None) -> None:
        with pytest.raises(error, match=f"^stream: {text}$"):
            stream.of_bundle(changed, runtime)

    who = "model lmuformer-xs"
    assert bundle.clip is not None
    whole = replace(bundle, signature=bundle.clip)
    refused(
        whole,
        UsageError,
        "--runtime c needs a model with a stream form, got lmuformer-xs for whole inputs alone; leave .*",
        "c",
    )
    short = replace(bundle.clip, inputs=(TensorSpec("features", ("batch", 64, 128)),))
    refused(
        replace(bundle, signature=short),
        InputError,
        f"{who} must stream, or take clips of 128 x 128 features, got 64 x 128; choose a model of the task speech-commands",
    )
    slow = replace(bundle, signature=replace(bundle.signature, period_s=0.02))
    refused(
        slow,
        InputError,
        f"{who} must take one frame every 0.01 s, got 1 inputs every 0.02 s; choose a model of the task speech-commands",
    )
    refused(
        tiny(features=40),
        InputError,
        f"{who} must take frames of 128 log-mel bands, got 1 x 1 x 40; choose a model of the task speech-commands",
    )
    refused(replace(bundle, labels=()), InputError, f"{who} must say its labels, got none; train it: edgetk train")
    graph = replace(bundle, body=lowered.graph)
    refused(
        graph, UsageError, "--runtime torch needs a model in memory, got the graph lmuformer-xs; leave --runtime out", "torch"
    )
    with pytest.raises(UsageError, match=r"^stream: --runtime must be one of torch, onnxruntime, c, got tvm; correct it$"):
        stream.open_stream("lmuformer-xs", "tvm")


def test_timings_keep_percentiles_in_constant_memory() -> None:
    timings = Timings()
    assert timings.percentile(50) == 0.0
    for i in range(1, 1001):
        timings.add(i * 1e-5)
    assert timings.percentile(50) == pytest.approx(5e-3, rel=0.03)
    assert timings.percentile(99) == pytest.approx(9.9e-3, rel=0.03)
    assert timings.percentile(100) == pytest.approx(1e-2)
    timings.add(0.0)
    timings.add(1e6)
    assert timings.longest_s == 1e6
    assert timings.to_json()["n"] == 1002


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_model_of_whole_clips_listens_by_windows(runtime: str) -> None:
    """After a clip's frames the row is the clip's; after ten more it is that of the newest second."""
    small = ecoformer.build(
        "kws-msa", dims=[8, 8], depths=[1, 1], heads=[1, 1], mlp_ratios=[1, 1], reductions=[1, 1], classes=3
    )
    streamed = stream.of_bundle(replace(small, labels=LABELS), runtime)
    assert (streamed.lookahead, streamed.period_s) == (0, 0.01)
    assert streamed.runtime.endswith(", windows of 98 frames every 10")
    frames = frames_of(tones(1.5))
    got = rows(streamed.steps, frames)

    def clip(end: int) -> np.ndarray:
        x = np.full((128, 128), fe.PAD_NORMALISED, np.float32)
        x[:98] = frames[end - 98 : end]
        with torch.inference_mode():
            return small.module(torch.from_numpy(x)[None])[0].numpy()

    for end in (98, 108, 128):
        np.testing.assert_allclose(got[end - 1], clip(end), atol=1e-4)
    np.testing.assert_array_equal(got[98:107], np.repeat(got[97:98], 9, 0))
    assert not np.array_equal(got[97], got[107])
    np.testing.assert_array_equal(rows(streamed.steps, frames[:20]), got[:20])  # a reset forgets
