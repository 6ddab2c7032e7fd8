"""Measure how much memory this process can still allocate, and spare its garbage collector what lasts."""

import contextlib
import functools
import gc
import re
from collections.abc import Iterator
from pathlib import Path

# The files of a control group that hold its limit and its usage.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_VERSION_2 = ("memory.max", "memory.current")


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Keep the garbage collector off what is made in this block, now and later: it lasts until the process ends.

    This is for imports. TensorFlow's makes a million objects, through which the collector would look again and again:
    that takes a seventh of the import, and then as long again at every full collection.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def available() -> int:
    """Return the bytes that this process can still allocate: free or reclaimable, within its control groups' limits.

    Where the system does not tell, the memory counts as unlimited.
    """
    return min([_free(), *_limits()])


def _free() -> int:
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        fields = {name: int(kilobytes) for name, kilobytes in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
        return 1024 * (fields.get("MemAvailable", 2**42) + fields.get("SwapFree", 0))
    return 2**62


def _limits() -> list[int]:
    """Return the bytes that each control group (version 1 or 2) above this process leaves to it."""
    left = []
    for folder, limit, usage in _groups():
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="ascii"))
            used = int((folder / usage).read_text(encoding="ascii"))
            left.append(max(0, most - used + _cache(folder)))
    return left


def _cache(folder: Path) -> int:
    """Return the bytes of a group's memory that cache files, and that the kernel frees on demand."""
    with contextlib.suppress(OSError):
        stat = (folder / "memory.stat").read_text(encoding="ascii")
        return sum(map(int, re.findall(r"^(?:total_)?(?:in)?active_file (\d+)$", stat, re.MULTILINE)))
    return 0


@functools.cache
def _groups() -> list[tuple[Path, str, str]]:
    """Return the folder of each control group of this process, and the names of its limit and usage files."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = Path("/sys/fs/cgroup", controllers)
                files = _VERSION_1 if controllers else _VERSION_2
                inner = root / path.strip("/")
                found += [(folder, *files) for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return found
