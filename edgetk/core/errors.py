"""Every error edgetk raises on purpose, and the exit code each one ends the command line with.

    EdgetkError                 1   anything below; catch this to catch all
    ├── InputError              1   a file or tensor handed in is not what it must be
    ├── PreconditionError       1   a pass or exporter cannot work on this model
    ├── PostconditionError      1   a pass, exporter or plug-in broke its promise
    │   └── ParityError         1   an exported graph does not compute what the model computes
    ├── UsageError              2   the command or the recipe is wrong
    │   ├── UnknownName         2   no plug-in of that name (the text offers the closest ones)
    │   └── RecipeError         2   a recipe has an unknown key or a value out of range
    ├── GoalMissed              3   the run finished and its results are kept, but a goal was not reached
    └── MissingExtra            4   an optional dependency is not installed

Texts follow one pattern: ``<who>: <what must hold>, got <value>; <what to do>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgetkError(Exception):
    """Base of all deliberate errors; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(EdgetkError):
    """A file or tensor that was handed in is not what it must be."""


class PreconditionError(EdgetkError):
    """A pass or exporter cannot work on this model; raised before any work."""


class PostconditionError(EdgetkError):
    """A pass, exporter or plug-in broke its promise."""


class ParityError(PostconditionError):
    """An exported graph does not compute what the model in memory computes."""


class UsageError(EdgetkError):
    """The command or the recipe is wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """No plug-in of that name."""


class RecipeError(UsageError):
    """A recipe has an unknown key or a value out of range."""


class GoalMissed(EdgetkError):
    """The run finished and its results are kept, but a goal was not reached."""

    exit_code = 3


class MissingExtra(EdgetkError):
    """An optional dependency is not installed.

    `who` needs it, `package` is what is missing, `extra` is the edgetk extra that brings it.
    """

    exit_code = 4

    def __init__(self, who: str, package: str, extra: str) -> None:
        super().__init__(f"{who}: needs the package {package}, which is not installed; run: pip install 'edgetk[{extra}]'")
        self.package = package
        self.extra = extra


def closest(name: str, known: Iterable[str]) -> str:
    """The end of an error text about an unknown `name`: close matches, or else all that is `known`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "known: " + (", ".join(known) or "none")
