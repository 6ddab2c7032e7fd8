"""Keep a user from running the same job twice at a time; the lock is released however the job ends."""

import contextlib
import hashlib
import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fmnist.errors import BadInput
from fmnist.files import lock


def digest(identity: str) -> str:
    """Return a short name for an identity of any length."""
    return hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]


@contextlib.contextmanager
def only(identity: str) -> Iterator[None]:
    """Hold the lock of this identity, which one process of this user on this machine can have.

    Raises:
        BadInput: another process has the lock, or the user has no private folder for it.
    """
    path = _folder() / f"{digest(identity)}.lock"
    with contextlib.ExitStack() as held:
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            except OSError as error:
                raise BadInput(f"the lock {path} cannot be opened ({error.strerror}); remove it") from error
            file = held.enter_context(os.fdopen(descriptor, "r+b"))
            if not lock(file):
                raise BadInput(f"`{identity}` is at work in containers already; wait for it or stop it")
            # The last owner may have removed the file meanwhile; then take the new one.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
        held.callback(path.unlink, missing_ok=True)
        yield


def _folder() -> Path:
    """Return a folder that only this user can write; in /tmp, another user could have taken the name before."""
    caches = [Path(tempfile.gettempdir(), f"fmnist-{os.getuid()}")]
    with contextlib.suppress(RuntimeError):
        caches.insert(0, Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fmnist"))
    for cache in caches:
        # Machines may share a home, but they do not share containers.
        folder = cache / f"jobs-{platform.node()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
            own = {found.st_uid, cache.stat().st_uid} == {os.getuid()}
            if own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK):
                return folder
    raise BadInput(f"{' and '.join(map(str, caches))}: neither is this user's own; set XDG_CACHE_HOME to a folder")
