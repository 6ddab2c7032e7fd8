"""The parts of a self-contained HTML page: document, tables, tiles, pictures. It knows nothing of runs.

Every function takes plain text and returns HTML. What goes into a page is escaped here, or in `plots`.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from urllib.parse import quote

_NUMBER = re.compile(r"(< )?[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?")

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --muted: #5b6470; --back: #fff; --panel: #f5f6f8; --line: #d8dce2;
  --series0: #2563b0; --series1: #c2570c; --series2: #1a7f4b; --series3: #8b3fb5; --series4: #b02a55;
  --series5: #6b6f2a; --low: #d3d9e2; --alert: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e7e9ec; --muted: #9aa4b0; --back: #14171b; --panel: #1d2126;
  --line: #343a42; --series0: #6aa7f0; --series1: #f0965a; --series2: #57c08a; --series3: #c58ae8; --series4: #f07f9f;
  --series5: #c0c56a; --low: #3a424d; --alert: #f2857d; } }
* { box-sizing: border-box; }
body { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--muted); margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 44px 0 12px; padding-top: 12px; border-top: 1px solid var(--line); }
h3, figcaption { font-size: .95rem; font-weight: 600; margin: 16px 0 4px; }
p { margin: 4px 0 12px; max-width: 72ch; overflow-wrap: anywhere; }
a { color: var(--series0); }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 16px 0; font-size: .9rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
.verdict { font-size: clamp(1.4rem, 4vw, 2rem); font-weight: 650; line-height: 1.25; margin: 8px 0; }
.alert { border: 2px solid var(--alert); color: var(--alert); border-radius: 6px; padding: 8px 12px; font-weight: 600; }
.muted { color: var(--muted); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 16px 0; }
.tiles div { background: var(--panel); border-radius: 8px; padding: 10px 14px; }
.tiles b { display: block; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles span, .tiles small { display: block; color: var(--muted); font-size: .85rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 4px 16px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top;
  max-width: 70ch; overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
.wide th, .wide td, .heat th, .bars th { max-width: none; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
thead button::after { content: "\\2195"; opacity: .35; padding-left: 3px; }
[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 16px 24px; }
.columns > * { min-width: 0; }
figure { margin: 0; break-inside: avoid; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--series0); }
svg { display: block; width: 100%; height: auto; }
svg.broad { min-width: 760px; }
svg text { fill: var(--muted); font-size: 13px; paint-order: stroke; stroke: var(--back); stroke-width: 4px; }
svg .grid, svg .axis { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .mark { stroke: var(--muted); stroke-dasharray: 2 3; }
svg .trial { stroke: color-mix(in oklab, var(--series1) calc(var(--share) * 100%), var(--low)); stroke-width: 2.5; }
svg .trial:hover { stroke: var(--text); stroke-width: 4; }
.series0 { --series: var(--series0); } .series1 { --series: var(--series1); } .series2 { --series: var(--series2); }
.series3 { --series: var(--series3); } .series4 { --series: var(--series4); } .series5 { --series: var(--series5); }
polyline, line { stroke: var(--series); } circle { fill: var(--series); }
polyline.series1 { stroke-dasharray: 6 3; } polyline.series2 { stroke-dasharray: 2 2; }
polyline.series3 { stroke-dasharray: 10 3 2 3; }
circle.weak { fill-opacity: .55; stroke: var(--series); }
.heat th, .bars th { padding-right: 8px; }
.heat td { text-align: center; min-width: 38px; padding: 5px 2px; border: 1px solid var(--back); }
.heat td, .bars td, .tiles div { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.heat td.hit { background: color-mix(in srgb, var(--series0) calc(var(--share) * 70%), var(--panel)); }
.heat td.miss { background: color-mix(in srgb, var(--series1) calc(var(--share) * 100%), var(--panel)); }
.heat thead th { text-align: center; padding: 4px; } .heat thead th span { writing-mode: vertical-rl; }
.bars table { width: 100%; } .bars th:first-child { width: 1%; }
  .bars td.number { min-width: 72px; padding: 4px; border: solid var(--back);
  border-width: 1px 6px 1px 0; background: linear-gradient(90deg, color-mix(in srgb, var(--series0) 38%, var(--back))
  calc(var(--share) * 100%), var(--panel) 0); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(108px, 1fr)); gap: 16px 12px; }
.gallery img { display: block; width: 84px; height: 84px; image-rendering: pixelated; border-radius: 4px; }
.gallery figcaption { font-weight: 400; font-size: .82rem; line-height: 1.35; margin: 4px 0 0; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .scroll { overflow: visible; }
  nav { display: none; }
  svg.broad { min-width: 0; } h2, h3, section > p { break-after: avoid; }
  table.wide { font-size: 8px; } .columns > *, .gallery figure, .tiles div { break-inside: avoid; }
  thead button::after { content: none; } }
"""

