"""Long streams as data: what is composed, counted and judged; its tables; the view; both commands."""

from __future__ import annotations

import importlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from typer.testing import CliRunner

from edgetk.core import registry
from edgetk.core.errors import PreconditionError
from edgetk.tasks.speech.detect import Rule
from edgetk.tasks.speech.gate import GateRule
from edgetk.tasks.speech.streams import Scene, compose
from edgetk.toolkit import stream, stream_report, stream_study
from edgetk.toolkit.cli import app
from edgetk.toolkit.commands import shared
from edgetk.toolkit.stream_listen import Heard, Listener
from edgetk.toolkit.stream_study import Plan, study
from edgetk.toolkit.stream_view import View, bar, clock

MODEL = "lmuformer-xs"
command = importlib.import_module("edgetk.toolkit.commands.stream")


@pytest.fixture(scope="module")
def model() -> stream.Streamed:
    torch.set_num_threads(1)
    return stream.open_stream(MODEL)


@pytest.fixture(scope="module")
def data() -> Any:
    return registry.load("task", "speech-commands").open(None)


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Path:
    """Six seconds with three words of the embedded sample."""
    path = tmp_path_factory.mktemp("sound") / "words.wav"
    made = compose(Scene(0.1, {"yes": 1, "stop": 1, "three": 1}, (20.0, 20.0)), data.waves("test"), [], "test", 1)
    soundfile.write(path, made.samples, 16000)
    path.with_suffix(".json").write_text(json.dumps([[o.start_s, o.word] for o in made.occurrences]))
    return path


