"""What is going on, for whoever waits: the `Progress` protocol, a silent one for libraries and a bar on stderr for people."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Step(Protocol):
    """One thing under way."""

    def advance(self, n: float = 1, note: str = "") -> None:
        """`n` more of the total is done; `note` is shown beside the bar (a loss, an accuracy)."""
        ...


class Progress(Protocol):
    """Where long work says how far it is. Nothing may depend on anybody listening."""

    def log(self, text: str) -> None:
        """One line that stays."""
        ...

    def task(self, what: str, total: float | None = None) -> AbstractContextManager[Step]:
        """A bar for as long as the `with` block lasts; without `total` it only shows that time passes."""
        ...


class _NoStep:
    def advance(self, n: float = 1, note: str = "") -> None:
        pass


class Silent:
    """Says nothing: the default of everything that takes a `Progress`."""

    def log(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, what: str, total: float | None = None) -> Iterator[Step]:
        yield _NoStep()


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, n: float = 1, note: str = "") -> None:
        self._bars.advance(self._task, n)
        if note:
            self._bars.update(self._task, note=note)


class _Line:
    def __init__(self, lines: Lines, what: str, total: float | None) -> None:
        self._lines, self._what, self._total = lines, what, total
        self._done = 0.0
        self._said = time.monotonic()

    def advance(self, n: float = 1, note: str = "") -> None:
        self._done += n
        if time.monotonic() - self._said >= self._lines.every_s:
            self._said = time.monotonic()
            of = f" of {self._total:g}" if self._total is not None else ""
            self._lines.log(f"{self._what}: {self._done:g}{of}" + (f", {note}" if note else ""))


@dataclass(frozen=True)
class Lines:
    """For a log file or a pipe: a line on stderr for each task that took over `patience_s`, and every `every_s` of it."""

    patience_s: float = 2.0
    every_s: float = 30.0

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, what: str, total: float | None = None) -> Iterator[Step]:
        start = time.monotonic()
        yield _Line(self, what, total)
        took = time.monotonic() - start
        if took >= self.patience_s:
            self.log(f"{what}: {took:.1f} s")


class Bar:
    """For a person at a terminal: live bars on stderr, nested tasks below each other, gone when they are done.

    Tasks that took longer than `patience_s` leave a line.
    """

    def __init__(self, console: Console, patience_s: float = math.inf) -> None:
        from rich import progress

        self._bars = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._open = 0
        self._patience_s = patience_s

    def log(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    @contextmanager
    def task(self, what: str, total: float | None = None) -> Iterator[Step]:
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(what, total=total, note="")
        start = time.monotonic()
        try:
            yield _Bar(self._bars, task)
            took = time.monotonic() - start
            if took >= self._patience_s:
                self.log(f"{what}: {took:.1f} s")
        finally:
            self._bars.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()


def on_stderr(quiet: bool = False, verbose: bool = False) -> Progress:
    """Bars where stderr is a terminal, lines where it is not, nothing where `quiet`; `verbose` tells what every task took."""
    if quiet:
        return Silent()
    if not sys.stderr.isatty():
        return Lines(patience_s=0.0) if verbose else Lines()
    from rich.console import Console

    return Bar(Console(stderr=True), 0.0 if verbose else math.inf)