# A click on a column's head sorts by it, numbers as numbers, what is empty last; a second one the other way.
_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, up = head.ariaSort !== "ascending";
      for (const other of head.parentElement.cells) other.ariaSort = null;
      head.ariaSort = up ? "ascending" : "descending";
      const text = (row) => row.cells[head.cellIndex].textContent;
      const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (text(a) === "") - (text(b) === "") || compare(text(a), text(b)));
      table.tBodies[0].append(...rows);
    });
  }
}
"""
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# A browser that is told so loads nothing from elsewhere and runs no other script, whatever a name or message holds.
_POLICY = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'"

_DOCUMENT = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
$body
<script>$script</script>
</body>
</html>
""")


def document(title: str, fragments: Iterable[str]) -> str:
    """The whole page around its fragments."""
    body = "\n".join(fragments)
    return _DOCUMENT.substitute(title=escape(title), policy=_POLICY, style=_STYLE, script=_SCRIPT, body=body)


def element(tag: str, text: str, kind: str = "") -> str:
    """One element of plain text; `kind` is its class."""
    return f"<{tag}{_class(kind)}>{escape(text)}</{tag}>"


def link(text: str, address: str) -> str:
    """A link to a file, by its path from the page's folder."""
    return f'<p><a href="{escape(quote(os.fsencode(address)))}">{escape(text)}</a></p>'


def section(title: str, *fragments: str) -> str:
    """A titled part of the page, which `contents` can lead to."""
    return f'<section id="{_slug(title)}">{element("h2", title)}{"".join(fragments)}</section>'


def contents(titles: Iterable[str]) -> str:
    """Links to the sections of these titles."""
    links = (f'<a href="#{_slug(title)}">{escape(title)}</a>' for title in titles)
    return f"<nav>{''.join(links)}</nav>"


def columns(fragments: Iterable[str]) -> str:
    """Fragments side by side, as many as the width allows."""
    return f"<div class=columns>{''.join(f'<div>{fragment}</div>' for fragment in fragments)}</div>"


def details(title: str, *fragments: str) -> str:
    """What a click on the title unfolds."""
    return f"<details>{element('summary', title)}{''.join(fragments)}</details>"


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: of each its name, the figure and a note."""
    cells = (
        f"<div>{element('span', name)}{element('b', value)}{element('small', note)}</div>" for name, value, note in rows
    )
    return f"<div class=tiles>{''.join(cells)}</div>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column names the rows; columns of numbers are aligned right.

    `kind` holds "wide" for a table of many columns, which is scrolled sideways rather than broken into lines, and
    "sortable" for one that a click on a column's head sorts.
    """
    names, *columns = zip(*rows, strict=True)
    kinds = ["number" if all(_NUMBER.fullmatch(cell) for cell in column if cell) else "" for column in columns]
    label = "<button>{}</button>" if "sortable" in kind.split() else "{}"
    head = "".join(
        f"<th{_class(column)}>{label.format(escape(name))}</th>"
        for name, column in zip(header, ["", *kinds], strict=False)
    )
    cells = zip(*columns, strict=True)
    body = ("".join(element("td", cell, column) for cell, column in zip(row, kinds, strict=True)) for row in cells)
    return _table(head, zip(names, body, strict=True), kind)


def bar_table(header: Sequence[str], rows: Iterable[tuple[str, Sequence[float]]]) -> str:
    """Shares from 0 to 1, each a number on a bar of that length."""
    head = "".join(element("th", name) for name in header)
    body = (
        (name, "".join(f'<td class=number style="--share:{value:.4f}">{value:.4f}</td>' for value in values))
        for name, values in rows
    )
    return f"<div class=bars>{_table(head, body, '')}</div>"


def heat_table(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """A square matrix of counts, each cell shaded by its share of the row; off the diagonal in another colour."""
    head = "<td></td>" + "".join(f"<th><span>{escape(name)}</span></th>" for name in names)
    body = (
        (name, "".join(_heat_cell(count, sum(row), index == column) for column, count in enumerate(row)))
        for index, (name, row) in enumerate(zip(names, matrix, strict=True))
    )
    return _table(head, body, "heat")


def gallery(pictures: Iterable[tuple[bytes, str]]) -> str:
    """PNG images with their captions, whose lines stay lines."""
    figures = []
    for png, caption in pictures:
        lines = "<br>".join(escape(line) for line in caption.splitlines())
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        text = escape(caption.replace("\n", ", "))
        figures.append(f'<figure><img src="{source}" alt="{text}"><figcaption>{lines}</figcaption></figure>')
    return f"<div class=gallery>{''.join(figures)}</div>"


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


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