@pytest.fixture(scope="module", autouse=True)
def _short_probe() -> Any:
    """Fewer steps are compared with frames at once; the whole comparison is that of test_stream.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_study, "_PROBED", 150)
        yield


@pytest.fixture(scope="module")
def found(model: stream.Streamed, data: Any) -> dict[str, Any]:
    return study(model, data, "test", Plan("stop", 2, 0.5, seed=3))


@pytest.fixture(autouse=True)
def _settings() -> Any:
    yield
    shared.settings = shared.Settings()


def call(*arguments: object, **more: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="edgetk", **more)


def test_a_plan_has_mlperfs_numbers_in_twenty_minutes(model: stream.Streamed) -> None:
    scene = Plan("stop").scene(model.labels)
    assert scene.counts is not None
    assert (scene.minutes, scene.counts["stop"], sum(scene.counts.values())) == (20.0, 50, 200)
    assert set(Plan(minutes=10.0).scene(model.labels).counts.values()) == {6, 7}  # type: ignore[union-attr]
    assert Plan().scene((*model.labels, "silence")).counts == Plan().scene(model.labels).counts


def test_a_study_says_what_was_heard_of_what(found: dict[str, Any], model: stream.Streamed) -> None:
    assert (found["keyword"], found["words"], found["streams"], found["seed"]) == ("stop", ["stop"], 2, 3)
    assert found["hours"] == pytest.approx(1 / 60)
    assert found["at_rule"]["said"] == 2
    (point,) = [p for p in found["curve"] if p["threshold"] == Rule().threshold]
    assert found["at_rule"] == {key: value for key, value in point.items() if key != "threshold"}
    assert found["mlperf"] is None  # other minutes
    assert found["background"].startswith("white noise")
    rejects = [point["false_rejects"] for point in found["curve"]]
    accepts = [point["false_accepts"] for point in found["curve"]]
    assert rejects == sorted(rejects)
    assert accepts == sorted(accepts, reverse=True)
    assert found["cost"]["at_once"]
    assert found["cost"]["steps_share"] == 1.0
    json.dumps(found, allow_nan=False)


def test_frames_at_once_and_steps_count_the_same(found: dict[str, Any], model: stream.Streamed, data: Any) -> None:
    class Plain:
        """The same steps, without the short way."""

        runtime = "plain"
        reset, state, __call__ = model.steps.reset, model.steps.state, staticmethod(model.steps)

    plain = replace(model, steps=Plain())
    again = study(plain, data, "test", Plan("stop", 1, 0.4, seed=3))
    once = study(model, data, "test", Plan("stop", 1, 0.4, seed=3))
    assert not again["cost"]["at_once"]
    assert [p["false_rejects"] for p in again["curve"]] == [p["false_rejects"] for p in once["curve"]]
    assert [p["false_accepts"] for p in again["curve"]] == [p["false_accepts"] for p in once["curve"]]
    assert again["cost"]["network"]["n"] == 2398


def test_a_network_that_differs_at_once_runs_step_by_step_and_says_so(model: stream.Streamed) -> None:
    class Log:
        lines: list[str] = []  # noqa: RUF012

        def log(self, text: str) -> None:
            self.lines.append(text)

    steps = stream.TorchSteps.__new__(stream.TorchSteps)
    steps.__dict__.update(model.steps.__dict__)
    steps.whole = lambda features: np.zeros((len(features), 16), dtype=np.float32)  # type: ignore[method-assign]
    network = stream_study._Network(replace(model, steps=steps), Log())  # type: ignore[arg-type]
    features = np.zeros((200, 128), dtype=np.float32)
    assert len(network.rows(features)) == 195
    assert network.rows(features).any()
    assert network.timings.n == 150 + 2 * 200
    assert len(Log.lines) == 1
    assert "runs step by step, because many frames at once give scores that differ by" in Log.lines[0]


def test_mlperfs_rule_is_judged_stream_by_stream() -> None:
    from edgetk.tasks.speech.stream_score import Count

    each = [Count(50, 42, 8, 0, 0, 1200.0), Count(50, 41, 0, 0, 0, 1200.0), Count(50, 50, 3, 3, 3, 1200.0)]
    judged = stream_study._mlperf(each, Plan("stop", seed=7))
    assert judged is not None
    assert [(s["seed"], s["false_positives"], s["false_negatives"], s["met"]) for s in judged["streams"]] == [
        (7, 8, 8, True),
        (8, 0, 9, False),
        (9, 9, 0, False),
    ]
    assert (judged["met"], judged["of"]) == (1, 3)
    assert "the audio is edgetk's, not MLPerf's" in judged["rule"]


def test_the_bar_is_judged_at_the_detectors_threshold_and_the_best_point_apart() -> None:
    def point(threshold: float, rejects: int, accepts: float) -> dict[str, Any]:
        rate = {"false_rejects": rejects, "false_reject_rate": rejects / 100, "said": 100}
        return {"threshold": threshold, **rate, "false_accepts": accepts, "false_accepts_per_hour": accepts}

    curve = [point(0.5, 1, 3.0), point(0.8, 2, 0.4), point(0.9, 2, 0.4), point(0.95, 6, 0.0)]
    assert stream_study._bar(curve, 0.8)["met"]
    assert not stream_study._bar(curve, 0.5)["met"]
    assert not stream_study._bar(curve, 0.95)["met"]
    assert stream_study._bar(curve, 0.95)["best"] == {
        "threshold": 0.9,
        "false_reject_rate": 0.02,
        "false_accepts_per_hour": 0.4,
    }
    assert stream_study._bar(curve[:1], 0.5)["best"] is None


def test_data_of_another_kind_are_refused(model: stream.Streamed) -> None:
    other = SimpleNamespace(origin="pictures", labels=())
    with pytest.raises(
        PreconditionError,
        match=r"^evaluate: --streaming composes streams of spoken clips, got data of another kind \(pictures\); leave it out$",
    ):
        study(model, other, "test", Plan())  # type: ignore[arg-type]


def test_tables_show_the_curve_the_bars_and_each_word(found: dict[str, Any], model: stream.Streamed, data: Any) -> None:
    def text(study: dict[str, Any]) -> str:
        out = io.StringIO()
        stream_report.terminal(study, Console(width=160, file=out))
        return out.getvalue()

    page = text(found)
    assert "keyword stop in 2 streams of 0.5 minutes, seeds from 3" in page
    assert "0.95 *" in page
    assert "at threshold 0.95: fewer than 0.5 false accepts per hour at less than 5 % false rejects; got" in page
    assert "network alone" in page
    every = study(model, data, "test", Plan("", 1, 0.6, gate=GateRule()))
    page = text(every)
    assert "all 16 words in 1 streams" in page
    assert "Each word alone" in page
    assert "the gate lets" in page
    assert 0 < every["cost"]["steps_share"] <= 1
    assert [word["word"] for word in every["alone"]] == list(model.labels)
    none = {**found, "bar": {**found["bar"], "best": None}, "mlperf": stream_study._mlperf([], Plan("stop"))}
    assert "no threshold of the curve keeps to these false accepts" in text(none)
    assert "0 of 0 streams keep the rule of at most 8 false positives" in text(none)


def test_the_view_shows_level_scores_detections_and_both_latencies(model: stream.Streamed, wav: Path) -> None:
    samples, _ = soundfile.read(wav, dtype="float32")
    listener = Listener(model, Rule(words=("yes", "stop", "three")), GateRule())
    view = View(listener, "words.wav")

    def page() -> str:
        out = io.StringIO()
        Console(width=100, file=out).print(view.frame())
        return out.getvalue()

    assert "the gate is closed, the network rests" in page()
    for at in range(0, len(samples), 320):
        view.add(listener.push(samples[at : at + 320]))
    text = page()
    assert "lmuformer-xs in torch" in text
    assert "listening to words.wav" in text
    assert "00:06.00" in text
    assert "detections: 3" in text
    assert "look-ahead 50 ms of the network, after a frame of 25 ms" in text
    assert "compute" in text
    assert "factor" in text
    assert "the network ran for" in text
    assert max(map(len, text.splitlines())) <= 88
    view.add([Heard(3725.5, "yes", 0.99)] * 9)
    assert "1:02:05.50" in page()
    assert "detections: 12" in page()
    view = View(listener, "next.wav")  # the clock is that of its own sound
    listener.reset()
    listener.push(samples[:8000])
    assert " 00:00.50 " in page()


def test_bars_and_clock() -> None:
    assert bar(0.5, 4) == "██··"
    assert bar(1 / 32, 4) == "▏···"
    assert bar(-1.0, 2) == "··"
    assert bar(7.0, 2) == "██"
    assert clock(61.239) == "01:01.24"
    assert clock(59.999) == "01:00.00"


# the commands


def heard(lines: list[dict[str, Any]], wav: Path) -> None:
    """Each word of the file is detected while it sounds, and nothing else."""
    truth = json.loads(wav.with_suffix(".json").read_text())
    hits = [line for line in lines if line["kind"] == "detection"]
    assert [hit["word"] for hit in hits] == [word for _, word in truth]
    assert all(start < hit["time_s"] <= start + 1.5 for hit, (start, _) in zip(hits, truth, strict=True))


def test_stream_prints_json_lines_and_a_summary(wav: Path) -> None:
    done = call("stream", "--model", MODEL, "--runtime", "torch", "--wav", wav, "--words", "yes,stop,three", "--json")
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    heard(lines, wav)
    summary = lines[-1]
    assert summary["kind"] == "summary"
    assert summary["sound_s"] == 6.0
    assert summary["lookahead_s"] == pytest.approx(0.05)
    assert summary["realtime_factor"] > 0
    assert summary["network"]["n"] == 598


def test_stream_takes_raw_samples_on_stdin_and_a_folder(wav: Path, tmp_path: Path) -> None:
    samples, _ = soundfile.read(wav, dtype="int16")
    done = call(
        "stream", "--model", MODEL, "--runtime", "torch", "--json", "--words", "yes,stop,three", input=samples.tobytes()
    )
    assert done.exit_code == 0, done.stderr
    heard([json.loads(line) for line in done.stdout.splitlines()], wav)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, samples[16000:64000], 16000)
    done = call("stream", "--model", MODEL, "--runtime", "torch", "--dir", tmp_path, "--gate")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("listening to ") == 2
    assert "look-ahead" in done.stdout


def test_stream_says_that_no_word_was_heard_and_when_none_can_be() -> None:
    silence = np.zeros(16000, dtype=np.int16)
    for samples, said in ((silence, "  no word\n"), (silence[:11279], "  no word; a decision needs 705 ms of sound\n")):
        done = call("stream", "--model", MODEL, "--runtime", "torch", input=samples.tobytes())
        assert done.exit_code == 0, done.stderr
        assert said in done.stdout
    quick = ("--hold", "1", "--window", "10")
    done = call("stream", "--model", MODEL, "--runtime", "torch", *quick, input=silence[:2639].tobytes())
    assert "  no word; a decision needs 165 ms of sound\n" in done.stdout


def test_the_help_tells_the_detectors_defaults() -> None:
    from edgetk.tasks.speech.detect import Rule

    page = " ".join(re.sub(r"[│╭╮╰╯─]", " ", call("stream", "--help").stdout).split())
    rule = Rule()
    for what, value in (("counts", rule.threshold), ("averaged", rule.window), ("word", rule.hold)):
        assert f"{what}; default: {value}." in page
    assert f"between two detections; default: {rule.refractory}." in page


def test_stream_shows_the_live_view_on_a_terminal(wav: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    monkeypatch.setattr(command.shared, "console", lambda: console)
    listener = Listener(stream.open_stream(MODEL), Rule())
    from edgetk.toolkit import stream_sound

    command._live(listener, [stream_sound.file(wav)])
    assert "detections: " in out.getvalue()
    assert "00:06.00" in out.getvalue()


def test_an_interrupt_ends_a_sound_without_an_end_and_interrupts_a_file(model: stream.Streamed, capsys: Any) -> None:
    from edgetk.toolkit.stream_sound import Sound

    def chunks() -> Any:
        yield np.zeros(16000, dtype=np.float32)
        raise KeyboardInterrupt

    command._lines(Listener(model, Rule()), [Sound("microphone", chunks())])
    assert json.loads(capsys.readouterr().out)["sound_s"] == 1.0
    with pytest.raises(KeyboardInterrupt):
        command._lines(Listener(model, Rule()), [Sound("file", chunks(), 2.0)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mic", "--dir", "."], "stream: there must be one source, got --mic and --dir; leave one out"),
        (["--words", "yess", "--dir", "{folder}"], "stream detector"),
        (
            ["--runtime", "tvm", "--dir", "{folder}"],
            "stream: --runtime must be one of torch, onnxruntime, c, got tvm; correct it",
        ),
        (
            ["--threshold", "2", "--dir", "{folder}"],
            "detector: threshold must be a probability between 0 and 1, got 2; 0.95 is one",
        ),
    ],
)
def test_stream_refuses_in_one_sentence(arguments: list[str], message: str, wav: Path) -> None:
    if "--words" in arguments:
        message = "detector: a watched word must be a label of the model, got 'yess'; did you mean yes?"
        arguments = [*arguments, "--runtime", "torch"]
    done = call("stream", "--model", MODEL, *(a.replace("{folder}", str(wav.parent)) for a in arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.strip().splitlines()[-1].removeprefix("error: ").removeprefix("edgetk: ").endswith(message)


def test_stream_without_a_source_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetk.core.errors import UsageError

    monkeypatch.setattr(command.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match=r"^stream: there must be sound, got a terminal on stdin; give --wav FILE, --dir D or"):
        command._sounds(None, False, None, False)


def test_evaluate_streaming_prints_and_writes(tmp_path: Path) -> None:
    arguments = ["evaluate", MODEL, "--streaming", "--keyword", "yes", "--minutes", "0.4", "--seed", "1", "--threshold", "0.9"]
    done = call(*arguments, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "keyword yes in 1 streams of 0.4 minutes, seeds from 1" in done.stdout
    written = json.loads((tmp_path / "out" / "streaming.json").read_text())
    done = call(*arguments, "--json")
    printed = json.loads(done.stdout)
    assert {**printed, "cost": 0} == {**written, "cost": 0}
    assert printed["rule"]["threshold"] == 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streaming", "--curve"], "evaluate: --streaming and --curve must not stand together, got both; leave one out"),
        (["--streaming", "--wav", "x.wav"], "evaluate: --streaming and --wav must not stand together, got both; leave one out"),
        (
            ["--keyword", "yes"],
            "evaluate: --keyword must stand with --streaming, got it alone; add --streaming or leave it out",
        ),
        (["--gate"], "evaluate: --gate must stand with --streaming, got it alone; add --streaming or leave it out"),
    ],
)
def test_evaluate_refuses_in_one_sentence(arguments: list[str], message: str) -> None:
    done = call("evaluate", MODEL, *arguments)
    assert done.exit_code == 2
    assert done.stderr.strip().splitlines()[-1].endswith(message)
