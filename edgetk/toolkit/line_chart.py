"""Accuracy over what was heard, as inline SVG: a line per model with its 95 % band and marks, two scales of what was heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil

from edgetk.toolkit.charts import begin, ticks

#: how many lines have a colour and dashes of their own; the classes s0, s1, … of the page
SERIES = 6

_WIDTH, _HEIGHT = 900, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 876, 58, 354
#: about the width of a letter of a label
_LETTER = 6.6

XY = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A place that matters to a line: a ring, or a diamond where it is no point of the line; `label` stands beside it.

    Rings are close to where curves end: only a chart that looks close has room for their labels.
    """

    x: float
    y: float
    label: str
    title: str
    diamond: bool = False


@dataclass(frozen=True)
class Line:
    """A curve of (x, y, low, high), and a level that matters to it, drawn thin across a chart that looks close."""

    label: str
    points: Sequence[tuple[float, float, float, float]]
    level: float
    marks: Sequence[Mark] = ()

    def above(self, floor: float) -> Sequence[tuple[float, float, float, float]]:
        """The points from the first one on that reaches `floor`; the last one in any case."""
        first = next((i for i, p in enumerate(self.points) if p[1] >= floor), len(self.points) - 1)
        return self.points[first:]


@dataclass(frozen=True)
class Scales:
    """The names of x and y, and a second scale of x above: its name, and the (x, text) of its ticks between two x."""

    x: str
    y: str
    upper: str
    upper_ticks: Callable[[float, float], Sequence[tuple[float, str]]]


@dataclass
class _Canvas:
    """From numbers to places, and where labels stand already."""

    x: XY
    y: XY
    end: float
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def px(self, x: float) -> float:
        return _LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (_RIGHT - _LEFT)

    def py(self, y: float) -> float:
        return _BOTTOM - (max(y, self.y[0]) - self.y[0]) / (self.y[1] - self.y[0]) * (_BOTTOM - _TOP)

    def path(self, points: Sequence[XY]) -> str:
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)

    def free(self, left: float, y: float, width: float) -> float:
        """The nearest height at or below `y` where a text of this width covers no other."""
        while y + 14 < _BOTTOM and any(abs(y - b) < 14 and left < a + w and a < left + width for a, b, w in self.taken):
            y += 14
        self.taken.append((left, y, width))
        return y


def draw(lines: Sequence[Line], scales: Scales, label: str, floor: float = 0.0) -> str:
    """The chart of what lies above `floor`; above 0 it looks close, and shows the level of each line."""
    shown = [line.above(floor) for line in lines]
    last = max(points[-1][0] for points in shown)
    first = min(points[0][0] for points in shown) - 1 if floor else 0.0
    top = min(1.0, max(p[3] for points in shown for p in points) + 0.02 * (1 - floor))
    canvas = _Canvas((first, last + 0.02 * (last - first)), (floor, top), last)
    parts = [begin(_WIDTH, _HEIGHT, label), _axes(canvas, scales)]
    for i, (line, points) in enumerate(zip(lines, shown, strict=True)):
        band = [(x, high) for x, _, _, high in points] + [(x, low) for x, _, low, _ in reversed(points)]
        parts.append(f'<polygon class="band s{i % SERIES}" points="{canvas.path(band)}"/>')
        if floor and line.level >= floor:
            parts.append(_rule(f"level s{i % SERIES}", _LEFT, _RIGHT, canvas.py(line.level), canvas.py(line.level)))
    for i, points in enumerate(shown):
        path = canvas.path([(x, y) for x, y, _, _ in points])
        parts.append(f'<polyline class="line s{i % SERIES}" points="{path}"/>')
    for i, line in enumerate(lines):
        parts += [_mark(canvas, m, i % SERIES, m.diamond or floor > 0) for m in line.marks if m.y >= floor]
    return "".join([*parts, _legend([line.label for line in lines]), "</svg>"])


def _axes(canvas: _Canvas, scales: Scales) -> str:
    parts = []
    for y in ticks(*canvas.y):
        parts.append(_rule("grid", _LEFT, _RIGHT, canvas.py(y), canvas.py(y)))
        parts.append(_text("num", _LEFT - 8, canvas.py(y) + 4, f"{100 * y:.4g} %", "end"))
    low, high = canvas.x
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if (high - low) / s <= 12), 1000)
    places = list(range(step * ceil(low / step), int(canvas.end) + 1, step))
    if not places or canvas.end - places[-1] > 0.4 * step:
        places.append(int(canvas.end))  # the end of the curves has a number too
    for x in places:
        parts.append(_rule("grid", canvas.px(x), canvas.px(x), _TOP, _BOTTOM))
        parts.append(_text("num", canvas.px(x), _BOTTOM + 17, str(x), "middle"))
    for place, text in scales.upper_ticks(low, high):
        parts.append(_rule("tick", canvas.px(place), canvas.px(place), _TOP - 5, _TOP))
        parts.append(_text("num", canvas.px(place), _TOP - 10, text, "middle"))
    middle = (_LEFT + _RIGHT) / 2
    parts.append(_text("axis", middle, _HEIGHT - 8, scales.x, "middle"))
    parts.append(_text("axis", middle, _TOP - 32, scales.upper, "middle"))
    parts.append(_text("axis", 4, _TOP - 32, scales.y, "start"))
    return "".join(parts)


def _mark(canvas: _Canvas, mark: Mark, series: int, labelled: bool) -> str:
    """Rings have their label below to the right, diamonds above to the left: away from a curve that rises."""
    x, y, width = canvas.px(mark.x), canvas.py(mark.y), _LETTER * len(mark.label)
    if mark.diamond:
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
        shape, end = f'<polygon class="gem s{series}" points="{corners}">', "</polygon>"
    else:
        shape, end = f'<circle class="ring s{series}" cx="{x:.1f}" cy="{y:.1f}" r="6">', "</circle>"
    shape += f"<title>{escape(mark.title)}</title>{end}"
    if not labelled:
        return shape
    before = x - 12 - width > _LEFT and (mark.diamond or x + 12 + width > _RIGHT)
    side, anchor = (x - 12, "end") if before else (x + 12, "start")
    height = canvas.free(side - width if before else side, y - 4 if mark.diamond else y + 18, width)
    return shape + _text(f"lab of s{series}", side, height, mark.label, anchor)


def _legend(labels: Sequence[str]) -> str:
    """In the lower right corner, where a rising curve leaves room."""
    left = _RIGHT - 44 - 7.6 * max(map(len, labels))  # bold
    parts = []
    for i, label in enumerate(labels):
        y = _BOTTOM - 16.0 - 20 * (len(labels) - 1 - i)
        parts.append(_rule(f"line s{i % SERIES}", left, left + 32, y, y))
        parts.append(_text("lab", left + 40, y + 4, label, "start"))
    return "".join(parts)


def _rule(style: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(style: str, x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


__all__ = ["SERIES", "Line", "Mark", "Scales", "draw"]
