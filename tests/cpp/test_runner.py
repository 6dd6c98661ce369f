"""The C++ runner gives the numbers of Python: the same bits in the same ONNX Runtime, frames within 1e-4, equal detections."""

from __future__ import annotations

import copy
import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cpp_build import Done, run

from edgetk.core.bundle import Bundle
from edgetk.core.runtime_options import session_options
from edgetk.export import cpp_project
from edgetk.export.lower import lower
from edgetk.quant.quantize import Quantize
from edgetk.targets import board
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.detect import Rule, detections, smoothed
from edgetk.tasks.speech.log_mel import LogMel, StreamingLogMel
from edgetk.tasks.speech.words import WORDS_16
from edgetk.tasks.speech_commands import TASK
from edgetk.toolkit.tiny import tiny_bundle

Array = np.ndarray
Call = Callable[..., Done]


def model(project: Path) -> Path:
    return project / "model" / "model.stream.onnx"


def numbers(done: Done) -> Array:
    return np.array([[float(v) for v in line.split()] for line in done.stdout.splitlines()], np.float32)


def write_wav(path: Path, samples: Array, rate: int = fe.SAMPLE_RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def spoken(n: int) -> Array:
    """`n` real clips of the embedded sample after one another, with half a second of faint noise between: int16."""
    waves = TASK.open(None).waves("test")
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 20, 8000).astype(np.int16)]
    for i in rng.permutation(len(waves))[:n]:
        parts += [waves.samples[int(i)].numpy(), rng.normal(0, 20, 8000).astype(np.int16)]
    return np.concatenate(parts)


