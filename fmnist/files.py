"""Open, read, write and lock the files of a run or a user, also on file systems that lack locks or the like.

A path may name a pipe, a device, a socket, a folder or a link. Reading follows links, because a run or a data set may
lie elsewhere, and it never waits. Writing replaces a file, so it refuses a link: the program may change neither the
link nor its target. A link that a person names as an output is followed, as a shell follows it.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from fmnist.errors import BadInput, Contended, explain
from fmnist.text import shorten

logger = logging.getLogger(__name__)

# Errors by which parallel and network file systems refuse a call that they lack, or lack for this file.
_LACKING = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK, errno.ENOTTY, errno.EPERM}
# The missing features of file systems that this process has already warned of.
_warned: set[str] = set()
# Do not wait for the other end of a pipe; do not make a terminal this process's own.
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
_LOCK_SECONDS = 30.0  # the longest wait for a short lock
_LOCK_LOOK = 0.01
_DRAFT = re.compile(r"\..+\.[0-9a-f]{16}(\.[^.]+)?")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux's constants


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Return a command line with `~/` replaced at the beginning of its paths: most shells leave it in `--run=~/x`."""
    home = os.path.expanduser("~")
    return [re.sub(r"^(--[a-z-]+=)?~(?=/|$)", lambda option: (option[1] or "") + home, word) for word in arguments]


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading, through links. Never wait, whatever the path names.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    return open(path, "rb", opener=lambda _path, _flags: _open(path, os.O_RDONLY))


def read_bytes(path: Path, most: int = _MOST) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: as `open_regular`, or the file holds more than `most` bytes.
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
    """Check that `path` is free or names a regular file.

    Raises:
        OSError: something else has the name, such as a folder or a link.
    """
    with contextlib.suppress(FileNotFoundError):
        _check_regular(path.lstat().st_mode, path)


def check_output(path: Path) -> None:
    """Check that a path that a person has named can be written, before what goes there is computed.

    Raises:
        OSError: it cannot, or something else has the name, such as a folder.
    """
    if is_stream(path):
        return
    target = Path(os.path.realpath(path))
    check_replaceable(target)
    try:
        check_writable(next(folder for folder in target.parents if folder.exists()))
    except OSError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path`, whole and on disk, when the block ends without an exception.

    Without `durable` the file survives a kill of this process, but perhaps not a power cut.

    Raises:
        OSError: the file cannot be written, or something else has the name, such as a folder or a link.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: its files are private, and some file systems refuse the chmod that would change that.
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            with _open_draft(draft) as file:
                yield file
                file.flush()
                if durable:
                    _sync(file)
            # After the close: some file systems report only then that a write has failed.
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        # The error of a full disk has no file name, and the draft's name says little.
        if error.filename in (None, str(draft)):
            error.filename = str(path)
        raise


def append(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` at the end of a file, which is made if it is missing; with `durable` it is on disk then.

    Raises:
        OSError: not all of it could be written (the file may hold a part of it), or something else has the name.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        with open(path, "ab", buffering=0, opener=lambda _path, _flags: _open(path, flags)) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            if durable:
                _sync(file)
    except OSError as error:
        # The error of a full disk has no file name.
        error.filename = error.filename or str(path)
        raise


def copy(source: Path, path: Path) -> Path:
    """Copy a file's content, but not its permissions, which some file systems refuse; return `path`.

    Raises:
        OSError: as `open_regular` and `atomic_write`.
    """
    with open_regular(source) as original, atomic_write(path) as made:
        shutil.copyfileobj(original, made)
    return path


def _open_draft(draft: Path) -> IO[bytes]:
    """Open a new file, and lock it: the lock tells `sweep` that the writer is alive."""
    while True:
        file = draft.open("x+b")
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # `sweep` may have removed the file before it was locked.
        if draft.exists():
            return file
        file.close()


def sweep(folder: Path) -> None:
    """Remove the drafts in `folder` whose writers were killed; a living writer holds a lock on its draft.

    On a file system without locks nothing is removed.
    """
    with contextlib.suppress(OSError):
        for draft in folder.iterdir():
            if _DRAFT.fullmatch(draft.name):
                with contextlib.suppress(OSError), open_lock(draft) as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    draft.unlink()


