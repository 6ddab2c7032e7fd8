"""Names and texts on systems of any encoding: paths for people and for other programs, and what is printed."""

import contextlib
import io
import os
import sys


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a path, or a word of the command line, as text that UTF-8 can hold: `caf\xe9` where it is not UTF-8.

    The name's own bytes count, whatever the locale takes them for.
    """
    with contextlib.suppress(UnicodeDecodeError):
        return os.fsencode(name).decode("utf-8")
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_name(text: str) -> str:
    """Return the text as a path: its bytes are UTF-8, whatever the locale says."""
    return os.fsdecode(text.encode("utf-8"))


def shorten(text: str, most: int = 120) -> str:
    """Return a text as one line of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def print_anything() -> None:
    """Let stdout and stderr escape what their encoding lacks, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
