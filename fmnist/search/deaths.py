"""How a process came to its end: of what it did itself, or killed from outside, which says nothing against its work.

A process that dies cannot say why. Whoever waits for it knows its exit code (`own_end`). The next one that does the
same work finds a file that only a death leaves behind, with what compiled code said as it crashed, and with the counts
of the kernel's kills for want of memory as they were before (`counted`).
"""

import contextlib
import faulthandler
import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from fmnist.errors import EXIT_INTERRUPTED
from fmnist.files import read_bytes, write_text

logger = logging.getLogger(__name__)

LAST_END = "FMNIST_LAST_END"
"""Environment variable: how the process before this one ended of itself, from whoever has started both."""

_MOST = 3  # own deaths between two checkpoints; not more than a search on one machine restarts its workers
_CRASHES = {
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP,
    signal.SIGXCPU, signal.SIGXFSZ,
}  # fmt: skip
_OUT_OF_MEMORY = "the kernel killed it for want of memory"
_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> dict[str, int]:
    """The kernel's kills for want of memory so far, in this process's cgroup and on this machine, by what counts them.

    The name of what counts tells one boot and one cgroup from another. Empty where the kernel does not say.
    """
    found = {}
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    for counts in _cgroup_counts():
        if (kills := _kills(counts)) is not None:
            found[f"{boot} {counts.parent} {counts.parent.stat().st_ino}"] = kills
            break
    return found | oom_kills_of_machine()


def oom_kills_of_machine() -> dict[str, int]:
    """As `oom_kills`, of the whole machine alone: for whoever waits for a process of another cgroup."""
    kills = _kills(Path("/proc/vmstat"))
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    return {} if kills is None else {boot: kills}


def own_end(code: int, before: Mapping[str, int], now: Mapping[str, int]) -> str | None:
    """How a process ended that did so of itself; None if it was interrupted, or killed from outside.

    Args:
        code: as `subprocess` tells it, or a shell.
        before, now: `oom_kills` when it began and after its end.
    """
    signum = -code if code < 0 else code - 128
    if signum not in signal.valid_signals():
        return None if code == EXIT_INTERRUPTED else f"exit {code}"
    if signum == signal.SIGKILL:
        return _OUT_OF_MEMORY if _raised(before, now) else None
    return signal.Signals(signum).name if signum in _CRASHES else None


@contextlib.contextmanager
def counted(path: Path, state: str) -> Iterator[None]:
    """Count, in `path`, how often the process died of what is done here; for kills from outside there is no limit.

    Args:
        state: of the work, what it begins from. Deaths at an earlier state no longer count.

    Raises:
        RuntimeError: it was too often; nothing else would end work that takes its process with it each time.
    """
    reasons = _left(path, state)
    if len(reasons) >= _MOST:
        path.unlink()
        raise RuntimeError(f"its process died {len(reasons)} times without a checkpoint between: {reasons[-1]}")
    begin = {"own": reasons, "state": state, "oom": oom_kills()}
    write_text(path, json.dumps(begin) + "\n", durable=False)
    told_before = faulthandler.is_enabled()
    with path.open("ab") as file:
        # Only these lines come through a crash of compiled code; whoever finds them passes them on.
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            if told_before:
                faulthandler.enable(2, all_threads=False)
            else:
                faulthandler.disable()
            # Whatever Python sees is not a death.
            path.unlink(missing_ok=True)


def _left(path: Path, state: str) -> list[str]:
    """How each process that began from `state` died of itself, the last one included."""
    told = os.environ.pop(LAST_END, None)
    try:
        first, _, report = read_bytes(path).decode("utf-8", "replace").partition("\n")
    except FileNotFoundError:
        return []
    try:
        begin = json.loads(first)
        reasons = [str(reason) for reason in begin["own"]] if begin["state"] == state else []
        before = {str(name): int(kills) for name, kills in begin["oom"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        # A power cut may leave it empty: no evidence against the work.
        reasons, before = [], {}
    if report.strip():
        logger.warning("what the process before this one said as it crashed:\n%s", report.strip())
        told = report.strip().splitlines()[0].removeprefix("Fatal Python error: ")
    elif _raised(before, oom_kills()):
        told = _OUT_OF_MEMORY
    if told:
        return [*reasons, told]
    logger.info("the process before this one was killed from outside; that costs the epoch in hand alone")
    return reasons


def _raised(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """The cgroup's count decides; the machine's only where the cgroup has gone with the process."""
    return next((now[name] > before[name] for name in now if name in before), False)


def _cgroup_counts() -> Iterator[Path]:
    """Where this process's cgroup may count its kills, in cgroup v2 and v1, seen from outside or inside a container."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        number, controllers, place = line.split(":", 2)
        if number == "0":
            folder, name = _CGROUPS, "memory.events"
        elif controllers == "memory":
            folder, name = _CGROUPS / "memory", "memory.oom_control"
        else:
            continue
        yield folder / place.lstrip("/") / name
        yield folder / name


def _kills(counts: Path) -> int | None:
    for line in _read(counts).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdecimal():
            return int(value)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
