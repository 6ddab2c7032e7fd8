"""Handle names and texts on systems of any encoding: paths for people and other programs, and printed output."""

import contextlib
import errno
import io
import os
import re
import select
import stat
import sys
import textwrap
from typing import Any

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# Errors of a write to a terminal or pipe that nobody reads any more.
_GONE = (errno.EIO, errno.EPIPE, errno.ENXIO, errno.ECONNRESET, errno.ENOTCONN)


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a path as text for a person: as `decoded`, with control characters escaped."""
    return escaped(decoded(name))


def escaped(text: str) -> str:
    r"""Return the text with its control characters written as `\x1b` or `\n`: a terminal would obey them."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def decoded(name: str | os.PathLike[str]) -> str:
    r"""Return a path, or a word of the command line, as text that UTF-8 can hold: `caf\xe9` where it is not UTF-8.

    The name's bytes are read as UTF-8, whatever the locale's encoding is.
    """
    with contextlib.suppress(UnicodeDecodeError):
        return os.fsencode(name).decode("utf-8")
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_name(text: str) -> str:
    """Return the text as a path whose bytes are UTF-8, whatever the locale's encoding is."""
    return os.fsdecode(text.encode("utf-8"))


def shorten(text: str, most: int = 120) -> str:
    """Return a text as one line of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def wrap(text: str, first: str = "") -> str:
    """Return a text as lines of at most 79 columns, the first one after `first`, the others indented.

    Words stay whole, however long they are.
    """
    return textwrap.fill(
        text, 79, initial_indent=first, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def print_anything() -> None:
    """Let stdout and stderr escape characters that their encoding lacks, and go on when nobody reads them any more.

    A job's output may be lost with its terminal; the job goes on. A result that a full disk refuses is still an error.
    """
    sys.stdout = _outliving(sys.stdout, is_result=True)
    sys.stderr = _outliving(sys.stderr, is_result=False)


def _outliving(stream: Any, *, is_result: bool) -> Any:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        stream.flush()
        file = _Outliving(stream, is_result)
    except (OSError, ValueError):
        # The stream has no descriptor, or is closed.
        stream.reconfigure(errors="backslashreplace")
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or not is_result,
    )


class _Outliving(io.FileIO):
    """The descriptor of a standard stream. Output that nobody reads counts as written."""

    def __init__(self, stream: io.TextIOWrapper, is_result: bool) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        # Kept, because a stream that is deleted closes its descriptor.
        self._stream = stream
        self._must_tell = is_result
        self._is_file = stat.S_ISREG(os.fstat(self.fileno()).st_mode)

    def write(self, text: Any) -> int:
        try:
            written = super().write(text)
        except OSError as error:
            if self._must_tell and (self._is_file or error.errno not in _GONE):
                # Raise once, and not again when the process ends.
                self._must_tell = False
                raise
            return len(text)
        if written is None:
            # Another process has made the terminal or pipe non-blocking.
            select.select([], [self], [])
            return 0
        return written
