"""A listener at work, for the terminal: level, best scores, detections, latency in its parts, real-time factor."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edgetk.core import units
from edgetk.tasks.speech import front_end as fe
from edgetk.toolkit.stream_listen import Heard, Listener, Timings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

#: how many scores and detections are shown, and how wide bars are
_ROWS, _WIDTH = 6, 38
#: the level bar goes from here to full scale, in dB
_QUIET_DB: Final = -70.0


class View:
    """What a terminal shows of one listener; `frame` is its picture now."""

    def __init__(self, listener: Listener, source: str, seconds: float | None = None) -> None:
        self.listener, self.source, self.seconds = listener, source, seconds
        self._found: deque[Heard] = deque(maxlen=_ROWS)
        self._count = 0
        self._began_s = listener.sound_s  # of the sounds before this one

    def add(self, found: Sequence[Heard]) -> None:
        """Words that were just detected."""
        self._found.extend(found)
        self._count += len(found)

    def frame(self) -> RenderableType:
        """The whole view."""
        from rich.console import Group
        from rich.panel import Panel

        model = self.listener.model
        head = f"{model.name} in {model.runtime}, listening to {self.source}"
        sides = ((self._scores(), "scores"), (self._detections(), f"detections: {self._count}"))
        lower = _plain(0)
        lower.add_row(*(Panel(table, title=title, width=_WIDTH + 4) for table, title in sides))
        return Panel(Group(self._level(), lower, self._numbers()), title=head, title_align="left", width=2 * _WIDTH + 12)

    def _level(self) -> RenderableType:
        from rich.text import Text

        listener = self.listener
        share = (listener.level_db - _QUIET_DB) / -_QUIET_DB
        line = Text.assemble(
            f" {clock(listener.sound_s - self._began_s)} ",
            (bar(share, 2 * _WIDTH - 17), "green"),
            f" {listener.level_db:4.0f} dB ",
        )
        if listener.gate_rule:
            line.append("open" if listener.open else "closed", style="bold green" if listener.open else "dim")
        return line

    def _scores(self) -> Table:
        table = _plain()
        listener, probabilities = self.listener, self.listener.probabilities
        if probabilities is None:
            table.add_row("[dim]filling the window[/]" if listener.open else "[dim]the gate is closed, the network rests[/]")
            for _ in range(_ROWS - 1):
                table.add_row("")
            return table
        watched = listener.rule.watched(listener.model.labels)
        for i in np.argsort(-probabilities, kind="stable")[:_ROWS].tolist():
            value = float(probabilities[i])
            style = "dim" if not watched[i] else "bold yellow" if value >= listener.rule.threshold else "cyan"
            table.add_row(f"{listener.model.labels[i]:<9}", f"[{style}]{bar(value, _WIDTH - 17)}[/]", f"{value:.2f}")
        return table

    def _detections(self) -> Table:
        table = _plain()
        rows = [(clock(hit.time_s), hit.word, f"{hit.score:.3f}") for hit in reversed(self._found)]
        for time_s, word, score in rows + [("", "", "")] * (_ROWS - len(rows)):
            table.add_row(time_s, f"[bold yellow]{word:<{_WIDTH - 21}}[/]", score)
        return table

    def _numbers(self) -> Table:
        table = _plain()
        for name, value in numbers(self.listener):
            table.add_row(f" {name}", value)
        return table


def numbers(listener: Listener) -> list[tuple[str, str]]:
    """Latency and cost, as name and text: look-ahead is sound that must be heard, compute is work that must be done."""
    model = listener.model
    window, smoothing = fe.WINDOW_SAMPLES / fe.SAMPLE_RATE, listener.rule.window * model.period_s
    ahead = model.lookahead * model.period_s
    rows = [
        ("look-ahead", f"{units.seconds(ahead)} of the network, after a frame of {units.seconds(window)}"),
        ("smoothing", f"mean of the last {units.seconds(smoothing)}; threshold {listener.rule.threshold:g}"),
        ("compute", f"a step {_p50_p99(listener.network)}; front end {_p50_p99(listener.front_end)} a frame"),
        ("real time", f"factor {listener.realtime_factor:.3f} (below 1 keeps up)"),
    ]
    if listener.gate_rule:
        rows.append(("gate", f"the network ran for {units.percent(listener.duty, 1)} of the frames"))
    return rows


def clock(seconds: float) -> str:
    """Time in a stream as "01:02.34", with hours where there are some."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"
    return f"{hours}:{text}" if hours else text


def bar(share: float, width: int) -> str:
    """A bar of `width` characters, filled to `share`, in eighths of a character."""
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width, "·")


def _p50_p99(timings: Timings) -> str:
    return f"{units.seconds(timings.percentile(50))} (p99 {units.seconds(timings.percentile(99))})"


def _plain(between: int = 1) -> Table:
    from rich.table import Table

    return Table.grid(padding=(0, between))


__all__ = ["View", "bar", "clock", "numbers"]
