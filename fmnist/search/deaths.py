"""Find out how a process ended: by its own fault, or killed from outside, which is no evidence against its work.

A process that dies cannot report the reason. Its parent knows the exit code (`own_end`). The next process that does the
same work finds a file that is only left behind by a death (`counted`): it holds the last messages of compiled code that
crashed, or why the process gave up (`tell`), and how often the kernel had killed processes for want of memory before.
"""

import contextlib
import faulthandler
import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from fmnist.errors import EXIT_INTERRUPTED, GpuFailed, Restart
from fmnist.files import read_bytes, write_text

logger = logging.getLogger(__name__)

LAST_END = "FMNIST_LAST_END"
"""Environment variable by which a parent tells a process how the one before it ended by its own fault."""

_MOST = 3  # deaths by own fault between two checkpoints; at most the restarts of a worker in a local search
_CRASHES = {
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP,
    signal.SIGXCPU, signal.SIGXFSZ,
}  # fmt: skip
_GPU_FAILED = "GpuFailed: "
_OUT_OF_MEMORY = "the kernel killed it for want of memory"
_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> dict[str, int]:
    """Return how often the kernel has killed for want of memory, in this process's cgroup and on this machine.

    The keys name the counters, and differ between boots and between cgroups. Empty where the kernel does not count.
    """
    found = {}
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    for counts in _cgroup_counts():
        if (kills := _kills(counts)) is not None:
            found[f"{boot} {counts.parent} {counts.parent.stat().st_ino}"] = kills
            break
    return found | oom_kills_of_machine()


def oom_kills_of_machine() -> dict[str, int]:
    """Return only the machine's counter of `oom_kills`, for a parent of processes in other cgroups."""
    kills = _kills(Path("/proc/vmstat"))
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    return {} if kills is None else {boot: kills}


def own_end(code: int, before: Mapping[str, int], now: Mapping[str, int]) -> str | None:
    """Return how a process ended by its own fault; None if it was interrupted, or killed from outside.

    Args:
        code: exit code as in `subprocess` or in a shell.
        before, now: results of `oom_kills` when the process began, and after its end.
    """
    signum = -code if code < 0 else code - 128
    if signum not in signal.valid_signals():
        return None if code == EXIT_INTERRUPTED else f"exit {code}"
    if signum == signal.SIGKILL:
        return _OUT_OF_MEMORY if _raised(before, now) else None
    return signal.Signals(signum).name if signum in _CRASHES else None


@contextlib.contextmanager
def counted(path: Path, state: str) -> Iterator[None]:
    """Count, in the file `path`, how often the work in the block has killed its process; kills from outside do not add.

    Args:
        state: name of the state from which the work begins. Deaths at another state no longer count.

    Raises:
        Restart: the work has raised GpuFailed, which counts as a death.
        RuntimeError: the work has killed its process too often, and would do so for ever.
        GpuFailed: the same, and the last time it was the GPU.
    """
    reasons = _left(path, state)
    if len(reasons) >= _MOST:
        path.unlink()
        said = f"its process died {len(reasons)} times without a checkpoint between: {reasons[-1]}"
        raise GpuFailed(said) if reasons[-1].startswith(_GPU_FAILED) else RuntimeError(said)
    begin = {"own": reasons, "state": state, "oom": oom_kills()}
    write_text(path, json.dumps(begin) + "\n", durable=False)
    told_before = faulthandler.is_enabled()
    with path.open("ab") as file:
        # Only these lines survive a crash of compiled code; the next process logs them.
        faulthandler.enable(file, all_threads=False)
        died = False
        try:
            yield
        except GpuFailed as error:
            tell(path, f"{_GPU_FAILED}{error}")
            died = True
            raise Restart from error
        finally:
            if told_before:
                faulthandler.enable(2, all_threads=False)
            else:
                faulthandler.disable()
            # Any other exception in Python is not a death of the process.
            if not died:
                path.unlink(missing_ok=True)


def tell(path: Path, reason: str) -> None:
    """Say why this process is about to end by the fault of the work that is `counted` in the file `path`."""
    with path.open("a", encoding="utf-8", errors="replace") as file:
        file.write(f"{reason}\n")


def _left(path: Path, state: str) -> list[str]:
    """Return how each process that began from `state` died by its own fault, the last one included."""
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
        # A power cut may leave the file empty, which is no evidence against the work.
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
    """Tell whether a counter has risen: the cgroup's, or the machine's if the cgroup has gone with the process."""
    return next((now[name] > before[name] for name in now if name in before), False)


def _cgroup_counts() -> Iterator[Path]:
    """Yield the files in which this process's cgroup, v2 or v1, may count kills, outside or inside a container."""
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
