"""What may have a file's name and is none, for tests of readers and writers; nothing that is tried may take long."""

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path


def _socket(path: Path) -> None:
    # The name of a socket may have 108 bytes.
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _file_elsewhere(path: Path) -> None:
    """A link to somebody's file."""
    elsewhere(path).write_text("precious")
    path.symlink_to(elsewhere(path))


def elsewhere(path: Path) -> Path:
    return path.with_name(f"elsewhere-{path.name}")


KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a socket": _socket,
    "a device": _link("/dev/zero"),
    "a dangling link": _link("nowhere/at-all"),
    "a looping link": _loop,
    "a link to a file": _file_elsewhere,
}


def put(kind: str, path: Path) -> None:
    """Put what is no file in the place of `path`, which may be there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](path)


@contextlib.contextmanager
def at_once(seconds: int = 10) -> Iterator[None]:
    """Fail what takes longer."""

    def late(_signum: int, _frame: object) -> None:
        raise AssertionError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