def write(files: dict[str, bytes], folder: Path) -> Path:
    """Model and test data of a project, without compiling another one."""
    for name, content in files.items():
        if name.startswith(("model/", "testdata/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return next(folder.glob("model/*.onnx"))


def made(bundle: Bundle, folder: Path, form: str = "stream") -> Path:
    host = board.load("host")
    (low,) = lower(bundle, host, (form,))
    return write(cpp_project.project(low, bundle, host, bundle.name, {}), folder)


def quantized_tiny() -> Bundle:
    bundle = replace(tiny_bundle(), task="speech-commands")  # whose top-1 judges the pass
    result = Quantize(min_weights=4, max_change=1.0, max_drop=1.0)(replace(bundle, body=copy.deepcopy(bundle.body)))
    return replace(bundle.with_body(result.body.eval()), task="")


def replays(check: Call, path: Path, exact: bool = True) -> dict[str, float]:
    """Largest difference of each array that the checks compare; the scores of streams must be equal bit for bit."""
    folder = path.parents[1] / "testdata"
    largest = {}
    for name in (folder / "checks.txt").read_text().split():
        for line in check(name, path, folder).stdout.splitlines():
            assert line.endswith(": equal")
            array, _, rest = line.partition(": ")
            largest[array] = float(rest.partition("largest difference ")[2].partition(",")[0])
            assert array not in ("scores.npy", "frame_scores.npy", "outputs.npy") or not exact or largest[array] == 0
    return largest


def test_ctest_replays_the_test_data(project: Path, build: Path) -> None:
    assert (project / "testdata" / "checks.txt").read_text().split() == ["steps", "each_frame", "log_mel", "clip"]
    assert "100% tests passed, 0 tests failed out of 8" in run("ctest", "--test-dir", build).stdout


def test_lmuformer_gives_the_bits_of_python(project: Path, check: Call) -> None:
    largest = replays(check, model(project))
    assert largest["frames.npy"] <= 1e-4
    assert set(largest) == {"scores.npy", "frame_scores.npy", "frames.npy", "clip_scores.npy"}


def test_spiking_lmuformer_gives_the_bits_of_python(spiking: Bundle, check: Call, tmp_path: Path) -> None:
    path = made(replace(spiking, task=""), tmp_path)  # a toy of 6 features: no front end makes them
    assert json.loads((tmp_path / "testdata" / "bounds.json").read_text())["scores"] == 0
    assert set(replays(check, path)) == {"scores.npy", "frame_scores.npy"}


def test_int8_stream_without_lookahead_gives_the_bits_of_python(check: Call, tmp_path: Path) -> None:
    path = made(quantized_tiny(), tmp_path)
    assert b"QuantizeLinear" in path.read_bytes()
    assert set(replays(check, path)) == {"scores.npy"}


def test_a_model_without_states_is_run_at_once(check: Call, tmp_path: Path) -> None:
    assert set(replays(check, made(tiny_bundle(), tmp_path, "clip"))) == {"outputs.npy"}


def test_a_changed_number_fails_the_check(project: Path, check: Call, tmp_path: Path) -> None:
    rows = np.load(project / "testdata" / "scores.npy")
    for file in (project / "testdata").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for changed in (rows[:-1], np.where(np.arange(rows.size).reshape(rows.shape) == 17, np.nan, rows), rows + np.float32(0.01)):
        (tmp_path / "scores.npy").write_bytes(cpp_project.npy(changed))
        done = check("steps", model(project), tmp_path, ok=False)
        assert done.returncode == 1
        assert "NOT EQUAL" in done.stdout + done.stderr or "got more" in done.stderr


def test_streams_do_not_share_states_and_outlive_their_model(project: Path, drive: Call) -> None:
    features = project / "testdata" / "features.npy"
    apart = numbers(drive("steps", model(project), features, "running"))
    together = numbers(drive("two", model(project), features))
    assert np.array_equal(together, apart[: len(together)])
    assert len(apart) == len(together) + 5  # what the flush of the first one brings


def test_log_mel_equals_python_on_every_kind_of_sound(project: Path, drive: Call, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    time = np.arange(8000) / fe.SAMPLE_RATE
    sounds = {
        "speech": spoken(3),
        "silence": np.zeros(2000),
        "one step": np.where(np.arange(2000) < 700, 0, 1),
        "noise": rng.normal(0, 9000, 8000).clip(-32768, 32767),
        "clipped sine": np.clip(1e5 * np.sin(2 * np.pi * 440 * time), -32768, 32767),
        "offset": 12000 + rng.normal(0, 3, 4000),
        "too short": np.ones(399),
    }
    for piece, (name, samples) in zip((160, 1, 7, 399, 400, 401, 50), sounds.items(), strict=True):
        samples = np.round(samples).astype(np.int16)
        got = numbers(drive("frames", model(project), write_wav(tmp_path / "a.wav", samples), piece))
        waves = torch.from_numpy(samples.astype(np.float32) / 32768)
        with torch.no_grad():
            single, double = (StreamingLogMel(front).push(waves).numpy() for front in (LogMel(), LogMel().double()))
        assert len(got) == len(single) == len(double), name
        if len(single):
            assert np.abs(got - double).max() <= 1e-4, name
            assert np.abs(got - single).max() <= 3e-4, name  # how a float32 FFT rounds depends on the processor


@pytest.mark.parametrize(("window", "hold", "refractory", "words"), [(5, 1, 9, ()), (1, 3, 0, ()), (8, 2, 30, WORDS_16[::2])])
def test_detections_are_those_of_the_definition(
    project: Path, drive: Call, tmp_path: Path, window: int, hold: int, refractory: int, words: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(window)
    rows = (2 * rng.normal(0, 3, (400, 16)).cumsum(0) / np.sqrt(1 + np.arange(400))[:, None]).astype(np.float32)
    (tmp_path / "rows.npy").write_bytes(cpp_project.npy(rows))
    done = drive("detect", model(project), tmp_path / "rows.npy", window, 0.9, hold, refractory, *words)
    first, second, _ = done.stdout.split("again\n")
    assert first == second  # reset() forgets
    wanted = detections(smoothed(rows, window), Rule(window, 0.9, hold, refractory, words), WORDS_16)
    got = [line.split() for line in first.splitlines()]
    assert len(wanted) > 2
    assert [(int(g[0]), int(g[1])) for g in got] == [(w.step, w.label) for w in wanted]
    np.testing.assert_allclose([float(g[2]) for g in got], [w.score for w in wanted], rtol=1e-12)
    np.testing.assert_allclose([float(g[3]) for g in got], [w.heard_s(5) for w in wanted], atol=1e-6)


def listened(project: Path, samples: Array, rule: Rule) -> list[tuple[int, str]]:
    """Step and word of each detection, computed by Python from the same file."""
    with torch.no_grad():
        frames = StreamingLogMel(LogMel()).push(torch.from_numpy(samples.astype(np.float32) / 32768)).numpy()
    session = onnxruntime.InferenceSession(model(project), session_options(), providers=["CPUExecutionProvider"])
    meta = json.loads(session.get_modelmeta().custom_metadata_map["signature"])
    first = {s["name"]: np.resize(np.array(s["init"] or [0], np.float32), s["shape"]) for s in meta["state"]}
    state, rows = dict(first), []
    for frame in [*frames, *np.zeros((5, 128), np.float32)]:
        if len(rows) == len(frames):
            state["state_valid"][0, 0] = 0
        fed = {name: first[name] if name.startswith("state_head_") else value for name, value in state.items()}
        names = ["logits", *(f"{name}_out" for name in first)]
        logits, *after = session.run(names, {"features": frame[None, None], **fed})
        state = dict(zip(first, after, strict=True))
        rows.append(logits[0, 0])
    wanted = detections(smoothed(np.array(rows[5:]), rule.window), rule, WORDS_16)
    return [(w.step, WORDS_16[w.label]) for w in wanted]


def test_listening_detects_what_python_detects(project: Path, build: Path, tmp_path: Path) -> None:
    samples = spoken(6)
    sound = write_wav(tmp_path / "speech.wav", samples)
    listen = build / "edgetk_listen"
    options = ("--threshold", "0.7", "--window", "60", "--hold", "2", "--refractory", "80")
    done = run(listen, *options, sound)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(f["step"], f["label"]) for f in found] == listened(project, samples, Rule(60, 0.7, 2, 80))
    assert len(found) >= 4
    assert all(f["heard_s"] == pytest.approx(f["step"] * 0.01 + 0.075) and 0.7 <= f["score"] <= 1 for f in found)
    assert run(listen, *options, "-", stdin=samples.astype("<i2").tobytes()).stdout == done.stdout
    only = run(listen, *options, "--word", found[0]["label"], sound).stdout.splitlines()
    assert {json.loads(line)["label"] for line in only} == {found[0]["label"]}

    summary = json.loads(done.stderr)
    assert summary["runtime"] == f"ONNX Runtime {onnxruntime.__version__}"
    assert summary["audio_s"] == pytest.approx(len(samples) / 16000, abs=1e-3)
    assert summary["detections"] == len(found)
    hops = summary["hop_us"]
    assert hops["n"] == -(-len(samples) // 160)
    assert 0 < hops["p50"] <= hops["p99"] <= 1.03 * hops["max"]
    assert summary["real_time_factor"] == pytest.approx(summary["duty_cycle"], rel=0.01)
    assert summary["duty_cycle"] == pytest.approx(hops["mean"] * 1e-6 / 0.01, rel=0.01)


def test_a_clip_gets_the_scores_of_evaluate(project: Path, build: Path) -> None:
    scores = json.loads(run(build / "edgetk_listen", "--clip", project / "testdata" / "clip.wav").stdout)["scores"]
    wanted = np.load(project / "testdata" / "clip_scores.npy")[-1]
    assert tuple(scores) == WORDS_16
    np.testing.assert_allclose(list(scores.values()), wanted, atol=1e-3)


def test_a_step_allocates_nothing(project: Path, drive: Call) -> None:
    done = drive("allocations", model(project), project / "testdata" / "clip.wav")
    assert done.stdout == "100 hops, 0 allocations; making a stream: some\n"


def test_json_comes_through_unchanged(drive: Call) -> None:
    value: Any = {"a": [1, -2.5e-3, 'é😀\n"\\', True, False, None, {}, []], "ключ": {"b": [[[0.1]]]}}
    for ascii_only in (True, False):
        assert json.loads(drive("json", json.dumps(value, ensure_ascii=ascii_only)).stdout) == value


def test_metadata_is_read_with_defaults(drive: Call) -> None:
    assert drive("metadata").stdout == "model|unknown||1|0|0|0|class 0|class 1|0|0\n"
    state = {
        "name": "state_a",
        "output": "state_a_out",
        "shape": [1, 2],
        "init": [0.5, -1],
        "dtype": "float32",
        "holds": "values",
    }
    texts = [
        "model_type=net",
        "quantization=int8",
        "labels=yes\nno",
        "period_s=0.01",
        "lookahead_s=0.05",
        f"states={json.dumps([state])}",
    ]
    assert drive("metadata", *texts, 'front_end={"kind": "other"}').stdout == "net|int8|other|1|0.01|0.05|5|yes|no|0.5|-1\n"
    assert drive("metadata", 'labels=["a", "b"]').stdout.endswith("|a|b|0|0\n")
