"""Progress: silent for libraries, lines for pipes, bars for people; logs stay, bars go."""

import io

import pytest
from rich.console import Console

from edgetk.toolkit import progress


def test_silence(capsys):
    silent = progress.Silent()
    silent.log("x")
    with silent.task("work", 3) as step:
        step.advance(1, "note")
    assert capsys.readouterr() == ("", "")


def test_short_tasks_leave_no_line_and_long_ones_do(capsys):
    with progress.Lines(patience_s=3600).task("short"):
        pass
    with progress.Lines(patience_s=0.0).task("long"):
        pass
    assert capsys.readouterr() == ("", "long: 0.0 s\n")


def test_long_tasks_tell_how_far_they_are(capsys):
    with progress.Lines(patience_s=3600, every_s=0.0).task("training", 200) as step:
        step.advance(1, "loss 0.3")
        step.advance(2)
    with progress.Lines(patience_s=3600, every_s=0.0).task("reading") as step:
        step.advance()
    assert capsys.readouterr().err.splitlines() == ["training: 1 of 200, loss 0.3", "training: 3 of 200", "reading: 1"]


def test_bars_show_nested_tasks_and_logs_stay():
    out = io.StringIO()
    bar = progress.Bar(Console(file=out, force_terminal=True, width=120), patience_s=0.0)
    with bar.task("outer", 2) as outer:
        with bar.task("inner") as inner:
            inner.advance(1, "loss 0.3")
        outer.advance()
        bar.log("a [line] that stays")
    text = out.getvalue()
    assert "outer" in text
    assert "a [line] that stays" in text
    assert "inner: 0.0 s" in text


def test_bars_are_put_away_after_an_error():
    bar = progress.Bar(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(KeyboardInterrupt), bar.task("outer"), bar.task("inner"):
        raise KeyboardInterrupt
    with bar.task("again"):
        pass


def test_where_to_report(monkeypatch):
    assert isinstance(progress.on_stderr(quiet=True), progress.Silent)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert progress.on_stderr() == progress.Lines(patience_s=2.0)
    assert progress.on_stderr(verbose=True) == progress.Lines(patience_s=0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(progress.on_stderr(), progress.Bar)
