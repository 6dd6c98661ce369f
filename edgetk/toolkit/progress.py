"""What is going on, for whoever waits: the `Progress` protocol, a silent one for libraries and a bar on stderr for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


class Lines:
    """For a log file or a pipe: one line on stderr for each task that took more than `patience_s` seconds."""

    def __init__(self, patience_s: float = 2.0) -> None:
        self._patience_s = patience_s

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, what: str, total: float | None = None) -> Iterator[Step]:
        start = time.monotonic()
        yield _NoStep()
        took = time.monotonic() - start
        if took >= self._patience_s:
            self.log(f"{what}: {took:.1f} s")


class Bar:
    """For a person at a terminal: live bars on stderr, nested tasks below each other, gone when they are done."""

    def __init__(self, console: Console) -> None:
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

    def log(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    @contextmanager
    def task(self, what: str, total: float | None = None) -> Iterator[Step]:
        if self._open == 0:
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(what, total=total, note="")
        try:
            yield _Bar(self._bars, task)
        finally:
            self._bars.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()


def on_stderr(quiet: bool = False) -> Progress:
    """Bars where stderr is a terminal, lines where it is not, nothing where `quiet`."""
    if quiet:
        return Silent()
    if not sys.stderr.isatty():
        return Lines()
    from rich.console import Console

    return Bar(Console(stderr=True))
