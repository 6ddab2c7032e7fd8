"""Files that are replaced whole, also on file systems that lack locks or the like; JSON and text in them."""

import contextlib
import errno
import fcntl
import functools
import json
import logging
import math
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fmnist.errors import BadInput, explain
from fmnist.text import shorten

logger = logging.getLogger(__name__)

# What parallel and network file systems say to a call that they do not have, or not for this file.
_LACKING = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK, errno.ENOTTY, errno.EPERM}
# What this process has told that a file system lacks.
_warned: set[str] = set()


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that replaces it, whole and on disk, when the block ends without an exception.

    Without `durable` it survives this process, as it must, but perhaps not a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private, and some file systems refuse the chmod that would mend that.
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            with draft.open("x+b") as file:
                yield file
                file.flush()
                if durable:
                    _sync(file)
            # After the close, by which some file systems tell that a write has failed.
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        # A full disk tells no name, and the draft's says little.
        if error.filename in (None, str(draft)):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` as UTF-8, atomically; what UTF-8 cannot hold (of a file's name) is escaped."""
    with atomic_write(path, durable=durable) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: no other reader takes them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read an object from JSON.

    Raises:
        BadInput: no such file, not an object, or one of `keys` is missing.
    """
    try:
        value = json.loads(path.read_bytes(), parse_float=_finite, parse_constant=_finite)
        missing = [key for key in keys if key not in value]
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing; run the job that makes it first") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if line := explain(error):
            raise BadInput(line) from error
        raise BadInput(
            f"{path} is damaged ({shorten(str(error))}); remove it and run the job that makes it again"
        ) from error
    if missing or not isinstance(value, dict):
        raise BadInput(f"{path} is damaged (no {', '.join(missing) or 'object'}); remove it and run its job again")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{shorten(text)} is no finite number")
    return value


def lock(file: IO[Any]) -> bool:
    """Lock an open file for this process, however that ends; return whether no other process has it.

    On a file system without locks nobody has, and a warning says so.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        _warn_once(
            "locks", Path(file.name), error, "nothing keeps a second job out of a run folder; start each job once"
        )
    return True


def check_writable(folder: Path) -> None:
    """Raise the OSError that writing into `folder` meets; the permissions alone do not tell on network mounts."""
    with tempfile.TemporaryFile(dir=folder):
        pass


@functools.cache
def utf8_path(folder: Path) -> str:
    """Return a path to `folder`, which is made if missing, for libraries that read every path as UTF-8.

    Of a name in another encoding they would make a second folder, or an error.
    """
    with contextlib.suppress(UnicodeEncodeError):
        if str(folder).encode("utf-8") == os.fsencode(folder):
            return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"


def _sync(file: IO[bytes]) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        _warn_once("fsync", Path(file.name), error, "a power cut may cost the newest results")


def _warn_once(lack: str, path: Path, error: OSError, loss: str) -> None:
    if lack not in _warned:
        _warned.add(lack)
        logger.warning("the file system of %s has no %s (%s): %s", path.parent, lack, error.strerror, loss)
