"""Start, watch, restart and end a search's chief and workers as child processes; divide the machine among them.

It needs only the standard library, so any program that starts processes can use it, also outside the environment.
"""

import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist import environment, memory
from fmnist.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_GPU_FAILED, EXIT_INTERRUPTED, BadInput, Interrupted
from fmnist.files import read_bytes
from fmnist.search import deaths
from fmnist.signals import Stop

logger = logging.getLogger(__name__)

RESTARTS = 3
"""How often a worker, or the chief, is restarted after a death by its own fault; kills from outside do not count."""

ONE = "--workers=1"
"""The last argument of a member's command, which divides its share no further: of an option given twice, the last
counts."""

_CORES_A_WORKER = 2  # while a trial is compiled
_MEMORY_A_WORKER = 4096  # MiB of a GPU, of which the trials of tuned-mlp take 900; and of the machine
_WORKERS = 4  # more use up a search by `asha` of 24 trials before one is promoted to the end (docs/recipes.md)

_LOOK = 0.1  # seconds between two looks at the processes
_FAREWELL = 30.0  # seconds for the workers to end after the chief
_PATIENCE = 60.0  # seconds for a process to end after SIGTERM: an epoch, and its checkpoint
_PAUSES = (0.1, 5.0)  # seconds before a restart, the first and the longest; they double
_INTERRUPTIONS = 20  # short lives that end with code 75; a file system that fails for good would have no end of them
_LONG = 60.0  # seconds of life after which an end has nothing to do with the one before


@dataclass(frozen=True)
class Share:
    """The processors, by number, and the GPUs, by their names in CUDA, that a worker may use."""

    cores: frozenset[int] = frozenset()
    gpus: tuple[str, ...] = ()

    @property
    def taskset(self) -> list[str]:
        """Prefix of a command that restricts it to the processors; empty for all of them."""
        return ["taskset", "--cpu-list", ",".join(map(str, sorted(self.cores)))] if self.cores else []

    @property
    def visible_devices(self) -> str:
        """Value of CUDA_VISIBLE_DEVICES for the GPUs."""
        return ",".join(self.gpus) or "-1"


def gpus_to_share(devices: str, workers: int | None) -> list[str]:
    """Return the GPUs that the workers of a search divide among them; none for a search on processors.

    Args:
        devices: as `fmnist.devices.request` takes it.

    Raises:
        BadInput: a number of GPUs, for several workers: it could be that of each, or of all.
    """
    if devices.isdigit() and (workers or 1) > 1:
        raise BadInput(f"--devices {devices} goes with one worker; for several, give --gpus-per-worker")
    return environment.gpus() if devices in ("auto", "gpu") else []


