"""SI numbers in, readable text out: the only place where units are scaled for a reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def si(value: float, unit: str, digits: int = 3) -> str:
    """`value` in base units with an SI prefix: si(3.1e-3, "s") is "3.1 ms"."""
    if value == 0:
        return f"0 {unit}"
    rounded = float(f"{value:.{digits}g}")  # round first, so that 999.96 becomes 1 k and not 1e+03
    scale, prefix = next((p for p in _PREFIXES if abs(rounded) >= p[0]), _PREFIXES[-1])
    scaled = rounded / scale
    return f"{scaled:.{digits}g} {prefix}{unit}" if abs(scaled) < 1000 else f"{scaled:.0f} {prefix}{unit}"


def seconds(value: float) -> str:
    """Seconds as "3.1 ms"."""
    return si(value, "s")


def joules(value: float) -> str:
    """Joules as "12 µJ"."""
    return si(value, "J")


def size(value: float) -> str:
    """Bytes as "1.62 MB" (powers of ten, as file sizes and data sheets print them)."""
    if value < 1000:
        return f"{value:.0f} B"
    return si(value, "B")


def count(value: float) -> str:
    """A plain count as "215 M" or "1,463"."""
    return f"{value:,.0f}" if abs(value) < 100_000 else si(value, "").strip()


def percent(share: float, digits: int = 2) -> str:
    """A share in [0, 1] as "97.06 %"."""
    return f"{100 * share:.{digits}f} %"


#: What each unit of a figure is printed with.
FORMAT: Mapping[str, Callable[[float], str]] = {"s": seconds, "J": joules, "B": size, "1": count, "share": percent}


def text(value: float, unit: str) -> str:
    """`value` of `unit` for a reader; a unit without a rule of its own gets an SI prefix."""
    return FORMAT[unit](value) if unit in FORMAT else si(value, unit)
