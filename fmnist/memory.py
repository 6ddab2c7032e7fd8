"""How much memory this process may have."""

import contextlib
import functools
import re
from pathlib import Path

# Of a control group: the files of its limit and of what it has.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_VERSION_2 = ("memory.max", "memory.current")


def available() -> int:
    """Bytes that this process could still have: what the machine has free or can free, within its control groups.

    As much as there can be, where the system does not tell.
    """
    return min([_free(), *_limits()])


def _free() -> int:
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        fields = {name: int(kilobytes) for name, kilobytes in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
        return 1024 * (fields.get("MemAvailable", 2**42) + fields.get("SwapFree", 0))
    return 2**62


def _limits() -> list[int]:
    """What each control group above this process leaves it, of version 2 or 1."""
    left = []
    for folder, limit, usage in _groups():
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="ascii"))
            used = int((folder / usage).read_text(encoding="ascii"))
            left.append(max(0, most - used + _cache(folder)))
    return left


def _cache(folder: Path) -> int:
    """Of a group's memory, what holds files and is given up for others."""
    with contextlib.suppress(OSError):
        stat = (folder / "memory.stat").read_text(encoding="ascii")
        return sum(map(int, re.findall(r"^(?:total_)?(?:in)?active_file (\d+)$", stat, re.MULTILINE)))
    return 0


@functools.cache
def _groups() -> list[tuple[Path, str, str]]:
    """Folder and files of each."""
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
