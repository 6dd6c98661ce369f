"""What passes that take long write down in the run folder, and the bar of what is left of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from edgetk.core.errors import InputError
from edgetk.toolkit.progress import Progress, Step
from edgetk.toolkit.workspace import Workspace

#: folder of the notebooks in a run folder
FOLDER = "notebooks"


@dataclass
class PassNotebook:
    """The notebook of the pass `name` at place `index` of a run. It is of use within a `with` block, which ends the bar."""

    workspace: Workspace
    index: int
    name: str
    progress: Progress
    _entries: list[Mapping[str, Any]] | None = field(default=None, init=False)
    _bar: tuple[contextlib.ExitStack, Step, int] | None = field(default=None, init=False)

    @property
    def file(self) -> str:
        """Its file in the run folder: a line of JSON for each entry."""
        return f"{FOLDER}/{self.index:02d}-{self.name}.jsonl"

    def earlier(self) -> Sequence[Mapping[str, Any]]:
        """What was written before. Raises InputError where it is damaged."""
        if self._entries is None:
            text = self.workspace.read(self.file).decode() if self.workspace.has(self.file) else ""
            try:
                self._entries = [json.loads(line) for line in text.splitlines()]
            except ValueError as error:
                raise InputError(
                    f"workspace: {self.workspace.path(self.file)} must be lines of JSON, got: {error}; "
                    "run again without --resume"
                ) from error
        return tuple(self._entries)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one more entry, whole or not at all."""
        entries = [*self.earlier(), dict(entry)]
        self.workspace.write_text(self.file, "".join(json.dumps(e, allow_nan=False) + "\n" for e in entries))
        self._entries = entries

    def clear(self) -> None:
        """Forget all entries."""
        self.workspace.clear(self.file)
        self._entries = []

    def remaining(self, steps: int) -> None:
        """Move the bar: at most so many more."""
        if self._bar is None:
            stack = contextlib.ExitStack()
            self._bar = stack, stack.enter_context(self.progress.task(f"{self.name}: evaluations", steps)), steps
            return
        stack, bar, before = self._bar
        bar.advance(before - steps, f"{steps} left")
        self._bar = stack, bar, steps

    def __enter__(self) -> PassNotebook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar[0].close()
            self._bar = None


__all__ = ["FOLDER", "PassNotebook"]
