"""What the C++ runner refuses, each with one sentence: who, what must hold, what was got, what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cpp_build import Done, library, run
from test_runner import made, model, write_wav

from edgetk.toolkit.tiny import tiny_bundle

Call = Callable[..., Done]

STATE: dict[str, Any] = {"name": "state_a", "output": "state_a_out", "shape": [1, 2], "init": []}
MEL: dict[str, Any] = {"kind": "kaldi-log-mel"}


def said(done: Done) -> str:
    """The one line on stderr of a call that failed."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema_version=2", "schema_version must be 1, which this runner reads, got: 2"),
        ("period_s=soon", 'period_s must be a number from 0 on, got: "soon"'),
        ("lookahead_s=-1", 'lookahead_s must be a number from 0 on, got: "-1"'),
        ("states={}", "states must be a list, got: a JSON object"),
        ("states=[1,", 'states must be a list, got: JSON must have a value at character 3, got ""'),
        (
            "states=[{}]",
            "states must tell name, output, shape and init of each state, got: key name must be a text, got nothing",
        ),
        (STATE | {"name": "b"}, "states must name inputs of the graph, got: b"),
        (STATE | {"output": "b"}, "states must name outputs of the graph, got: b"),
        (STATE | {"shape": [2, 1]}, "states must have the graph's shapes, got: another one for state_a"),
        (STATE | {"init": [1.0]}, "states must have a first value for each number of a state, got: 1 for the 2 of state_a"),
        ("labels=one", "labels must name every class, got: 1 labels for 2 classes"),
        ("front_end=[]", "front_end must be a JSON object, got: a list"),
        (MEL | {"window": "hamming"}, 'front_end must have window "hann-symmetric", got: hamming'),
        (MEL | {"hop_samples": 0}, "front_end must have hop_samples between 1.000000 and 400.000000, got: 0.000000"),
        (MEL | {"n_fft": 500}, "front_end must have a power of two as n_fft, got: 500"),
        (MEL | {"mean": "low"}, "front_end must have mean between -1000000.000000 and 1000000.000000, got: low"),
    ],
    ids=str,
)
def test_wrong_metadata(drive: Call, text: Any, message: str) -> None:
    if isinstance(text, dict):
        text = f"front_end={json.dumps(text)}" if "kind" in text else f"states={json.dumps([text])}"
    assert said(drive("metadata", text, ok=False)) == f"model m.onnx: metadata {message}; export the model again"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a" 1}', "a colon"),
        ("[1 2]", "a closing bracket"),
        ('{"a":1', "a closing brace"),
        ('"a', "a closing quote"),
        ('"\\x"', "an escape"),
        ('"\\u00g0"', "four hex digits"),
        ("{1:2}", "a text in quotes"),
        ("1 2", "the end"),
        ("[" * 100, "fewer levels"),
        ("", "a value"),
    ],
)
def test_broken_json(drive: Call, text: str, wanted: str) -> None:
    assert said(drive("json", text, ok=False)).startswith(f"JSON must have {wanted} at character ")


MUST = "stream of lmuformer-xs: "


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("after flush", f"{MUST}must go on before its end, got more after flush(); call reset() first"),
        (
            "run a stream",
            "model lmuformer-xs: must be one input without states to be run at once, got 1 and 9 states; use stream()",
        ),
    ],
)
def test_misuse_of_a_stream(project: Path, drive: Call, how: str, message: str) -> None:
    assert said(drive("misuse", model(project), how, ok=False)) == message


def test_misuse_of_models_without_what_is_asked(drive: Call, tmp_path: Path) -> None:
    clip, stream = made(tiny_bundle(), tmp_path / "clip", "clip"), made(tiny_bundle(), tmp_path / "stream")
    for path, how, message in (
        (clip, "stream a clip", "stream of tiny: the model must have states, got none; "
         "export its stream form (model.stream.onnx)"),
        (clip, "short input", "model tiny: must be given 24 numbers, got 1; give one whole input"),
        (stream, "hear features", "stream of tiny: the model must name the front end kaldi-log-mel to hear samples, got none; "
         "push its features with step()"),
        (stream, "each frame", "stream of tiny: the model must have states named state_head_… to score each frame, got none; "
         "use its running decision"),
    ):  # fmt: skip
        assert said(drive("misuse", path, how, ok=False)) == message


def test_front_end_and_input_must_fit(project: Path, drive: Call, tmp_path: Path) -> None:
    graph = onnx.load(model(project))
    for entry in graph.metadata_props:
        if entry.key == "front_end":
            entry.value = json.dumps(json.loads(entry.value) | {"n_mels": 64})
    onnx.save(graph, tmp_path / "m.onnx")
    message = said(drive("misuse", tmp_path / "m.onnx", "after flush", ok=False))
    assert message == f"{MUST}the model must take the 64 bands of its front end, got an input of 128 numbers; export it again"


def test_files_that_are_no_models(drive: Call, tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("no graph")
    integers = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> m (int64[2] x) => (int64[2] y) { y = Neg(x) }')
    onnx.save(integers, tmp_path / "integers.onnx")
    messages = {}
    for name in ("absent", "empty", "text", "integers"):
        path = tmp_path / f"{name}.onnx"
        messages[name] = said(drive("misuse", path, "after flush", ok=False)).replace(str(path), "FILE")
    assert messages["absent"] == "model FILE: must be a readable ONNX file, got no such file; check the path"
    assert messages["empty"] == "model FILE: must be a readable ONNX file, got nothing in it; check the path"
    assert messages["text"].startswith("model FILE: must be a model that ONNX Runtime 1.")
    assert messages["text"].endswith("; export it again, or update the runtime")
    wanted = "model FILE: x must be a float32 tensor, got another type; export it with float32 inputs and outputs"
    assert messages["integers"] == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 0.8, 1, 1), "window must be at least 1 steps, got 0; raise it"),
        ((1, 0.8, 0, 1), "hold must be at least 1 steps, got 0; raise it"),
        ((1, 0.8, 1, -1), "refractory must be at least 0 steps, got -1; raise it"),
        ((1, 1.0, 1, 1), "threshold must be a probability between 0 and 1, got 1.000000; 0.8 is one"),
        ((1, 0.8, 1, 1, "stopp"), 'a watched word must be a label of the model, got "stopp"; known: zero, one, '),
    ],
)
def test_impossible_rules(project: Path, drive: Call, settings: tuple[object, ...], message: str) -> None:
    assert said(drive("detect", model(project), "rows.npy", *settings, ok=False)).startswith(f"detector: {message}")


