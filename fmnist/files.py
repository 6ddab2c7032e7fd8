"""Files of a run or a user: the one way to open each, also on file systems that lack locks or the like; JSON in them.

What has a file's name may be a pipe, a device, a socket, a folder or a link. To read is to follow links, for a run or
a data set may lie elsewhere; and never to wait. To write is to replace, so a link is refused: not what it points at,
nor the link itself, is the program's to change. What a person names as an output is followed, as a shell does it.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from fmnist.errors import BadInput, Busy, explain
from fmnist.text import shorten

logger = logging.getLogger(__name__)

# What parallel and network file systems say to a call that they do not have, or not for this file.
_LACKING = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK, errno.ENOTTY, errno.EPERM}
# What this process has told that a file system lacks.
_warned: set[str] = set()
# Neither waits for another end, nor becomes this process's terminal.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: dict[Callable[[int], bool], str] = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISLNK: "a symbolic link",
}
_MOST = 2**28  # bytes of a file that is read as a whole
_PATTERN = frozenset("*?[]{}\\")
_LOCK_SECONDS = 30.0  # for which a short lock is waited for
_LOCK_LOOK = 0.01
_DRAFT = re.compile(r"\..+\.[0-9a-f]{16}(\.[^.]+)?")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading, through links; on what is no regular file this never waits.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    return open(path, "rb", opener=lambda _path, _flags: _open(path, os.O_RDONLY))


def read_bytes(path: Path, most: int = _MOST) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: as `open_regular`, or it holds more than `most` bytes.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EOVERFLOW, f"it is larger than {most} bytes, which no such file is", str(path))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal.

    Raises:
        OSError: as `open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_replaceable(path: Path) -> None:
    """Raise the OSError that says why `path` is no place for a file: what is there is something else."""
    with contextlib.suppress(FileNotFoundError):
        _check_regular(path.lstat().st_mode, path)


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that replaces it, whole and on disk, when the block ends without an exception.

    Without `durable` it survives this process, as it must, but perhaps not a power cut.

    Raises:
        OSError: it cannot be written, or what has the name is no regular file; a link is none.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private, and some file systems refuse the chmod that would mend that.
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            with _open_draft(draft) as file:
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


def copy(source: Path, path: Path) -> Path:
    """Copy what a file holds, and not its permissions, which some file systems refuse; return `path`.

    Raises:
        OSError: as `open_regular` and `atomic_write`.
    """
    with open_regular(source) as original, atomic_write(path) as made:
        shutil.copyfileobj(original, made)
    return path


def _open_draft(draft: Path) -> IO[bytes]:
    """Open a new file, and lock it: that tells `sweep` that its writer lives."""
    while True:
        file = draft.open("x+b")
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # `sweep` may have come before the lock.
        if draft.exists():
            return file
        file.close()


def sweep(folder: Path) -> None:
    """Remove the drafts in `folder` whose writers were killed; those of living ones are locked.

    Nothing is removed on a file system without locks.
    """
    with contextlib.suppress(OSError):
        for draft in folder.iterdir():
            if _DRAFT.fullmatch(draft.name):
                with contextlib.suppress(OSError), open_lock(draft) as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    draft.unlink()


def replace_folder(made: str, path: Path) -> None:
    """Put the folder or file `made`, of the same file system, in place of `path`; a kill leaves one of the two.

    What was there goes, or is `made` afterwards. On a file system that cannot exchange two folders a kill may leave the
    old one aside, for `recover_folder`.
    """
    if not path.is_dir() or path.is_symlink():
        os.replace(made, path)
        return
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 and not renameat2(_AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE):
        return
    recover_folder(path)
    os.replace(path, _aside(path))
    os.replace(made, path)
    shutil.rmtree(_aside(path))


def recover_folder(path: Path) -> None:
    """Put back what `replace_folder` had put aside when it was killed."""
    if path.exists():
        shutil.rmtree(_aside(path), ignore_errors=True)
    elif _aside(path).exists():
        os.replace(_aside(path), path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` as UTF-8, atomically; what UTF-8 cannot hold (of a file's name) is escaped."""
    with atomic_write(path, durable=durable) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: no other reader takes them."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Return `value` as indented JSON, as `write_json` writes it."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_output(path: Path, text: str) -> None:
    """Write `text` to what a person has named: a file, replaced whole, or a pipe, a terminal or a device.

    Raises:
        OSError: it cannot be written, is a folder or a socket, or is a pipe that nobody reads.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        # A link may point at what is to be made.
        write_text(path.resolve(), text)
        return
    for stream in (sys.stdout, sys.stderr):
        # Such as /dev/stdout: opened anew, a file would be written from its beginning, over what is there.
        with contextlib.suppress(OSError, ValueError):
            if os.path.samestat(found, os.fstat(stream.fileno())):
                stream.write(text)
                stream.flush()
                return
    if not is_stream(path):
        write_text(path.resolve(), text)
        return
    try:
        handle = os.open(path, os.O_WRONLY | _AT_ONCE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            error.strerror = "nobody reads it"
        raise
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def is_stream(path: Path) -> bool:
    """Whether `path` names a pipe or a device, which can be written but holds nothing to be read again."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def read_json(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read an object from JSON.

    Raises:
        BadInput: no such file, not an object, or one of `keys` is missing.
    """
    try:
        value = json.loads(read_bytes(path), parse_float=_finite, parse_constant=_finite)
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


def open_lock(path: Path) -> IO[bytes]:
    """Open, or make, a file to be locked; what it holds stays.

    Raises:
        OSError: it cannot be opened, or is no regular file; a link is none.
    """
    check_replaceable(path)
    return open(path, "r+b", opener=lambda _path, _flags: _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` for a moment; another process that has it is waited for.

    Raises:
        Busy: it has had `what` for half a minute.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    with open_lock(path) as file:
        while not lock(file):
            if time.monotonic() > deadline:
                raise Busy(f"another process has held {what} for {_LOCK_SECONDS:.0f} s; stop it, and try again")
            time.sleep(_LOCK_LOOK)
        yield


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
    """Return a path to `folder`, which is made if missing, for libraries that read a path as UTF-8, or as a pattern.

    Of a name in another encoding they would make a second folder, or an error; of `[x]` they would find `x`.
    """
    with contextlib.suppress(UnicodeEncodeError):
        if str(folder).encode("utf-8") == os.fsencode(folder) and not _PATTERN.intersection(str(folder)):
            return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"


def _open(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | _AT_ONCE, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            _check_regular(path.stat().st_mode, path)
        raise
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for is_kind, name in _KINDS.items():
        if is_kind(mode):
            raise OSError(errno.ENXIO, f"it is {name}, not a file", str(path))


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
