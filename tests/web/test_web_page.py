"""The browser demo as it is built: heard through the page's own audio path in Chromium, word for word what Python hears."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import sys
import threading
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from web_build import DEMO, chromium, node, numbers, require_node, require_packages, spoken

from edgetk.export.lower import lower
from edgetk.export.to_onnx import EXPORTER
from edgetk.targets import board
from edgetk.tasks.speech.detect import Rule
from edgetk.tasks.speech.sample import FOLDER, Sample
from edgetk.tasks.speech.words import WORDS_16
from edgetk.toolkit import source
from edgetk.toolkit.stream import Streamed, open_stream
from edgetk.toolkit.stream_listen import Heard, Listener

#: silence around a clip in the demo (src/sound.js), in seconds
BEFORE_S, AFTER_S = 0.5, 0.8


def prepare() -> ModuleType:
    """The demo's prepare.py."""
    spec = importlib.util.spec_from_file_location("web_kws_prepare", DEMO / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare.py makes: the step graph of the shipped `lmuformer`, and the clips."""
    require_packages()
    folder = tmp_path_factory.mktemp("assets")
    bundle, host = source.open_model("lmuformer"), board.load("host")
    step, *_ = EXPORTER(lower(bundle, host, ("stream",)), bundle, host)  # as edgetk export does, without the clip form
    (folder / step.name).write_bytes(step.content)
    prepare().clips(folder)
    return folder


@pytest.fixture(scope="module")
def model(assets: Path) -> Streamed:
    return open_stream(str(assets / "model.stream.onnx"), "onnxruntime")


@pytest.fixture(scope="module")
def url(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The built page, served."""
    out = tmp_path_factory.mktemp("page") / "dist"
    done = node("build.mjs", "--assets", assets, "--out", out)
    assert "MB. Serve it, and open http://localhost:8000/" in done.stdout

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(out))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def drive(scenario: str, url: str, *arguments: object) -> dict[str, Any]:
    """A scenario of test/page.mjs; no page may ask another host or raise an error."""
    browser = chromium()
    found: dict[str, Any] = json.loads(node("test/page.mjs", scenario, url, *arguments, CHROMIUM=browser).stdout)
    assert found["elsewhere"] == []
    assert found["errors"] == []
    return found


def python(model: Streamed, samples: np.ndarray) -> tuple[list[Heard], Listener]:
    listener = Listener(model, Rule())
    return listener.push(samples.astype(np.float32)), listener


def samples_of(sound: dict[str, Any]) -> np.ndarray:
    """What reached the page's network."""
    return np.frombuffer(base64.b64decode(sound["samples"]), "<f4")


def onset_s(samples: np.ndarray) -> float:
    """When the silence before a clip is over, in seconds."""
    return float(np.flatnonzero(np.abs(samples) > 2e-3)[0]) / 16000


def compare(sound: dict[str, Any], model: Streamed) -> list[str]:
    """What the page heard, against Python on the very samples that reached the page's network; the words."""
    wanted, listener = python(model, samples_of(sound))
    assert [word["word"] for word in sound["words"]] == [word.word for word in wanted]
    for got, word in zip(sound["words"], wanted, strict=True):
        # a probability that passes the threshold by less than the arithmetics differ may do so one step apart
        assert got["time_s"] == pytest.approx(word.time_s, abs=0.0101)
        assert got["score"] == pytest.approx(word.score, abs=5e-3)
    assert listener.probabilities is not None
    np.testing.assert_allclose(sound["probabilities"], listener.probabilities, atol=1e-3)
    return [word["word"] for word in sound["words"]]


def with_silence(words: list[str]) -> np.ndarray:
    """Clips as the page plays them."""
    before, after = np.zeros(int(BEFORE_S * 16000)), np.zeros(int(AFTER_S * 16000))
    return np.concatenate([part for word in words for part in (before, spoken(word), after)])


def test_the_network_in_webassembly_is_pythons(assets: Path, model: Streamed) -> None:
    """In Node, sample for sample: 16 kHz as it is, and again after a reset; 48 kHz through the resampler."""
    sound = with_silence(["three"])
    spectrum = np.fft.rfft(sound)
    fast = np.fft.irfft(np.pad(spectrum, (0, len(sound))), 3 * len(sound)) * 3  # the same sound at 48 kHz
    given = [(16000, sound), (16000, sound), (48000, fast)]
    sounds = [{"rate": rate, "pieces": [part.tolist() for part in np.array_split(x, 300)]} for rate, x in given]
    (heard,) = numbers(("listen", {"file": str(assets / "model.stream.onnx"), "rule": {}, "sounds": sounds}))
    wanted, listener = python(model, sound)
    assert [word.word for word in wanted] == ["three"]
    assert heard[0] == heard[1]
    for result, near in zip(heard[1:], (1e-3, 0.03), strict=True):
        assert [word["word"] for word in result["words"]] == [word.word for word in wanted]
        for got, word in zip(result["words"], wanted, strict=True):
            assert got["time_s"] == pytest.approx(word.time_s, abs=0.0101)
            assert got["score"] == pytest.approx(word.score, abs=near)
        assert result["sound_s"] == pytest.approx(len(sound) / 16000, abs=1e-3)
    np.testing.assert_allclose(heard[0]["probabilities"], listener.probabilities, atol=1e-3)


def test_every_clip_of_the_page_is_heard_right(model: Streamed) -> None:
    """What its README says of them."""
    heard = {word: [hit.word for hit in python(model, with_silence([word]))[0]] for word in WORDS_16}
    assert heard == {word: [word] for word in WORDS_16}


