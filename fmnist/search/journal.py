"""Keep a search's changes in a file to which lines are added: what a change costs does not grow with the search.

A line is a checksum and a JSON object. Lines are read in their order, and what a line says replaces what earlier ones
said of the same, so a line that is there twice changes nothing. What a kill or a full disk leaves of a line fails its
checksum.
"""

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fmnist.errors import BadInput
from fmnist.files import append, atomic_write, open_regular

Line = dict[str, Any]

NAME = "journal"
"""Its name in the folder of the search."""


class Journal:
    """The file of a search, which one process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[bytes] = []
        self._durable = False

    def read(self, take: Callable[[Line], None]) -> bool:
        """Call `take` with each line; return whether all are whole, but for a last one that a kill has cut off.

        Raises:
            BadInput: the file cannot be read, or not be written.
        """
        whole, size = read(self.path, take)
        try:
            if self.path.exists() and self.path.stat().st_size > size:
                # Or the next line would be added to the one that is cut off.
                os.truncate(self.path, size)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error.strerror}") from error
        return whole

    def replace(self, lines: Iterable[Line]) -> None:
        """Write the whole file anew."""
        with atomic_write(self.path) as file:
            file.writelines(map(_encode, lines))

    def add(self, line: Line, *, durable: bool) -> None:
        """Add a line, which `flush` writes; one that is not `durable` may be lost by a power cut."""
        self._pending.append(_encode(line))
        self._durable |= durable

    def flush(self) -> None:
        """Write the lines that were added, and wait for the disk if one of them is durable.

        Raises:
            OSError: they cannot be written now; the next call tries again.
        """
        if not self._pending:
            return
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            append(self.path, b"".join(self._pending), durable=self._durable)
        except OSError:
            self._take_back(size)
            raise
        self._pending.clear()
        self._durable = False

    def _take_back(self, size: int) -> None:
        """Remove what a failed call may have written after the first `size` bytes."""
        try:
            os.truncate(self.path, size)
        except OSError:
            # The last line may not be whole: what follows begins another one.
            if self._pending[0] != b"\n":
                self._pending.insert(0, b"\n")


def read(path: Path, take: Callable[[Line], None], begin: int = 0) -> tuple[bool, int]:
    """Call `take` with each line of a journal from byte `begin` on; it may be written meanwhile.

    Returns:
        Whether all lines are whole, but for a last one that has no end, and the bytes before that one.

    Raises:
        BadInput: the file cannot be read.
    """
    whole, size = True, begin
    try:
        with contextlib.suppress(FileNotFoundError), open_regular(path) as file:
            file.seek(begin)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                if raw != b"\n":
                    whole &= _taken(raw, take)
                size += len(raw)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    return whole, size


def _encode(line: Line) -> bytes:
    # As Keras Tuner writes JSON: it may contain NaN, as a metric of a stock worker.
    text = json.dumps(line, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _taken(raw: bytes, take: Callable[[Line], None]) -> bool:
    """Call `take` with what a line says; return False if it is damaged, or not what this version writes."""
    checksum, _, text = raw[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return False
    try:
        take(json.loads(text))
    except (KeyError, TypeError):
        return False
    return True
