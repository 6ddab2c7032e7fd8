"""The parts of a self-contained HTML page: document, table and line chart. It knows nothing of runs.

Every function takes plain text and returns HTML; this is the only module that escapes.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Literal

_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?")

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --muted: #5b6470; --back: #fff; --panel: #f5f6f8; --line: #d8dce2;
  --series0: #2563b0; --series1: #c2570c; --alert: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e7e9ec; --muted: #9aa4b0; --back: #14171b; --panel: #1d2126;
  --line: #343a42; --series0: #6aa7f0; --series1: #f0965a; --alert: #f2857d; } }
* { box-sizing: border-box; }
body { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--muted); margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 12px; }
h3, figcaption { font-size: .95rem; font-weight: 600; margin: 16px 0 4px; }
p { margin: 4px 0 12px; max-width: 72ch; overflow-wrap: anywhere; }
.verdict { font-size: clamp(1.4rem, 4vw, 2rem); font-weight: 650; line-height: 1.25; margin: 8px 0; }
.alert { border: 2px solid var(--alert); color: var(--alert); border-radius: 6px; padding: 8px 12px; font-weight: 600; }
.muted { color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 4px 16px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top;
  max-width: 70ch; overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
.wide th, .wide td, .heat th { max-width: none; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 16px; }
figure { margin: 0; break-inside: avoid; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 13px; }
svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.series0 { stroke: var(--series0); } .series1 { stroke: var(--series1); stroke-dasharray: 6 3; }
circle.series0 { fill: var(--series0); } circle.series1 { fill: var(--series1); }
svg .mark { stroke: var(--muted); stroke-dasharray: 2 3; }
.heat td { text-align: center; min-width: 44px; padding: 5px 4px; border: 1px solid var(--back);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.heat td.hit { background: color-mix(in srgb, var(--series0) calc(var(--share) * 70%), var(--panel)); }
.heat td.miss { background: color-mix(in srgb, var(--series1) calc(var(--share) * 100%), var(--panel)); }
.heat thead th { text-align: center; padding: 4px; } .heat thead th span { writing-mode: vertical-rl; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .scroll { overflow: visible; }
  h2, h3 { break-after: avoid; } }
"""

_DOCUMENT = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")


@dataclass(frozen=True)
class Series:
    """A named sequence of y values at x = 1, 2, ...; None is left out."""

    name: str
    values: Sequence[float | None]
    style: Literal["line", "steps", "dots"] = "line"


def document(title: str, fragments: Iterable[str]) -> str:
    """The whole page around its fragments."""
    return _DOCUMENT.substitute(title=escape(title), style=_STYLE, body="\n".join(fragments))


def element(tag: str, text: str, kind: str = "") -> str:
    """One element of plain text; `kind` is its class."""
    return f"<{tag}{_class(kind)}>{escape(text)}</{tag}>"


def section(title: str, *fragments: str) -> str:
    """A titled part of the page."""
    return f"<section>{element('h2', title)}{''.join(fragments)}</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column names the rows; columns of numbers are aligned right.

    `kind` is "wide" for a table of many columns: it is scrolled sideways rather than broken into lines.
    """
    names, *columns = zip(*rows, strict=True)
    kinds = ["number" if all(_NUMBER.fullmatch(cell) for cell in column if cell) else "" for column in columns]
    head = "".join(element("th", name, column) for name, column in zip(header, ["", *kinds], strict=False))
    cells = zip(*columns, strict=True)
    body = ("".join(element("td", cell, column) for cell, column in zip(row, kinds, strict=True)) for row in cells)
    return _table(head, zip(names, body, strict=True), kind)


def heat_table(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """A square matrix of counts, each cell shaded by its share of the row; off the diagonal in another colour."""
    head = "<td></td>" + "".join(f"<th><span>{escape(name)}</span></th>" for name in names)
    body = (
        (name, "".join(_heat_cell(count, sum(row), index == column) for column, count in enumerate(row)))
        for index, (name, row) in enumerate(zip(names, matrix, strict=True))
    )
    return _table(head, body, "heat")


def chart(title: str, x_name: str, series: Sequence[Series], mark: int | None = None) -> str:
    """A line chart as inline SVG. `mark` draws a vertical line at that x."""
    width, height, left, right, top, bottom = 480, 270, 56, 12, 28, 34
    values = [value for line in series for value in line.values if value is not None]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    count = max(len(line.values) for line in series)

    def x(position: float) -> float:
        return left + (width - left - right) * (position - 1) / max(count - 1, 1)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * (value - low) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line class=grid x1={left} x2={width - right} y1="{y(tick):.1f}" y2="{y(tick):.1f}" />')
        parts.append(f'<text x={left - 6} y="{y(tick) + 4:.1f}" text-anchor=end>{tick:.4g}</text>')
    for position in sorted({1, (1 + count) // 2, count}):
        parts.append(f'<text x="{x(position):.1f}" y={height - 16} text-anchor=middle>{position}</text>')
    parts.append(f'<text x="{width - right}" y={height - 2} text-anchor=end>{escape(x_name)}</text>')
    if mark:
        parts.append(f'<line class=mark x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1={top} y2={height - bottom} />')
    for index, line in enumerate(series):
        points = [(x(n), y(value)) for n, value in enumerate(line.values, 1) if value is not None]
        legend = left + 150 * index
        parts.append(f"<text x={legend + 28} y=16>{escape(line.name)}</text>")
        if line.style == "dots" or len(points) == 1:
            parts += [
                f'<circle class=series{index} cx="{px:.1f}" cy="{py:.1f}" r=3 />'
                for px, py in [(legend + 18, 12), *points]
            ]
        else:
            parts += [
                _polyline(index, [(legend, 12), (legend + 22, 12)]),
                _polyline(index, points, line.style == "steps"),
            ]
    picture = f'<svg viewBox="0 0 {width} {height}" role=img aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<figure>{element('figcaption', title)}{picture}</figure>"


def charts(pictures: Iterable[str]) -> str:
    """Charts side by side, as many as the width allows."""
    return f"<div class=charts>{''.join(pictures)}</div>"


def _table(head: str, body: Iterable[tuple[str, str]], kind: str) -> str:
    rows = "".join(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>" for name, cells in body)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<div class=scroll><table{_class(kind)}>{head}<tbody>{rows}</tbody></table></div>"


def _heat_cell(count: int, total: int, diagonal: bool) -> str:
    share = count / total if total else 0.0
    # The square root makes the confusions visible: most are below a tenth of the row.
    shade = share if diagonal else share**0.5
    title = f"{share:.1%} of the row"
    return f'<td class={"hit" if diagonal else "miss"} style="--share:{shade:.3f}" title="{title}">{count}</td>'


def _polyline(index: int, points: Sequence[tuple[float, float]], steps: bool = False) -> str:
    if steps:
        corners = [((right, y), (right, next_y)) for (_, y), (right, next_y) in itertools.pairwise(points)]
        points = [points[0], *itertools.chain.from_iterable(corners)]
    return f'<polyline class=series{index} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" />'


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers within the range."""
    wanted = (high - low) / 4
    power = 10 ** math.floor(math.log10(wanted))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(step - wanted))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
