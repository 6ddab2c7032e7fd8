"""Show the progress of long work on a terminal: a bar with rate and time left, or a table. A log has lines alone."""

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from fmnist.files import folder_size

Advance = Callable[[int], None]

_LOOK = 0.2  # seconds between two looks at a folder
_PIPE = 10_000  # columns
_GAP = 2  # columns between two of a table; 1 where there is no room


@contextlib.contextmanager
def bar(name: str, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar on stderr, and yield a function that advances it by a number of units.

    Log lines appear above the bar. If stderr is not a terminal, or logs are quiet, nothing is shown.
    """
    console = Console(stderr=True)
    if not console.is_terminal or not logging.getLogger().isEnabledFor(logging.INFO):
        yield lambda _units: None
        return
    percentage = TextColumn("{task.percentage:3.0f}%")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), percentage, _Rate(unit))
    with Progress(*columns, console=console, transient=True) as shown, logging_to_stderr():
        task = shown.add_task(name, total=total)
        yield lambda units: shown.advance(task, units)


@contextlib.contextmanager
def folder_bar(name: str, folder: Path, total: int) -> Iterator[None]:
    """Show a bar of the bytes that another process writes into `folder`."""
    done = threading.Event()

    def watch(advance: Advance) -> None:
        seen = folder_size(folder)
        while not done.wait(_LOOK):
            size = folder_size(folder)
            advance(size - seen)
            seen = size

    with bar(name, total, "bytes") as advance:
        watcher = threading.Thread(target=watch, args=(advance,), name="progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


class _Rate(ProgressColumn):
    """Column of the units per second, and of the time left at that rate."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        if not task.speed or task.time_remaining is None:
            return Text()
        minutes, seconds = divmod(round(task.time_remaining), 60)
        return Text(f"{task.speed:,.0f} {self._unit}/s, {minutes}:{seconds:02} left")


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Let the log's handlers write to the present `sys.stderr`, which a bar has replaced, during the block."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    streams = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            if stream:
                handler.setStream(stream)


class Column(NamedTuple):
    """A column of a table, and its cells from top to bottom."""

    name: str
    cells: Sequence[str]

    @property
    def heads(self) -> list[str]:
        """The lines of its head."""
        return self.name.split("_")

    @property
    def width(self) -> int:
        return max(map(cell_len, [*self.heads, *self.cells]))


def results_console() -> Console:
    """Return the console of results, stdout. In a pipe or a file no line is broken: what reads it wants whole ones."""
    console = Console(file=sys.stdout, highlight=False)
    return console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=_PIPE)


def fits(columns: Sequence[Column], width: int) -> bool:
    """Tell whether a table of the columns has room in so many columns of a screen."""
    return spare(columns, width) >= 0


def spare(columns: Sequence[Column], width: int) -> int:
    """Return how many columns of such a screen a table leaves free; below 0, how many it lacks."""
    return width - _width(columns, 1)


def table(columns: Sequence[Column], width: int, is_bold: Sequence[bool] = ()) -> Table:
    """Return a table for a screen of that width; numbers are flush right.

    Args:
        is_bold: of each row, whether it stands out.
    """
    gap = _GAP if _width(columns, _GAP) <= width else 1
    shown = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in columns:
        is_number = all(re.fullmatch(r"[-+\d.,e/]*", cell) for cell in column.cells)
        head = Text("\n".join(column.heads))
        shown.add_column(head, no_wrap=True, vertical="bottom", justify="right" if is_number else "left")
    for index, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        # As `Text`, since a string would be read as markup.
        shown.add_row(*map(Text, cells), style="bold" if any(is_bold[index : index + 1]) else None)
    return shown


def _width(columns: Sequence[Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)
