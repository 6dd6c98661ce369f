"""Plain data (from TOML or JSON) into a dataclass: unknown keys and wrong types are refused, saying what to write."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from edgetk.core.errors import EdgetkError, RecipeError, UsageError, closest

T = TypeVar("T")


def construct(cls: type[T], values: Mapping[str, Any], who: str) -> T:
    """`cls(**values)` after checking every key and type against the dataclass's fields.

    Lists become tuples and whole numbers become floats where the field asks for it. Raises RecipeError for an unknown or
    missing key, a wrong type, or a value that `cls` itself refuses.
    """
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise EdgetkError(
            f"{who}: its settings must have types that can be looked up, got: {error}; import them in its file"
        ) from error
    for key in values:
        if key not in known:
            raise RecipeError(f"{who}: a setting must be one it has, got {key!r}; {closest(key, known)}")
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise RecipeError(f"{who}: the setting {name!r} must be given, got none; add {name} = … ({_text(hints[name])})")
    checked = {key: coerce(value, hints[key], f"{who}: {key}") for key, value in values.items()}
    try:
        return cls(**checked)
    except UsageError:
        raise
    except (EdgetkError, ValueError, AssertionError) as error:
        text = str(error)
        raise RecipeError(text if text.startswith(who) else f"{who}: {text}") from error


def coerce(value: Any, hint: Any, who: str) -> Any:
    """`value` as the annotation `hint` wants it, or RecipeError. Knows the types that TOML has, tuples, unions, Literal."""
    if hint is Any or hint is object:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return coerce(value, option, who)
            except RecipeError:
                continue
        raise _wrong(value, hint, who)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise RecipeError(f"{who} must be one of {', '.join(map(repr, arguments))}, got {value!r}; correct it")
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return _sequence(value, arguments, hint, who)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, who)
        return {coerce(k, arguments[0], who): coerce(v, arguments[1], f"{who}.{k}") for k, v in value.items()}
    if hint is None or hint is type(None):
        if value is None:
            return None
        raise _wrong(value, hint, who)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise _wrong(value, hint, who)


def _sequence(value: Any, arguments: tuple[Any, ...], hint: Any, who: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong(value, hint, who)
    if len(arguments) == 1 or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return tuple(coerce(v, arguments[0], who) for v in value)
    if len(arguments) != len(value):
        raise _wrong(value, hint, who)
    return tuple(coerce(v, a, who) for v, a in zip(value, arguments, strict=True))


def _wrong(value: Any, hint: Any, who: str) -> RecipeError:
    return RecipeError(f"{who} must be {_text(hint)}, got {value!r}; correct it")


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "nothing"}


def _text(hint: Any) -> str:
    """An annotation in words that someone who writes TOML understands."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_text(a) for a in arguments if a is not type(None))
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        inner = [a for a in arguments if a is not Ellipsis]
        return "a list of " + " and ".join(dict.fromkeys(_text(a) for a in inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table"
    return getattr(hint, "__name__", str(hint))
