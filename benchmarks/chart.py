"""Charts: lines on two logarithmic axes, as SVG that can be read in any theme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 190, 48, 52
_INK, _GRID, _PAPER = "#1f2328", "#d8dee4", "#ffffff"
_COLOURS = ("#0969da", "#8250df", "#bc4c00", "#1a7f37", "#57606a")


@dataclass(frozen=True)
class Chart:
    """One picture."""

    name: str
    """Of its file, without the suffix."""
    title: str
    across: str
    """What the x axis counts."""
    upwards: str
    """What the y axis measures, with its unit."""
    series: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Points by the name of their line, all positive."""

    def svg(self) -> str:
        """The picture; raises ValueError without any point."""
        points = [point for line in self.series.values() for point in line]
        if not points:
            raise ValueError(f"the chart {self.name} has no points")
        xs = _Axis.over([x for x, _ in points], _LEFT, WIDTH - _RIGHT)
        ys = _Axis.over([y for _, y in points], HEIGHT - _BOTTOM, _TOP)
        font = f'font-family="system-ui, sans-serif" fill="{_INK}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {font}>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{_PAPER}"/>',
            _text(_LEFT, 26, self.title, size=15),
            *self._grid(xs, ys),
            _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12, self.across, anchor="middle"),
            _text(_LEFT, 42, self.upwards, size=11),
        ]
        for line, colour in zip(self.series.values(), _COLOURS, strict=False):
            parts += _line([(xs.at(x), ys.at(y)) for x, y in line], colour)
        parts += self._names(xs, ys)
        return "\n".join([*parts, "</svg>", ""])

    @staticmethod
    def _grid(xs: _Axis, ys: _Axis) -> list[str]:
        parts = []
        for value in ys.ticks:
            y = ys.at(value)
            parts.append(f'<path d="M{xs.start} {y:.1f}H{xs.end}" stroke="{_GRID}"/>')
            parts.append(_text(_LEFT - 8, y + 4, f"{value:,.10g}", anchor="end"))
        for value in xs.ticks:
            x = xs.at(value)
            parts.append(f'<path d="M{x:.1f} {ys.start}V{ys.end}" stroke="{_GRID}"/>')
            parts.append(_text(x, HEIGHT - _BOTTOM + 18, f"{value:,.10g}", anchor="middle"))
        return parts

    def _names(self, xs: _Axis, ys: _Axis) -> list[str]:
        """Beside the last points, pushed apart where they would overlap."""
        ends = [
            (ys.at(line[-1][1]) + 4, xs.at(line[-1][0]) + 10, name, colour)
            for (name, line), colour in zip(self.series.items(), _COLOURS, strict=False)
            if line
        ]
        parts, lowest = [], -math.inf
        for wanted, x, name, colour in sorted(ends):
            lowest = max(wanted, lowest + 16)
            parts.append(_text(x, lowest, name, colour=colour))
        return parts


@dataclass(frozen=True)
class _Axis:
    """Logarithmic, from a power of ten to another."""

    low: int
    high: int
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        """An axis that has room for the values; in pixels from start to end."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1), start, end)

    @property
    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _line(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    return [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = _INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
