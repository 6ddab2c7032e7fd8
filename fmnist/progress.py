"""Show the progress of long work on a terminal: a bar with rate and time left. A log has the jobs' own lines."""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

Advance = Callable[[int], None]

_LOOK = 0.2  # seconds between two looks at a folder


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
        seen = _size(folder)
        while not done.wait(_LOOK):
            size = _size(folder)
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


def _size(folder: Path) -> int:
    size = 0
    # The temporary file of a download vanishes when the download is complete.
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
    return size


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