def test_sounds_that_are_refused(project: Path, build: Path, tmp_path: Path) -> None:
    silence = np.zeros(800, np.int16)
    sounds = {
        "8k": (write_wav(tmp_path / "8k.wav", silence, 8000), "must be sampled at 16000 Hz, got 8000 Hz; resample it first"),
        "two": (write_wav(tmp_path / "two.wav", silence, channels=2), "must be mono, got 2 channels; mix it down first"),
        "none": (write_wav(tmp_path / "none.wav", silence[:0]), "must hold sound, got 0 samples; record it again"),
        "absent": (tmp_path / "absent.wav", "must be a sound file, got no such file; check the path"),
        "folder": (tmp_path, "must be a sound file, got one that cannot be read; check the path"),
    }
    whole = write_wav(tmp_path / "whole.wav", silence).read_bytes()
    for name, content, message in (
        ("cut", whole[:-2], "must be complete, got a truncated file; copy it again"),
        ("other", b"OggS" + whole[4:], "must be a WAV file, got another format; convert it"),
        ("bytes", whole[:34] + b"\x08" + whole[35:], "must hold 16-bit or float samples, got format 1 with 8 bits; convert it"),
        ("nodata", whole[:36], "must hold sound, got no data chunk; record it again"),
        ("nan", whole[:20] + b"\3\0" + whole[22:34] + b"\x20" + whole[35:44] + b"\xff" * 1600,
         "must hold finite samples, got NaN or infinity; export it again"),
    ):  # fmt: skip
        (tmp_path / f"{name}.wav").write_bytes(content)
        sounds[name] = (tmp_path / f"{name}.wav", message)
    for path, message in sounds.values():
        assert said(run(build / "edgetk_listen", path, ok=False)) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("piped", "message"),
    [
        (b"", "must hold 16-bit samples, got none; check what writes it"),
        (b"RIFF" + bytes(1000), "must be raw 16-bit samples, got a WAV file; name the file, or drop its header"),
        (bytes(1001), "must be 16-bit samples, got an odd number of bytes; check what writes it"),
    ],
)
def test_pipes_that_are_refused(build: Path, piped: bytes, message: str) -> None:
    assert said(run(build / "edgetk_listen", "-", stdin=piped, ok=False)) == f"stdin: {message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "must have a WAV file or -, got nothing to listen to; see --help"),
        (["--loud", "a.wav"], "must know its options, got --loud; see --help"),
        (["a.wav", "b.wav"], "must know its options, got b.wav; see --help"),
        (["--threshold"], "--threshold must have a value, got none; see --help"),
        (["--threshold", "high", "a.wav"], '--threshold must be a number, got "high"; correct it'),
        (["--window", "1.5", "a.wav"], "--window must be a whole number of steps, got 1.500000; correct it"),
        (["--clip", "-"], "--clip must have a WAV file, got stdin; name a file"),
    ],
)
def test_wrong_arguments(build: Path, arguments: list[str], message: str) -> None:
    assert said(run(build / "edgetk_listen", *arguments, ok=False)) == f"edgetk_listen: {message}"


def test_help_and_models_that_hear_no_sound(build: Path, tmp_path: Path) -> None:
    assert run(build / "edgetk_listen", "--help").stdout.startswith("usage: edgetk_listen")
    done = run(build / "edgetk_listen", "--model", made(tiny_bundle(), tmp_path), "a.wav", ok=False)
    wanted = "the model must hear sound, got one without the front end kaldi-log-mel; use its stream's step()"
    assert said(done) == f"edgetk_listen: {wanted}"


def test_libraries_that_are_no_runtime(project: Path, build: Path, driver: Path, tmp_path: Path) -> None:
    listen, sound = build / "edgetk_listen", project / "testdata" / "clip.wav"
    done = run(listen, "--onnxruntime", tmp_path / "absent.so", sound, ok=False)
    assert said(done).startswith(f"ONNX Runtime: {tmp_path}/absent.so must be its library, got: ")
    done = run(listen, sound, env={"EDGETK_ORT_LIBRARY": "libm.so.6"}, ok=False)
    assert said(done).startswith("ONNX Runtime: libm.so.6 must be its library, got: ")
    assert said(done).endswith("undefined symbol: OrtGetApiBase; correct the path")
    done = run(driver, "misuse", model(project), "after flush", ok=False)  # built without a place to look in
    if "got more after flush" not in done.stderr:  # a runtime of the system
        advice = "run pip install onnxruntime and cmake again, or name it with EDGETK_ORT_LIBRARY=/path/to/libonnxruntime.so.1"
        assert said(done) == f"ONNX Runtime: must be installed, got no library that loads; {advice}"
    done = run(listen, "--onnxruntime", library(), "--operators", "libm.so.6", sound, ok=False)
    assert said(done).startswith("libm.so.6: must be edgetk's operator library for this machine, got: ")
    assert said(done).endswith("; run: make native")
