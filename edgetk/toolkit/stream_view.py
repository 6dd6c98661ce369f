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
_SCORES, _DETECTIONS, _WIDTH = 5, 8, 28
#: the level bar goes from here to full scale, in dB
_QUIET_DB: Final = -70.0


class View:
    """What a terminal shows of one listener; `frame` is its picture now."""

    def __init__(self, listener: Listener, source: str, seconds: float | None = None) -> None:
        self.listener, self.source, self.seconds = listener, source, seconds
        self._found: deque[Heard] = deque(maxlen=_DETECTIONS)
        self._count = 0

    def add(self, found: Sequence[Heard]) -> None:
        """Words that were just detected."""
        self._found.extend(found)
        self._count += len(found)

    def frame(self) -> RenderableType:
        """The whole view."""
        from rich.columns import Columns
        from rich.console import Group
        from rich.panel import Panel

        model = self.listener.model
        head = f"{model.name} in {model.runtime}, listening to {self.source}"
        lower = Columns([Panel(self._scores(), title="scores"), Panel(self._detections(), title=f"detections: {self._count}")])
        return Panel(Group(self._level(), lower, self._numbers()), title=head, title_align="left", width=2 * _WIDTH + 34)

    def _level(self) -> RenderableType:
        from rich.text import Text

        listener = self.listener
        share = (listener.level_db - _QUIET_DB) / -_QUIET_DB
        line = Text.assemble(
            f" {clock(listener.sound_s)} ", (bar(share, 2 * _WIDTH), "green"), f" {listener.level_db:4.0f} dB "
        )
        if listener.gate_rule:
            line.append("open" if listener.open else "closed", style="bold green" if listener.open else "dim")
        return line

    def _scores(self) -> Table:
        table = _plain()
        probabilities = self.listener.probabilities
        if probabilities is None:
            best, values = [""] * _SCORES, [0.0] * _SCORES
            best[0] = "the gate is closed" if not self.listener.open else "filling the window"
        else:
            order = np.argsort(-probabilities, kind="stable")[:_SCORES]
            best, values = [self.listener.model.labels[i] for i in order], probabilities[order].tolist()
        watched = dict(zip(self.listener.model.labels, self.listener.rule.watched(self.listener.model.labels), strict=True))
        for label, value in zip(best, values, strict=False):
            sure = value >= self.listener.rule.threshold and watched.get(label, False)
            style = "bold yellow" if sure else ("cyan" if watched.get(label, False) else "dim")
            table.add_row(
                f"{label:<9}", f"[{style}]{bar(value, _WIDTH - 10)}[/]", f"{value:.2f}" if probabilities is not None else ""
            )
        return table

    def _detections(self) -> Table:
        table = _plain()
        rows = [(clock(hit.time_s), hit.word, f"{hit.score:.3f}") for hit in reversed(self._found)]
        for time_s, word, score in rows + [("", "", "")] * (_SCORES - len(rows)):
            table.add_row(time_s, f"[bold yellow]{word:<{_WIDTH - 18}}[/]", score)
        return table

    def _numbers(self) -> Table:
        table = _plain()
        table.add_column()
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


def _plain() -> Table:
    from rich.table import Table

    return Table.grid(padding=(0, 1))


__all__ = ["View", "bar", "clock", "numbers"]
