"""How tokens look at each other, behind one contract: a file each, whose name is the mixer's, with a class `MIXER`."""

from __future__ import annotations

import importlib
import inspect
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

    Raises UnknownName, or UsageError for a setting that it does not have or that is out of range.
    """
    kind = find(name)
    known = tuple(kind.settings())
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"mixer {name}: a setting must be one of its own, got {key!r}; {closest(key, known)}")
        _check(name, kind, key, value)
    return kind(heads, width, length, **settings)


def _check(name: str, kind: type[Mixer], key: str, value: Any) -> None:
    """A setting is whole where its default is, and above 0 where it is not said to be optional."""
    real, zero = isinstance(inspect.signature(kind).parameters[key].default, float), key in kind.may_be_zero
    if not (type(value) is int or (real and type(value) is float)) or not (value >= 0 if zero else value > 0):
        what = f"a {'number' if real else 'whole number'} {'of at least' if zero else 'above'} 0"
        raise UsageError(f"mixer {name}: {key} must be {what}, got {value!r}; correct it")


def name_of(mixer: Mixer) -> str:
    """The name that a mixer is found by: that of its file."""
    return type(mixer).__module__.rpartition(".")[2]


__all__ = ["MASKED", "Mixer", "find", "make", "name_of", "names"]