def test_clips_through_the_page_are_heard_as_by_python(url: str, model: Streamed) -> None:
    words = ["zero", "left", "yes"]
    found = drive("clips", url, ",".join(words))
    for word, sound in zip(words, found["sounds"], strict=True):
        assert compare(sound, model) == [word]
        original = with_silence([word])
        (direct,), _ = python(model, original)
        assert direct.word == word
        # the page's sound went through the device's rate and back, and began anywhere between two frames
        after_s = sound["words"][0]["time_s"] - onset_s(samples_of(sound))
        assert after_s == pytest.approx(direct.time_s - onset_s(original), abs=0.05)
    assert found["list"] == words[::-1]
    assert found["overflow"] <= 0
    assert (found["word"], found["status"], found["problem"]) == ("yes", "Played “yes”.", "")
    assert found["step"].endswith(" ms (median)")


def test_the_microphone_is_heard_as_by_python(url: str, model: Streamed, tmp_path: Path) -> None:
    """Chromium takes a sound file for the microphone."""
    said = ["three", "stop"]
    chromium()
    with wave.open(str(tmp_path / "said.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((with_silence(said) * 32767).astype("<i2").tobytes())
    found = drive("microphone", url, len(said), tmp_path / "said.wav")
    (sound,) = found["sounds"]
    assert compare(sound, model) == said
    assert found["focus"] == "stop"
    assert found["during"]["status"].startswith("Listening to the microphone at ")
    assert found["status"] == "Stopped."


def test_every_problem_is_told(url: str) -> None:
    """Missing files, microphones that are not there, not allowed or in use, settings that are none."""
    found = drive("problems", url)
    codes = ["no-wasm", "no-model", "no-clip", "NotFoundError", "NotAllowedError", "NotReadableError", "insecure"]
    texts = dict(zip(codes, numbers(*(("plain", {"error": {"code": code}}) for code in codes)), strict=True))
    texts |= {"no-runtime": texts["no-wasm"], "no-list": texts["no-clip"]}
    rule = f"A watched word must be a label of the model, got hello; known: {', '.join(WORDS_16)}."
    assert found["said"] == texts | {"rule": rule}
    assert found["words"] == "yes, no"


def test_the_clips_keep_their_source(tmp_path: Path) -> None:
    """One of each word, the samples of the embedded clips, with licence and attribution."""
    prepare().clips(tmp_path)
    clips = tmp_path / "clips"
    listed = json.loads((clips / "clips.json").read_text())
    assert [clip["word"] for clip in listed] == list(WORDS_16)
    originals = {clip.name for clip in Sample().clips("test", audio=False)}
    for clip in listed:
        assert clip["original"] in originals
        with wave.open(str(clips / clip["file"])) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        np.testing.assert_array_equal(samples, spoken(clip["word"]))
    assert (clips / "LICENSE.txt").read_bytes() == (FOLDER / "LICENSE.txt").read_bytes()
    assert (clips / "ATTRIBUTION.txt").read_text().startswith((FOLDER / "ATTRIBUTION.txt").read_text())


def test_one_command_asks_python_for_model_and_clips(assets: Path, tmp_path: Path) -> None:
    """Here a stand-in for Python, which copies what is at hand; then what the build refuses."""
    python = tmp_path / "python"
    code = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[3], dirs_exist_ok=True)"
    python.write_text(f'#!/bin/sh\ntest "$3" = lmuformer && exec {sys.executable} -c "{code}" {assets} "$@"\n')
    python.chmod(0o755)
    out = tmp_path / "dist"
    for _ in range(2):  # an earlier page is replaced
        node("build.mjs", "--out", out, EDGETK_PYTHON=str(python))
    assert {p.name for p in out.iterdir()} == {
        "NOTICE.txt",
        "clips",
        "index.html",
        "model.stream.onnx",
        "src",
        "style.css",
        "vendor",
    }
    assert (out / "model.stream.onnx").read_bytes() == (assets / "model.stream.onnx").read_bytes()

    def refused(*arguments: object, **env: str) -> str:
        done = node("build.mjs", *arguments, ok=False, **env)
        assert done.returncode == 2
        return done.stderr.splitlines()[-1]

    wanted = f"web_kws: --out must be a new folder or an earlier page, got {tmp_path}; choose another one"
    assert refused("--out", tmp_path, "--assets", assets) == wanted
    assert python.exists()
    (empty := tmp_path / "empty").mkdir()
    wanted = f"web_kws: {empty} must hold model.stream.onnx, got none; run prepare.py {empty}"
    assert refused("--out", out, "--assets", empty) == wanted
    wanted = "web_kws: prepare.py must succeed, got an error above; run make setup, or set EDGETK_PYTHON"
    assert refused("--out", out, EDGETK_PYTHON="false") == wanted
    missing = refused("--out", out, EDGETK_PYTHON=str(tmp_path / "none"))
    assert missing.startswith("web_kws: Python must start, got ")
    assert missing.endswith("; name one that has edgetk in EDGETK_PYTHON")
    assert (out / "index.html").exists()


def test_a_build_without_packages_says_so(tmp_path: Path) -> None:
    require_node()
    shutil.copy(DEMO / "build.mjs", tmp_path)
    done = node(tmp_path / "build.mjs", ok=False)
    assert done.returncode == 2
    wanted = f"web_kws: onnxruntime-web must be installed, got no ort.wasm.min.mjs; run npm ci in {tmp_path} first"
    assert done.stderr.splitlines() == [wanted]


def test_a_model_without_a_stream_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = prepare()
    asked = []
    monkeypatch.setattr(module.subprocess, "run", lambda command, check: asked.append(command[1:5]))
    with pytest.raises(SystemExit, match="model ds-cnn: must have a stream form, got none; choose lmuformer, "):
        module.model(tmp_path, "ds-cnn")
    assert asked == [["-m", "edgetk", "export", "ds-cnn"]]
