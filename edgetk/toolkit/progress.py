"""How a long job tells its caller what it is doing; the command line draws it, a library user may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the steps of a job. `start` opens a step and thereby ends the one before it."""

    def start(self, task: str, total: int | None = None) -> None:
        """A step begins; `total` is how often `advance` will be called, None where that is not known."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Part of the current step is done."""
        ...

    def log(self, text: str) -> None:
        """One line that the user should be able to read later."""
        ...


class Quiet:
    """Says nothing."""

    def start(self, task: str, total: int | None = None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def log(self, text: str) -> None: ...
