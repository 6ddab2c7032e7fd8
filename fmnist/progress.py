"""How far long work is: on a terminal a bar with rate and time left. A log has the lines that jobs write anyway."""

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
    """A bar on stderr, to advance by a number of units; nothing if that is no terminal, or logs are quiet.

    What is logged meanwhile goes above it.
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
    """A bar of the bytes that come into `folder`, which another process fills."""
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
    # A download's temporary file goes when it is whole.
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
    return size


class _Rate(ProgressColumn):
    """Units a second, and the time left at that rate."""

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
    """A handler of the log keeps the stderr that it began with; the bar puts another in its place meanwhile."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    streams = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            if stream:
                handler.setStream(stream)