def shares(workers: int | None, gpus_per_worker: int, gpus: Sequence[str]) -> list[Share]:
    """Divide the machine into shares.

    More workers than GPUs share these: a small network leaves most of a GPU idle.

    Args:
        workers: None for one worker on the processors; on GPUs, for one each, and up to four in all where there are
            processors and memory for them.

    Raises:
        BadInput: a number is below 1, or the machine has GPUs, but too few for workers that want several.
    """
    if gpus_per_worker < 1 or (workers is not None and workers < 1):
        raise BadInput("WORKERS and GPUS_PER_WORKER are at least 1")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    count = workers or max(1, len(gpus) // gpus_per_worker)
    if gpus and gpus_per_worker == 1 and workers is None:
        in_all = _WORKERS, len(cores) // _CORES_A_WORKER, memory.available() // 2**20 // _MEMORY_A_WORKER
        a_gpu = environment.free_gpu_memory() // _MEMORY_A_WORKER
        count *= max(1, min(a_gpu, *(most // len(gpus) for most in in_all)))
    if gpus and gpus_per_worker > 1 and count * gpus_per_worker > len(gpus):
        raise BadInput(f"{count} workers with {gpus_per_worker} GPUs each: this machine has {len(gpus)}")
    round_robin = itertools.cycle(gpus)
    return [
        Share(
            # If there are more workers than processors, several workers share one.
            frozenset(cores[number::count] or [cores[number % len(cores)]]),
            tuple(itertools.islice(round_robin, gpus_per_worker)),
        )
        for number in range(count)
    ]


class Member:
    """A process of the search, and the processes that replace it after its death."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        restarts: int = RESTARTS,
        log: Callable[[str], None] | None = None,
        stdout: int | None = None,
    ) -> None:
        """Prepare the process; `start` starts it.

        Args:
            environment: all environment variables of the process.
            log: receives each line of the process's stderr; without it they go to this process's stderr.
            stdout: where the process's stdout goes, as `subprocess` takes it; None for this process's stdout.
        """
        self.name = name
        self.given_up = False
        self._command = command
        self._environment = dict(environment)
        self._restarts = restarts
        self._log = log
        self._stdout = stdout
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = _PAUSES[0]
        self._interruptions = 0
        self._began = self._again = 0.0
        self._oom_kills: Mapping[str, int] = {}

    def start(self) -> None:
        self._began, self._oom_kills = time.monotonic(), self.oom_kills()
        # In a session of its own, so that Ctrl-C on the terminal reaches only this process, which ends the others.
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=subprocess.PIPE if self._log else sys.stderr,
            start_new_session=True,
        )
        if self._log:
            threading.Thread(target=_forward, args=(self._process, self._log), daemon=True).start()

    def revive(self) -> None:
        """Restart the process after its death, after a pause, unless it has died by its own fault too often."""
        if self.given_up or self.code is None:
            return
        if not self._again:
            self._judge(self.code)
        elif time.monotonic() >= self._again:
            self._again = 0.0
            self.start()

    def _judge(self, code: int) -> None:
        """Decide whether, and when, to restart the process."""
        reason = deaths.own_end(code, self._oom_kills, self.oom_kills())
        self._environment.pop(deaths.LAST_END, None)
        now = time.monotonic()
        if now - self._began > _LONG:
            self._pause, self._interruptions = _PAUSES[0], 0
        self._interruptions += code == EXIT_INTERRUPTED
        endless = self._interruptions > _INTERRUPTIONS
        if reason is None and not endless:
            logger.warning("%s was interrupted (exit %d): starting it again", self.name, code)
            self._again = now + self._pause
            self._pause = min(2 * self._pause, _PAUSES[1])
            return
        # On a broken GPU each restart would cost another trial.
        self.given_up = endless or self._restarts == 0 or code == EXIT_GPU_FAILED
        if reason is None or self.given_up:
            logger.error("%s died (%s) once too often", self.name, reason or f"exit {code}")
            return
        logger.warning("%s died (%s): starting it again", self.name, reason)
        self._restarts -= 1
        self._environment[deaths.LAST_END] = reason
        self._again = now

    def oom_kills(self) -> Mapping[str, int]:
        """Return the counters of the kernel's kills for want of memory that include this process."""
        return deaths.oom_kills()

    @property
    def code(self) -> int | None:
        """Exit code of the process; negative, the signal that killed it; None if it runs or was not started."""
        return self._process.poll() if self._process else None

    def wait(self, seconds: float | None = None) -> None:
        """Wait up to `seconds` for the end of the process; without a limit for None."""
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """End the process at once, with all that it may have left."""
        if self._process:
            self._process.kill()


class Ending:
    """A function that tells whether, by the chief's `notice` (`roles.Notice`), the search is over.

    A notice of an earlier chief, which was there before, does not count.
    """

    def __init__(self, notice: Path) -> None:
        self._notice = notice
        self._before = self._identity()

    def __call__(self) -> bool:
        try:
            return self._identity() != self._before and json.loads(read_bytes(self._notice))["address"] is None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def _identity(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = self._notice.stat()
            return found.st_ino, found.st_mtime_ns
        return None


def supervise(chief: Member, workers: Sequence[Member], is_over: Callable[[], bool], stop: Stop) -> None:
    """Run the search to its end. However it ends, no member is left.

    Args:
        is_over: tells, after the chief has ended, whether the search is over.

    Raises:
        Interrupted: a stop was requested, or the chief was interrupted.
        SystemExit: with the exit code of a member that cannot continue; 1, or 69 for GPUs, if members died too often.
    """
    members = [chief, *workers]
    try:
        for member in members:
            member.start()
        _watch(chief, workers, is_over, stop)
    finally:
        # The workers first, so that they can still report to the chief.
        end(workers)
        end([chief])


def supervise_workers(workers: Sequence[Member], stop: Stop) -> None:
    """Run workers of a search whose chief is elsewhere, until one of them ends: that the search is over, all are told.

    However it ends, no member is left.

    Raises:
        Interrupted: a stop was requested, or the chief is lost.
        SystemExit: with the exit code of a worker that cannot continue; 1, or 69 for GPUs, if workers died too often.
    """
    try:
        for worker in workers:
            worker.start()
        while not stop.wait(_LOOK):
            codes = [worker.code for worker in workers]
            if EXIT_BAD_INPUT in codes:
                sys.exit(EXIT_BAD_INPUT)
            if EXIT_INTERRUPTED in codes:
                raise Interrupted
            if 0 in codes:
                _wait(workers, _FAREWELL)
                return
            for worker in workers:
                worker.revive()
            if all(worker.given_up for worker in workers):
                sys.exit(_given_up(workers))
        raise Interrupted
    finally:
        end(workers)


def end(members: Sequence[Member]) -> None:
    """Terminate the members that still run, and wait for their end."""
    for member in members:
        if member.code is None:
            member.terminate()
    _wait(members, _PATIENCE)
    for member in members:
        member.kill()
        member.wait()


def _watch(chief: Member, workers: Sequence[Member], is_over: Callable[[], bool], stop: Stop) -> None:
    while not stop.wait(_LOOK):
        members = [chief, *workers]
        codes = [member.code for member in members]
        if codes[0] == 0 or (codes[0] is not None and is_over()):
            _wait(workers, _FAREWELL)
            if codes[0] > 0:
                sys.exit(codes[0])
            return
        if EXIT_BAD_INPUT in codes:
            # The member has logged the reason, and would fail in the same way again.
            sys.exit(EXIT_BAD_INPUT)
        if codes[0] == EXIT_INTERRUPTED:
            raise Interrupted
        for member, code in zip(members, codes, strict=True):
            if code:
                member.revive()
        if chief.given_up or all(worker.given_up for worker in workers):
            logger.error("the search ends before its time; the same command goes on from here")
            sys.exit(_given_up([chief] if chief.given_up else workers))
    raise Interrupted


def _given_up(members: Sequence[Member]) -> int:
    """Return the exit code for members that died too often: their own, if it is one that a scheduler can act on."""
    codes = {member.code for member in members}
    return next((code for code in (EXIT_GPU_FAILED, EXIT_INTERRUPTED) if codes == {code}), EXIT_FAILED)


def _wait(members: Sequence[Member], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for member in members:
        member.wait(max(0.0, deadline - time.monotonic()))


def _forward(process: "subprocess.Popen[bytes]", log: Callable[[str], None]) -> None:
    for line in process.stderr or ():
        log(line.decode(errors="replace").rstrip())