def replace_folder(made: str, path: Path) -> None:
    """Replace `path` by the folder or file `made`, on the same file system; after a kill one of the two is there.

    The old content is removed, or is in `made` afterwards. On a file system that cannot exchange two folders, a kill
    may leave the old folder under another name; `recover_folder` puts it back.
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
    """Put back the folder that `replace_folder` had renamed when it was killed; remove it if `path` exists."""
    if path.exists():
        shutil.rmtree(_aside(path), ignore_errors=True)
    elif _aside(path).exists():
        os.replace(_aside(path), path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` as UTF-8, atomically; characters that UTF-8 cannot hold (from a file's name) are escaped."""
    with atomic_write(path, durable=durable) as file:
        file.write(_utf8(text))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raise ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Return the text of `value` as indented JSON, as `write_json` writes it."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_output(path: Path, text: str) -> None:
    """Write `text` to a path that a person has named: a file, replaced atomically, a pipe, a terminal or a device.

    Raises:
        OSError: the path cannot be written, is a folder or a socket, or is a pipe that nobody reads.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        # A link may point at a file that does not exist yet.
        write_text(path.resolve(), text)
        return
    if own := _own_stream(found):
        # To open a file again would overwrite it from its beginning.
        own.flush()
        own.buffer.write(_utf8(text))
        own.buffer.flush()
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
        file.write(_utf8(text))


def is_stream(path: Path) -> bool:
    """Tell whether `path` is not to be read back: a pipe, a character device, or this process's stdout or stderr."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode) or _own_stream(found) is not None


def _own_stream(found: os.stat_result) -> TextIO | None:
    """Return this process's stdout or stderr, if `found` is one of them, as /dev/stdout is."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if os.path.samestat(found, os.fstat(stream.fileno())):
                return stream
    return None


def _utf8(text: str) -> bytes:
    """Encode a text; characters that UTF-8 cannot hold (from a file's name) are escaped."""
    return text.encode("utf-8", "backslashreplace")


REMEDY = "remove it and run the job that makes it again"
"""What to do about a damaged file, if there is nothing better."""


def read_json(path: Path, keys: tuple[str, ...] = (), remedy: str = REMEDY) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        remedy: what to do if the file is damaged, for the error.

    Raises:
        BadInput: the file is missing, cannot be read, holds no JSON object, or lacks one of `keys`.
    """
    try:
        value = json.loads(read_bytes(path), parse_float=_finite, parse_constant=_finite)
        missing = [key for key in keys if key not in value]
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing; run the job that makes it first") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if line := explain(error):
            raise BadInput(line) from error
        raise BadInput(f"{path} is damaged ({shorten(str(error))}); {remedy}") from error
    if missing or not isinstance(value, dict):
        raise BadInput(f"{path} is damaged (no {', '.join(missing) or 'object'}); {remedy}")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{shorten(text)} is no finite number")
    return value


def open_lock(path: Path) -> IO[bytes]:
    """Open a file to be locked, and create it if it is missing; its content stays.

    Raises:
        OSError: the file cannot be opened, or is not a regular file (a link is not).
    """
    check_replaceable(path)
    return open(path, "r+b", opener=lambda _path, _flags: _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock on the file `path` during the block; wait while another process holds it.

    Args:
        what: what the lock protects, for the message.

    Raises:
        Contended: other processes have held the lock for half a minute.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    with open_lock(path) as file:
        while not lock(file):
            if time.monotonic() > deadline:
                raise Contended(f"another process has held {what} for {_LOCK_SECONDS:.0f} s; stop it, and try again")
            time.sleep(_LOCK_LOOK)
        yield


def lock(file: IO[Any]) -> bool:
    """Lock an open file until this process ends or closes it; return False if another process has the lock.

    On a file system without locks, return True and log a warning.
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


def is_locked(path: Path) -> bool:
    """Tell whether another process, or this one, has locked a file; False where files have no locks."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder; those that vanish meanwhile do not count."""
    size = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                found = path.lstat()
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


def check_writable(folder: Path) -> None:
    """Check that `folder` can be written, by writing: on network mounts the permissions alone do not tell.

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder):
        pass


@functools.cache
def utf8_path(folder: Path) -> str:
    """Return a path to `folder` for libraries that read a path as UTF-8, or as a pattern.

    For a name in another encoding such a library would create a second folder, or fail; for `[x]` it would find `x`.
    For such a name, create the folder if it is missing, and return the path of an open descriptor.
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
            with contextlib.suppress(FileNotFoundError):
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
