"""Build the parts of a self-contained HTML page: document, tables, tiles, pictures. It knows nothing of runs.

Every function takes plain text, or HTML as `fragments`, and returns HTML. Text is escaped here, or in `plots`.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template
from urllib.parse import quote

_NUMBER = re.compile(r"(< )?[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?%?")

_COLORS = 6

_FILES = resources.files("fmnist.report")
_STYLE, _SCRIPT = (_FILES.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# With this policy a browser loads nothing and runs no other script, whatever a name or message contains.
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
    """Return the whole page with these fragments as its body."""
    body = "\n".join(fragments)
    return _DOCUMENT.substitute(title=escape(title), policy=_POLICY, style=_STYLE, script=_SCRIPT, body=body)


def element(tag: str, text: str, kind: str = "", label: str = "") -> str:
    """Return an element that holds plain text; `kind` is its class, `label` what stands before it on a phone."""
    named = f' data-label="{escape(label)}"' if label else ""
    return f"<{tag}{_class(kind)}{named}>{escape(text)}</{tag}>"


def link(text: str, address: str) -> str:
    """Return a link to a file; `address` is its path, relative to the page's folder."""
    return f'<p><a href="{escape(quote(os.fsencode(address)))}">{escape(text)}</a></p>'


def section(title: str, *fragments: str) -> str:
    """Return a section with a title, to which `contents` can link."""
    return f'<section id="{_slug(title)}">{element("h2", title)}{"".join(fragments)}</section>'


def contents(titles: Iterable[str]) -> str:
    """Return links to the sections that have these titles."""
    links = (f'<a href="#{_slug(title)}">{escape(title)}</a>' for title in titles)
    return f"<nav>{''.join(links)}</nav>"


def columns(fragments: Iterable[str]) -> str:
    """Place fragments side by side, as many as the width allows."""
    return f"<div class=columns>{''.join(f'<div>{fragment}</div>' for fragment in fragments)}</div>"


def details(title: str, *fragments: str) -> str:
    """Return fragments that a click on the title unfolds."""
    return f"<details>{element('summary', title)}{''.join(fragments)}</details>"


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Return a tile for each row: the name of a key figure, the figure and a note."""
    cells = (
        f"<div>{element('span', name)}{element('b', value)}{element('small', note)}</div>" for name, value, note in rows
    )
    return f"<div class=tiles>{''.join(cells)}</div>"


def series(color: int) -> str:
    """Return the class of what is drawn in this colour; where there are more than six, their lines differ."""
    return f"series{color % _COLORS} dash{color // _COLORS}" if color >= _COLORS else f"series{color}"


def legend(names: Iterable[tuple[int, str]], *, dots: bool = False) -> str:
    """Return the names of colours, each beside a line or a dot; an empty string if there are none."""
    shape = "<circle class='{}' cx=11 cy=5 r=4.5 />" if dots else "<polyline class='{}' points='0,5 22,5' />"
    entries = [
        f"<span><svg viewBox='0 0 22 10' aria-hidden=true>{shape.format(series(color))}</svg>{escape(name)}</span>"
        for color, name in names
    ]
    return f"<div class=legend>{''.join(entries)}</div>" if entries else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Return a table whose first column names the rows; columns of numbers are aligned right.

    `kind` may contain words: with "wide" a table of many columns does not wrap its lines, but for those of "text", and
    on a phone its rows are lists; with "sortable" a click on a column's head sorts the table.
    """
    names, *columns = zip(*rows, strict=True)
    kinds = ["number" if all(_NUMBER.fullmatch(cell) for cell in column if cell) else "" for column in columns]
    label = "<button>{}</button>" if "sortable" in kind.split() else "{}"
    head = "".join(
        f"<th{_class(column)}>{label.format(escape(name))}</th>"
        for name, column in zip(header, ["", *kinds], strict=False)
    )
    cells = zip(*columns, strict=True)
    labels = header[1:] if "wide" in kind.split() else [""] * len(kinds)
    body = (
        "".join(element("td", cell, column, label) for cell, column, label in zip(row, kinds, labels, strict=True))
        for row in cells
    )
    return _table(head, zip(names, body, strict=True), kind)


def bar_table(header: Sequence[str], rows: Iterable[tuple[str, Sequence[float]]]) -> str:
    """Return a table of shares from 0 to 1, each shown as a number on a bar of that length."""
    head = "".join(element("th", name) for name in header)
    body = (
        (name, "".join(f'<td class=number style="--share:{value:.4f}">{value:.4f}</td>' for value in values))
        for name, values in rows
    )
    return f'<div class=bars style="--columns:{len(header) - 1}">{_table(head, body, "")}</div>'


def heat_table(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Return a square matrix of counts; a cell is shaded by its share of the row, the diagonal in its own colour."""
    head = "<td></td>" + "".join(f"<th><span>{escape(name)}</span></th>" for name in names)
    body = (
        (name, "".join(_heat_cell(count, sum(row), index == column) for column, count in enumerate(row)))
        for index, (name, row) in enumerate(zip(names, matrix, strict=True))
    )
    return _table(head, body, "heat")


def gallery(pictures: Iterable[tuple[bytes, str]]) -> str:
    """Return PNG images with their captions; line breaks in a caption are kept."""
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
