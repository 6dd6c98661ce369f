"""The browser demo's JavaScript, in Node: front end, detector, sample rates, metadata and listener are Python's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from web_build import DEMO, node, numbers, require_packages, spoken

from edgetk.export import metadata
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.detect import Detector, Rule
from edgetk.tasks.speech.log_mel import StreamingLogMel

LABELS = ["zero", "one", "two", "three"]
SETTINGS = dict(fe.FRONT_END)
TINY = Path(__file__).resolve().parents[1] / "data" / "lmuformer_xs_int8_stream.onnx"


def pieces(samples: np.ndarray, sizes: tuple[int, ...]) -> list[list[float]]:
    """`samples` in pieces of these sizes, again and again."""
    cuts = np.cumsum(np.resize(sizes, len(samples) // min(sizes) + 1))
    return [part.tolist() for part in np.split(samples, cuts[cuts < len(samples)])]


def sounds() -> dict[str, np.ndarray]:
    """What a front end may meet, 0.4 s each."""
    rng, t = np.random.default_rng(3), np.arange(6400) / fe.SAMPLE_RATE
    speech = np.array(spoken("left"))[4000:10400]
    return {
        "speech": speech,
        "quiet speech": speech * 1e-3,
        "noise": rng.uniform(-1, 1, 6400),
        "silence": np.zeros(6400),
        "offset": np.full(6400, 0.7),
        "full-scale square": np.sign(np.sin(2 * np.pi * 437 * t)),
        "loud tone": np.sin(2 * np.pi * 3000 * t),
        "one sample": np.eye(1, 6400, 3000)[0],
    }


def test_the_front_end_is_pythons() -> None:
    made = {name: sound.astype(np.float32) for name, sound in sounds().items()}
    (frames,) = numbers(("logMel", {"settings": SETTINGS, "sounds": [pieces(x, (128, 1, 513)) for x in made.values()]}))
    for (name, sound), found in zip(made.items(), frames, strict=True):
        wanted = StreamingLogMel().push(torch.from_numpy(sound)).numpy()
        assert np.shape(found) == wanted.shape == (38, 128)
        # beside a pure tone of full scale, Python's float32 rounds the empty bands near the floor; JavaScript has float64
        bound = 1e-3 if name == "loud tone" else 1e-4
        np.testing.assert_allclose(found, wanted, atol=bound, rtol=0, err_msg=name)


def test_the_front_end_refuses_another_kind() -> None:
    (refused,) = numbers(("logMel", {"settings": SETTINGS | {"kind": "mfcc"}, "sounds": []}))
    assert refused["error"] == "front end: must be kaldi-log-mel, got mfcc; this page knows no other"


def streams() -> list[tuple[Rule, np.ndarray]]:
    """Rules, each with rows of slowly changing logits that fire several times."""
    rng = np.random.default_rng(7)
    found = []
    for window, threshold, hold, refractory, words in (
        (60, 0.95, 5, 150, ()),
        (10, 0.6, 1, 0, ()),
        (7, 0.7, 3, 20, ("one", "three")),
        (1, 0.5, 1, 5, ()),
    ):
        levels = np.repeat(rng.normal(0, 4, (30, len(LABELS))), rng.integers(5, 90, 30), axis=0)
        rule = Rule(window, threshold, hold, refractory, words)
        found.append((rule, (levels + rng.normal(0, 1, levels.shape)).astype(np.float32)))
    tied = np.full((40, len(LABELS)), 9, dtype=np.float32)  # equal scores: the first label wins
    return [*found, (Rule(4, 0.9, 2, 10), tied), (Rule(20, 0.9, 1, 0), tied[:19])]


def test_the_detector_is_pythons() -> None:
    cases = streams()
    results = numbers(*(("detect", {"rule": vars(rule), "labels": LABELS, "rows": rows.tolist()}) for rule, rows in cases))
    counts = []
    for (rule, rows), result in zip(cases, results, strict=True):
        detector = Detector(rule, LABELS)
        wanted = [hit for hit in map(detector.push, rows) if hit]
        assert [(hit["step"], hit["label"]) for hit in result["found"]] == [(hit.step, hit.label) for hit in wanted]
        np.testing.assert_allclose([hit["score"] for hit in result["found"]], [hit.score for hit in wanted], rtol=1e-13)
        counts.append(len(wanted))
        if detector.probabilities is None:
            assert result["probabilities"] is None
        else:
            np.testing.assert_allclose(result["probabilities"], detector.probabilities, rtol=1e-13)
    assert min(counts[:5]) >= 3
    assert counts[5] == 0


def test_the_settings_are_pythons_and_refused_alike() -> None:
    def of(**rule: object) -> tuple[str, dict[str, object]]:
        return "detect", {"rule": rule, "labels": LABELS, "rows": []}

    rule, *refused = numbers(("rule", {}), of(window=0), of(hold=1.5), of(refractory=-1), of(threshold=1), of(words=["six"]))
    assert rule == {**vars(Rule()), "words": list(Rule().words)}
    assert [answer["error"] for answer in refused] == [
        "detector: window must be a whole number of at least 1 steps, got 0; correct it",
        "detector: hold must be a whole number of at least 1 steps, got 1.5; correct it",
        "detector: refractory must be a whole number of at least 0 steps, got -1; correct it",
        "detector: threshold must be a probability between 0 and 1, got 1; 0.95 is one",
        "detector: a watched word must be a label of the model, got six; known: zero, one, two, three",
    ]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_every_rate_becomes_the_models(rate: int) -> None:
    """Tones that both rates carry keep height and phase (the delay is known), in pieces of any size."""
    seconds, tones = 0.25, (200, 1000, 0.4 * min(rate, 16000))
    t, n = np.arange(int(seconds * rate)) / rate, np.arange(int(seconds * 16000))
    calls = [("resample", {"from": rate, "to": 16000, "pieces": pieces(np.sin(2 * np.pi * hz * t), (128, 7))}) for hz in tones]
    for hz, result in zip(tones, numbers(*calls), strict=True):
        got = np.array(result["samples"])
        assert len(got) == pytest.approx(seconds * 16000, abs=1)
        wanted = np.sin(2 * np.pi * hz * (n[: len(got)] / 16000 - result["delay_s"]))
        late = int(16000 * 2 * result["delay_s"]) + 1  # before that the filter still sees the silence before the sound
        assert late < 200
        np.testing.assert_allclose(got[late:], wanted[late:], atol=2e-3)


def test_what_the_models_rate_cannot_carry_is_filtered_out() -> None:
    t = np.arange(12000) / 48000
    calls = [
        ("resample", {"from": 48000, "to": 16000, "pieces": [np.sin(2 * np.pi * hz * t).tolist()]}) for hz in (9000, 15000)
    ]
    for result in numbers(*calls):
        assert np.abs(result["samples"][200:]).max() < 1e-3  # −60 dB
    (refused,) = numbers(("resample", {"from": 0, "to": 16000, "pieces": []}))
    assert refused["error"] == "sound: must have between 4000 and 768000 samples a second, got 0; choose another microphone"


def test_the_graphs_metadata_are_read_from_its_bytes(tmp_path: Path) -> None:
    import onnx

    entries = metadata.read(onnx.load(TINY))
    (cut := tmp_path / "cut.onnx").write_bytes(TINY.read_bytes()[:-9])
    (text := tmp_path / "text.onnx").write_text("no graph")
    (bare := tmp_path / "bare.onnx").write_bytes(b"\x08\x08")  # ir_version alone
    found, *refused = numbers(*(("describe", {"file": str(file)}) for file in (TINY, cut, text, bare)))
    assert found["labels"] == entries["labels"].split("\n")
    assert found["states"] == json.loads(entries["states"])
    assert found["frontEnd"] == json.loads(entries["front_end"])
    assert (found["name"], found["input"], found["output"]) == (entries["model_type"], "features", "logits")
    assert (found["lookahead"], found["period"]) == (5, 0.01)
    cut_short, no_graph, empty = (answer["error"] for answer in refused)
    assert cut_short == "model: must be an ONNX file, got bytes that end too early; export it again"
    assert no_graph == "model: must be an ONNX file, got a field of kind 6; export it again"
    assert empty == (
        "model: must be a stream that edgetk exported, got one without states, labels, front_end, lookahead_s, period_s; "
        "export it: edgetk export MODEL -o FOLDER"
    )


def test_problems_are_said_in_plain_words() -> None:
    lost, other, rule, slow = numbers(
        ("plain", {"error": {"code": "lost"}}),
        ("plain", {"error": {"message": "it broke"}}),
        ("refused", {"message": "detector: hold must be larger"}),
        ("slow", {"seconds": 2.34}),
    )
    assert lost == "The microphone was disconnected. Connect it and start again."
    assert other == "Something went wrong: it broke."
    assert rule == "Hold must be larger."
    assert slow == "This device is 2.3 s behind the sound. Close other programs, or listen again."


def test_nothing_names_another_host_and_versions_are_pinned() -> None:
    """The page asks no other host; the lock file names none, so that it serves whatever registry npm is set up for."""
    wanted = json.loads((DEMO / "package.json").read_text())
    lock = json.loads((DEMO / "package-lock.json").read_text())["packages"]
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all(entry.get("integrity") for path, entry in lock.items() if path)
    assert [path for path, entry in lock.items() if "resolved" in entry] == []
    pages = [DEMO / "index.html", DEMO / "style.css", *(DEMO / "src").glob("*.js")]
    addresses = [address for page in pages for address in re.findall(r"""\w+://[^\s"'`)]*|["'(]//[^"'`)]+""", page.read_text())]
    assert addresses == ["https://", "http://localhost"]  # both in the sentence that tells where a microphone is allowed


def test_the_javascript_is_linted() -> None:
    require_packages()
    done = node("node_modules/@biomejs/biome/bin/biome", "ci", "--colors=off", "--error-on-warnings", ".", ok=False)
    assert done.returncode == 0, done.stdout + done.stderr
