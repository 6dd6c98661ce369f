"""How tokens look at each other, behind one contract: a file each, whose name is the mixer's, with a class `MIXER`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from edgetk.core.errors import UnknownName, UsageError, closest
from edgetk.models.layers.mixers._contract import MASKED, Mixer


def names() -> tuple[str, ...]:
    """The mixers that there are: the files of this folder."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def find(name: str) -> type[Mixer]:
    """The class of a mixer. Raises UnknownName."""
    if name not in names():
        raise UnknownName(f"mixer {name!r}: no such mixer; {closest(name, names())}")
    made: type[Mixer] = importlib.import_module(f"{__name__}.{name}").MIXER
    return made


def make(name: str, heads: int, width: int, length: int, **settings: Any) -> Mixer:
    """A mixer for `heads` heads of `width` numbers and at most `length` tokens.

    Raises UnknownName, or UsageError for a setting that it does not have.
    """
    kind = find(name)
    known = tuple(kind.settings())
    for key in settings:
        if key not in known:
            raise UsageError(f"mixer {name}: a setting must be one of its own, got {key!r}; {closest(key, known)}")
    return kind(heads, width, length, **settings)


def name_of(mixer: Mixer) -> str:
    """The name that a mixer is found by: that of its file."""
    return type(mixer).__module__.rpartition(".")[2]


__all__ = ["MASKED", "Mixer", "find", "make", "name_of", "names"]
