"""Charts as inline SVG: colours come from the page's CSS classes, every text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil

_WIDTH = 520


@dataclass(frozen=True)
class Point:
    """A candidate: `x` and `y` with its interval, what to call it, and whether it went on."""

    label: str
    x: float
    y: float
    low: float
    high: float
    kept: bool
    x_text: str
    y_text: str


def bars(rows: Sequence[tuple[str, float, str]], label: str) -> str:
    """Horizontal bars of (name, value, text of the value)."""
    top = max((value for _, value, _ in rows), default=0.0) or 1.0
    height = 26 * len(rows) + 8
    parts = [begin(_WIDTH, height, label)]
    for i, (name, value, text) in enumerate(rows):
        y = 26 * i + 4
        width = max(2.0, 250 * value / top)
        parts.append(f'<text class="lab" x="150" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="160" y="{y + 3}" width="{width:.1f}" height="16" rx="3"/>')
        parts.append(f'<text class="num" x="{166 + width:.1f}" y="{y + 15}">{escape(text)}</text>')
    return "".join(parts) + "</svg>"


def scatter(points: Sequence[Point], x_name: str, y_name: str, label: str) -> str:
    """Accuracy against size on a log axis, whiskers for the intervals, a line through the candidates that went on."""
    from math import log10

    height, left, right, top, bottom = 330, 62, 24, 22, 48
    lo_x = log10(min(p.x for p in points) / 1.35)
    hi_x = log10(max(p.x for p in points) * 1.35)
    spread = max(max(p.high for p in points) - min(p.low for p in points), 0.01)
    lo_y, hi_y = min(p.low for p in points) - 0.08 * spread, max(p.high for p in points) + 0.08 * spread

    def px(x: float) -> float:
        return left + (log10(x) - lo_x) / (hi_x - lo_x) * (_WIDTH - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - lo_y) / (hi_y - lo_y) * (height - top - bottom)

    parts = [begin(_WIDTH, height, label)]
    for y in ticks(lo_y, hi_y):
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text class="num" x="{left - 8}" y="{py(y) + 4:.1f}" text-anchor="end">{100 * y:.4g} %</text>')
    for x, text in _log_ticks(10**lo_x, 10**hi_x):
        parts.append(f'<line class="grid" x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text class="num" x="{px(x):.1f}" y="{height - bottom + 18}" text-anchor="middle">{text}</text>')
    kept = [p for p in points if p.kept]
    path = " ".join(f"{px(p.x):.1f},{py(p.y):.1f}" for p in kept)
    parts.append(f'<polyline class="path" points="{path}"/>')
    taken: list[tuple[float, float]] = []
    for p in points:
        x, y, style = px(p.x), py(p.y), "dot" if p.kept else "dot back"
        parts.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{py(p.low):.1f}" y2="{py(p.high):.1f}"/>')
        title = escape(f"{p.label}: {p.y_text}, {p.x_text}" + ("" if p.kept else " (taken back)"))
        parts.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{title}</title></circle>')
        dy = -12.0
        while any(abs(x - a) < 70 and abs(y + dy - b) < 13 for a, b in taken):
            dy += 13 if dy > 0 else -13
            dy = 22.0 if dy < -40 else dy
        taken.append((x, y + dy))
        right_half = x > _WIDTH - 120
        anchor, dx = ("end", -9) if right_half else ("start", 9)
        parts.append(f'<text class="lab" x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{escape(p.label)}</text>')
    middle = (left + _WIDTH - right) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{height - 8}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text class="axis" x="{left}" y="12">{escape(y_name)}</text>')
    return "".join(parts) + "</svg>"


def interval(before: tuple[float, float, float] | None, after: tuple[float, float, float], label: str) -> str:
    """Two (low, value, high) intervals on one scale, before above after."""
    rows = [(name, v) for name, v in (("before", before), ("after", after)) if v is not None]
    low, high = min(v[0] for _, v in rows), max(v[2] for _, v in rows)
    pad = 0.1 * max(high - low, 1e-3)
    low, high = low - pad, high + pad
    parts = [begin(240, 22 * len(rows) + 4, label)]
    for i, (name, (a, m, b)) in enumerate(rows):
        y = 22 * i + 13
        xa, xm, xb = (56 + 176 * (v - low) / (high - low) for v in (a, m, b))
        parts.append(f'<text class="num" x="48" y="{y + 4}" text-anchor="end">{name}</text>')
        parts.append(f'<line class="whisker" x1="{xa:.1f}" x2="{xb:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot{"" if name == "after" else " back"}" cx="{xm:.1f}" cy="{y}" r="5"/>')
    return "".join(parts) + "</svg>"


def operators(counts: Mapping[str, int], limit: int = 12) -> str:
    """How many nodes of each operator type, most frequent first; the rest together."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, float(n), str(n)) for name, n in ranked[:limit]]
    if rest := sum(n for _, n in ranked[limit:]):
        rows.append((f"{len(ranked) - limit} other types", float(rest), str(rest)))
    return bars(rows, "operators of the graph")


def begin(width: int, height: int, label: str) -> str:
    """The start of a chart; `label` is what a screen reader says."""
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" style="max-width:{width}px">'


def ticks(low: float, high: float) -> list[float]:
    """At most seven round values in [low, high], which span at most 6."""
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 6)
    return [step * i for i in range(ceil(low / step - 1e-9), int(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    from edgetk.core import units

    wanted = [m * 10.0**e for e in range(0, 13) for m in (1, 2, 5)]
    return [(x, units.size(x)) for x in wanted if low <= x <= high]
