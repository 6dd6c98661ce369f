"""Early decision: the two axes, the saving, confident exits, and what the command prints and refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import quick
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_html import Page
from torch import Tensor
from typer.testing import CliRunner

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.errors import InputError, PostconditionError, PreconditionError, UsageError
from edgetk.core.figures import Score
from edgetk.testing import TASK, TinyData, tiny_bundle
from edgetk.toolkit import curve, curve_report, source
from edgetk.toolkit.cli import app
from edgetk.toolkit.commands import shared
from edgetk.toolkit.curve import Axis, Trace
from edgetk.toolkit.curve_study import study
from edgetk.toolkit.evaluate import decider, decisions, evaluate, predictor
from edgetk.toolkit.tiny import FRAMES

TINY = "edgetk.testing:tiny_bundle"
#: eight tokens of which five are real, two of look-ahead
AXIS = Axis(tokens=8, real=5, lookahead=2, hop_s=0.01, window_s=0.025)


def logits(*winners: float) -> list[list[float]]:
    """Scores of two classes over time; the number is that of class 1, class 0 has none."""
    return [[0.0, w] for w in winners]


# the two axes


def test_frames_heard_by_hand() -> None:
    assert [AXIS.heard(n) for n in range(1, 9)] == [3, 4, 5, 5, 5, 5, 5, 5]
    assert AXIS.first == 3
    assert [AXIS.token(f) for f in (3, 4, 5)] == [1, 2, 8]
    assert AXIS.seconds(5) == pytest.approx(0.025 + 4 * 0.01)


@given(tokens=st.integers(1, 40), real=st.integers(1, 40), lookahead=st.integers(0, 9))
def test_the_last_token_known_is_known(tokens: int, real: int, lookahead: int) -> None:
    axis = Axis(tokens, min(real, tokens), lookahead, 0.01, 0.025)
    for heard in range(axis.first, axis.real + 1):
        assert axis.heard(axis.token(heard)) == heard
        if axis.token(heard) < tokens:
            assert axis.heard(axis.token(heard) + 1) > heard


def test_the_axis_of_the_speech_task_is_the_published_one() -> None:
    task = registry.load("task", "speech-commands")
    signature = source.open_model("lmuformer-xs", trained=False).signature
    axis = curve.axis_of(signature, 128, task.front_end)
    assert axis == Axis(tokens=128, real=98, lookahead=5, hop_s=0.01, window_s=0.025)
    assert axis.seconds(98) == pytest.approx(0.995)
    assert curve.axis_of(signature, 64, task.front_end).real == 64  # inputs cut shorter have no padding


def test_a_task_that_says_nothing_has_real_frames_alone() -> None:
    axis = curve.axis_of(tiny_bundle().signature, FRAMES, {})
    assert axis == Axis(FRAMES, FRAMES, 0, 0.01, 0.01)


@pytest.mark.parametrize(
    "front_end", [{"clip_frames": 0}, {"clip_frames": 2.5}, {"hop_samples": 0}, {"window_samples": -1, "sample_rate": 10}]
)
def test_a_front_end_that_makes_no_sense_is_refused(front_end: dict[str, Any]) -> None:
    with pytest.raises(PostconditionError, match=r"curve: the task's front end must have a clip_frames of at least 1, a hop "):
        curve.axis_of(tiny_bundle().signature, FRAMES, front_end)


# the saving


def test_the_saving_by_hand() -> None:
    found = curve.saving([10, 99, 100, 97, 98, 99, 100, 100], 200, AXIS)
    # after 4 frames token 2 is known, 99 of 100; after 5 all are: it stays from 4 on. Token by token it fails once more at 5.
    assert (found["frames"], found["token"], found["saved"]) == (4, 2, pytest.approx(1 / 5))
    assert found["seconds"] == pytest.approx(0.055)
    assert (found["top1"], found["n"]) == (99 / 200, 200)
    assert (found["published"]["token"], found["published"]["of_tokens"], found["published"]["saved"]) == (6, 8, 0.25)


def test_one_answer_less_than_99_percent_is_too_little() -> None:
    assert curve.saving([0, 98, 0, 0, 0, 0, 0, 100], 200, AXIS)["frames"] == 5
    assert curve.saving([99, 98, 99, 99, 99, 99, 99, 100], 200, AXIS)["frames"] == 5
    assert curve.saving([99, 99, 0, 0, 0, 0, 0, 100], 200, AXIS)["frames"] == 3


def test_the_published_count_of_the_published_figure() -> None:
    correct = [0] * 86 + [9517] * 41 + [9612]
    found = curve.saving(correct, 10000, Axis(128, 98, 5, 0.01, 0.025))
    assert found["published"]["saved"] == 0.3203125
    assert (found["frames"], found["saved"]) == (92, pytest.approx(6 / 98))


@given(correct=st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_without_lookahead_and_padding_both_ways_of_counting_agree(correct: list[int]) -> None:
    axis = Axis(len(correct), len(correct), 0, 0.01, 0.01)
    found = curve.saving(correct, 50, axis)
    assert found["frames"] == found["token"] == found["published"]["token"]
    assert found["saved"] == found["published"]["saved"]
    assert all(p["frames"] == p["token"] for p in curve.points(correct, 50, axis))


def test_points_carry_n_and_the_interval() -> None:
    rows = curve.points([1, 2, 3, 4, 5, 6, 7, 8], 10, AXIS)
    assert [row["frames"] for row in rows] == [3, 4, 5, 5, 5, 5, 5, 5]
    assert rows[-1] == {"token": 8, "frames": 5, "seconds": 0.065, "top1": 0.8, "n": 10, "ci95": list(Score(8, 10).ci95)}


# confident exits


def test_right_and_sure_by_hand() -> None:
    three = torch.tensor(3.0).log()  # softmax of (0, ln 3) is (1/4, 3/4)
    trace = Trace.of(torch.tensor([logits(float(three), -float(three)), logits(0.0, float(three))]), torch.tensor([1, 0]))
    assert trace.right.tolist() == [[True, False], [True, False]]
    torch.testing.assert_close(trace.sure, torch.tensor([[0.75, 0.75], [0.5, 0.75]], dtype=torch.float64))
    assert trace.correct() == [2, 0]


def hand_trace() -> Trace:
    """Three examples: sure and right at token 2; sure and wrong at token 4 (right at the end); never sure, right at the end."""
    sure = torch.full((3, 8), 0.5, dtype=torch.float64)
    sure[0, 1] = sure[1, 3] = 0.9
    right = torch.zeros(3, 8, dtype=torch.bool)
    right[0, 1] = True
    right[:, 7] = True
    return Trace(right, sure)


def test_leaving_by_hand() -> None:
    found = curve.leave(hand_trace(), AXIS, 0.9)
    # frames heard: token 2 at 4, token 4 at 5 (all real ones), never at 5
    assert (found["top1"], found["n"]) == (2 / 3, 3)
    assert (found["mean_frames"], found["median_frames"]) == (pytest.approx(14 / 3), 5.0)
    assert found["mean_s"] == pytest.approx(0.025 + (14 / 3 - 1) * 0.01)
    assert found["saved"] == pytest.approx(1 - 14 / 15)
    assert (found["early"], found["never"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_leaving_from_a_frame_on() -> None:
    found = curve.leave(hand_trace(), AXIS, 0.9, earliest=5)  # token 2 is known at frame 4, too early
    assert (found["top1"], found["never"], found["mean_frames"]) == (2 / 3, pytest.approx(2 / 3), 5.0)
    assert curve.leave(hand_trace(), AXIS, 0.9, earliest=4) == {**curve.leave(hand_trace(), AXIS, 0.9), "earliest_frame": 4}


@given(seed=st.integers(0, 1000), a=st.floats(0.2, 0.99), b=st.floats(0.2, 0.99), earliest=st.integers(1, 5))
def test_who_wants_to_be_surer_waits_longer(seed: int, a: float, b: float, earliest: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(20, 8, 3, generator=generator)
    trace = Trace.of(scores, torch.randint(0, 3, (20,), generator=generator))
    low, high = (curve.leave(trace, AXIS, p, earliest) for p in sorted((a, b)))
    for key in ("mean_frames", "median_frames", "never"):
        assert low[key] <= high[key]
    assert low["early"] >= high["early"]
    assert earliest <= low["mean_frames"] <= AXIS.real
    assert low["never"] + low["early"] <= 1


# decisions after every token


def toy(**config: Any) -> Bundle:
    torch.manual_seed(0)
    shape = {"widths": (8, 8, 8, 8), "order": 4, "hidden": 8, "ffn": 8, "features": 4, "frames": 12, "classes": 3, **config}
    bundle: Bundle = registry.load("model", "lmuformer")("xs", **shape)
    return replace(bundle, labels=("a", "b", "c"))


class NoRunning(torch.nn.Module):
    """A model without what gives all decisions at once; `flush` can be left out, or give too much."""

    def __init__(self, inner: Any, flush: bool = True, extra: int = 0) -> None:
        super().__init__()
        self.inner, self.extra, self.clip = inner, extra, inner.clip
        if flush:
            self.flush = self._flush

    def forward(self, *x: Tensor) -> Any:
        return self.inner(*x)

    def _flush(self, *state: Tensor) -> tuple[Tensor, ...]:
        y, *rest = self.inner.flush(*state)
        return (torch.cat([y, y[:, : self.extra]], dim=1), *rest)


def test_at_once_and_step_by_step_decide_the_same() -> None:
    bundle, features = toy(), torch.randn(3, 12, 4)
    expected = decider(bundle)(features)
    assert expected.shape == (3, 12, 3)
    for other in (NoRunning(bundle.body), NoRunning(bundle.body, flush=False)):
        torch.testing.assert_close(decider(bundle.with_body(other))(features), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(expected[:, -1], predictor(bundle)(features), rtol=1e-4, atol=1e-6)


def test_a_flush_of_the_wrong_length_is_refused() -> None:
    bundle = toy()
    with pytest.raises(PostconditionError, match=r"evaluate: flush must give the 5 decisions that wait .*, got 6; correct"):
        decider(bundle.with_body(NoRunning(bundle.body, extra=1)))(torch.randn(1, 12, 4))


def test_decisions_of_a_step_that_counts_by_hand() -> None:
    signature = tiny_bundle().signature
    seen: list[float] = []

    def step(x: Tensor, *state: Tensor) -> list[Tensor]:
        seen.append(float(x.sum()))
        return [torch.tensor([[[seen[-1], 0.0, 0.0]]]), *state]

    behind = replace(signature, lookahead_s=0.02)
    features = torch.arange(1.0, 4.0)[None, :, None].expand(1, 3, 4)
    found = decisions(step, behind, features)
    assert seen == [4.0, 8.0, 12.0, 0.0, 0.0]  # two frames of zeros wait for what looks ahead
    assert found[0, :, 0].tolist() == [12.0, 0.0, 0.0]


def test_models_that_cannot_decide_early_are_refused() -> None:
    bundle = tiny_bundle()
    assert bundle.clip is not None
    whole = replace(bundle, signature=bundle.clip, clip=None)
    with pytest.raises(PreconditionError, match=r"evaluate: model tiny must have a stream form to decide early, got one for "):
        decider(whole)
    with pytest.raises(PreconditionError, match=r"evaluate: the stream of model tiny must say its period, got none, so its "):
        decider(replace(bundle, signature=replace(bundle.signature, period_s=None)))


# whole studies


@pytest.mark.usefixtures("plugins")
def test_the_last_point_is_what_evaluate_says_for_every_kind_of_model() -> None:
    bundle = tiny_bundle()
    graph = replace(bundle, body=quick.stream_graph(bundle), clip=None)
    models = {"memory": bundle, "graph": graph}
    found = study(models, "tiny", TinyData())
    expected = evaluate(predictor(bundle), "tiny", TinyData(), "test")
    assert (found["task"], found["data"], found["split"], found["n"]) == ("tiny", "made up", "test", 96)
    for row in found["models"]:
        assert row["final"] == expected.to_json()
        assert row["curve"][-1]["top1"] == expected.top1
        assert [(p["token"], p["frames"]) for p in row["curve"]] == [(n, n) for n in range(1, FRAMES + 1)]
    memory, onnx = found["models"]
    assert memory["curve"] == onnx["curve"]
    assert (memory["form"], onnx["form"]) == ("stream, step by step in memory", "stream, step by step in onnxruntime")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    """The shipped smallest model on the embedded sample, with two exits."""
    bundle = source.open_model("lmuformer-xs")
    data = registry.load("task", "speech-commands").open(None, bundle.labels)
    return study({"lmuformer-xs": bundle}, "speech-commands", data, exits=(0.9, 0.99))


def test_the_shipped_model_on_the_embedded_sample(sample: dict[str, Any]) -> None:
    bundle = source.open_model("lmuformer-xs")
    data = registry.load("task", "speech-commands").open(None, bundle.labels)
    expected = evaluate(predictor(bundle), "speech-commands", data, "test")
    (row,) = sample["models"]
    points = {p["token"]: p for p in row["curve"]}
    assert row["final"] == expected.to_json()
    assert points[128]["top1"] == expected.top1
    assert (points[1]["frames"], points[1]["seconds"]) == (6, pytest.approx(0.075))
    assert (points[92]["frames"], points[93]["frames"], points[94]["frames"]) == (97, 98, 98)
    saving = row["saving"]
    assert points[saving["token"]]["top1"] >= 0.99 * expected.top1 > points[saving["token"] - 1]["top1"]
    assert saving["frames"] == saving["token"] + 5
    assert 0 < saving["saved"] < saving["published"]["saved"]
    unsure, sure = row["exits"]
    assert unsure["mean_frames"] < sure["mean_frames"] < 98
    assert unsure["top1"] < sure["top1"] <= expected.top1


def test_only_clips_of_the_official_lists_count() -> None:
    bundle = source.open_model("lmuformer-xs")
    data = registry.load("task", "speech-commands").open(None, bundle.labels)
    whole = data.split("test")
    listed = torch.arange(len(whole.labels)) % 4 == 1

    class Listed:
        labels, origin = data.labels, data.origin

        def split(self, name: str) -> Any:
            return replace(whole, official=listed)

        def calibration(self, n: int) -> Tensor:
            return data.calibration(n)  # type: ignore[no-any-return]

    (row,) = study({"lmuformer-xs": bundle}, "speech-commands", Listed())["models"]
    assert row["final"] == evaluate(predictor(bundle), "speech-commands", Listed(), "test").to_json()
    assert {p["n"] for p in row["curve"]} == {40}


def test_the_figures_of_the_page_on_early_decision_come_out() -> None:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / "speech_commands"
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_DATA is not set to a folder that holds speech_commands/")
    bundle = source.open_model("lmuformer-xs")
    data = registry.load("task", "speech-commands").open(folder, bundle.labels)
    (row,) = study({"lmuformer-xs": bundle}, "speech-commands", data, exits=(0.99,), earliest=50)["models"]
    text = (Path(__file__).resolve().parents[2] / "docs" / "early-decision.md").read_text(encoding="utf-8")
    saving, found = row["saving"], row["exits"][0]
    assert f"| {saving['frames']} of 98 frames, {1000 * saving['seconds']:.0f} ms |" in text
    assert f"| {100 * saving['saved']:.1f} % |" in text
    assert f"| {100 * saving['published']['saved']:.1f} % ({saving['published']['token']} of 128 tokens) |" in text
    assert (
        f"| {100 * found['top1']:.2f} % ({100 * found['ci95'][0]:.1f}–{100 * found['ci95'][1]:.1f}), "
        f"{found['mean_frames']:.1f} frames, {100 * found['saved']:.1f} % |"
    ) in text


def test_the_page_says_what_matters(sample: dict[str, Any]) -> None:
    (row,) = sample["models"]
    text = curve_report.render(sample)
    page = Page(text)
    shown = " ".join(page.texts)
    assert f"{row['saving']['frames']} of 98 frames on" in shown
    assert f"{row['saving']['published']['token']} of 128 tokens" in shown
    assert "test split, n = 160" in shown
    assert "frames heard" in page.texts
    assert "time heard, window of the last frame included" in page.texts
    classes = [a.get("class", "") for _, a in page.tags]
    assert [classes.count(c) for c in ("line s0", "band s0", "ring s0", "gem s0")] == [4, 2, 2, 2]  # two charts, legends
    assert all(tag not in ("script", "link", "img", "iframe") for tag, _ in page.tags)
    assert "src=" not in text
    assert "url(" not in text


def test_names_are_escaped_and_a_model_that_is_never_right_has_a_page(sample: dict[str, Any]) -> None:
    row = json.loads(json.dumps(sample["models"][0]))
    row["model"], row["exits"] = "<i>&", []
    for point in (*row["curve"], row["saving"], row["saving"]["published"], row["final"]):
        point.update(Score(0, 160).to_json())
    text = curve_report.render({**sample, "models": [row]})
    assert "<i>" not in text
    assert "&lt;i&gt;&amp;" in text
    Page(text)
    assert "Stopping when sure" not in text
    assert "close to the end" not in text


def test_files_are_called_by_what_tells_them_apart(sample: dict[str, Any]) -> None:
    row = sample["models"][0]
    alone, first, second = ({**row, "model": name} for name in ("/runs/a/x.onnx", "/runs/a/m.onnx", "/runs/b/m.onnx"))
    assert "Early decision of x.onnx</h1>" in curve_report.render({**sample, "models": [alone]})
    assert "Early decision of a/m.onnx, b/m.onnx</h1>" in curve_report.render({**sample, "models": [first, second]})


# what studies refuse


class Broken(torch.nn.Module):
    """The tiny model with running decisions of its own."""

    def __init__(self, running: Any) -> None:
        super().__init__()
        inner = tiny_bundle().body
        self.inner, self.clip, self.running = inner, inner.clip, running


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("running", "text"),
    [
        (
            lambda x: torch.zeros(len(x), 3),
            r"model tiny: must give finite scores .* \(96, tokens, classes\), got \(96, 3\)",
        ),
        (lambda x: torch.full((len(x), 6, 3), torch.nan), r"got \(96, 6, 3\) with NaN or infinity; correct its running"),
        (lambda x: torch.ones(len(x), 6, 3), r"model tiny: the last running decision must be that of the whole input, got a "),
    ],
    ids=["shape", "nan", "other"],
)
def test_running_decisions_that_are_wrong_are_refused(running: Any, text: str) -> None:
    with pytest.raises(PostconditionError, match=text):
        study({"tiny": tiny_bundle().with_body(Broken(running))}, "tiny", TinyData())


@pytest.mark.usefixtures("plugins")
def test_a_task_with_another_metric_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle()

    def half(self: Any, predict: Any, split: Any, official_only: bool = True) -> Score:
        return Score(int((predict(split.features).argmax(1) == split.labels).sum()) // 2, len(split.labels))

    def twice(self: Any, predict: Any, split: Any, official_only: bool = True) -> Score:
        predict(split.features)
        return half(self, predict, split)

    monkeypatch.setattr(type(TASK), "score", half)
    with pytest.raises(PreconditionError, match=r"evaluate: task tiny must score by the largest class score for a curve, got "):
        study({"tiny": bundle}, "tiny", TinyData())
    monkeypatch.setattr(type(TASK), "score", twice)
    with pytest.raises(PreconditionError, match=r"evaluate: task tiny must score the 96 examples of its official lists once "):
        study({"tiny": bundle}, "tiny", TinyData())


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (("rising", "flat", "falling"), "got rising where it has falling"),
        (("falling", "flat"), "got 2 labels where it has 3 labels"),
    ],
)
def test_models_with_other_labels_are_refused(labels: tuple[str, ...], text: str) -> None:
    bundle = tiny_bundle()
    models = {"bare": replace(bundle, labels=()), "one": bundle, "two": replace(bundle, labels=labels)}
    with pytest.raises(InputError, match=rf"evaluate: two must have the labels of one in the same order, {text}; compare"):
        study(models, "tiny", TinyData())


@pytest.mark.usefixtures("plugins")
def test_an_earliest_frame_beyond_the_input_is_refused() -> None:
    with pytest.raises(UsageError, match=r"evaluate: --exit-from must be a frame of the input, at most 6, got 7; lower it"):
        study({"tiny": tiny_bundle()}, "tiny", TinyData(), exits=(0.5,), earliest=7)


# the command


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    yield
    shared.settings = shared.Settings()


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], prog_name="edgetk")


@pytest.mark.usefixtures("plugins")
def test_the_command_prints_a_table_and_writes_both_files(tmp_path: Path) -> None:
    done = call(TINY, "--curve", "--exit", "0.5", "--exit", "0.9", "--exit-from", "2", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "early decision on tiny, test split of made up, n=96" in done.stdout
    for text in ("frames heard", "95 % interval", "99 % of final", "tokens, as published", "not before 2 frames are heard"):
        assert text in done.stdout
    assert done.stdout.rstrip().endswith(f"page: {tmp_path / 'out' / 'curve.html'}")
    written = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [e["threshold"] for e in written["models"][0]["exits"]] == [0.5, 0.9]
    Page((tmp_path / "out" / "curve.html").read_text())
    printed = call(TINY, "--curve", "--exit", "0.5", "--exit", "0.9", "--exit-from", "2", "--json")
    assert json.loads(printed.stdout) == written


@pytest.mark.usefixtures("plugins")
def test_the_command_compares_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets_curve.py").write_text("from edgetk.testing import tiny_bundle as make\n")
    monkeypatch.chdir(tmp_path)
    done = call(TINY, "--curve", "--against", "my_nets_curve:make", "--json")
    assert done.exit_code == 0, done.stderr
    one, two = json.loads(done.stdout)["models"]
    assert (one["model"], two["model"]) == (TINY, "my_nets_curve:make")
    assert one["curve"] == two["curve"]


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (["--curve", "--wav", "x.wav"], "evaluate: --curve and --wav must not stand together, got both; leave one out", 2),
        (["--exit", "0.9"], "evaluate: --exit must stand with --curve, got it alone; add --curve or leave it out", 2),
        (["--against", TINY], "evaluate: --against must stand with --curve, got it alone; add --curve or leave it out", 2),
        (["-o", "x"], "evaluate: --output must stand with --curve, got it alone; add --curve or leave it out", 2),
        (["--exit-from", "2"], "evaluate: --exit-from must stand with --curve, got it alone; add --curve or leave it out", 2),
        (["--curve", "--exit-from", "2"], "evaluate: --exit-from must stand with --exit, got it alone; add --exit P or ", 2),
        (["--curve", "--exit", "1"], "evaluate: --exit must be a probability between 0 and 1, got 1; 0.9 is one", 2),
        (["--curve", "--exit", "0"], "evaluate: --exit must be a probability between 0 and 1, got 0; 0.9 is one", 2),
        (["--curve", "--exit", "nan"], "evaluate: --exit must be a probability between 0 and 1, got nan; 0.9 is one", 2),
        (["--curve", "--against", TINY], f"evaluate: --against must name each model once, got {TINY} again; leave it out", 2),
        (["--curve", "--against", "lmuformer-xs"], "evaluate: --against must name a model for tiny, got lmuformer-xs for", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_the_command_refuses(arguments: list[str], text: str, code: int) -> None:
    done = call(TINY, *arguments)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout, done.exit_code) == ("", code)


def test_a_model_for_whole_clips_alone_is_refused() -> None:
    done = call("ds-cnn", "--curve")
    assert "evaluate: model ds-cnn must have a stream form to decide early, got one for whole inputs alone; " in (done.stderr)
    assert (done.stdout, done.exit_code) == ("", 1)


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = call("lmuformer-xs", "--curve", "-o", tmp_path / "file")
    assert "choose another folder" in done.stderr
    assert "following" not in done.stderr
    assert done.exit_code == 1
