"""A search on one machine: the chief and its workers as processes, started, watched, restarted and ended.

It imports nothing heavy, so that it answers a signal at once.
"""

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fmnist.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, BadInput, Interrupted
from fmnist.rundir import RunDir
from fmnist.search import progress
from fmnist.search.roles import read_notice
from fmnist.signals import Stop

logger = logging.getLogger(__name__)

RESTARTS = 3
"""How often a worker, or the chief, is started again."""

_LOOK = 0.1  # seconds between two looks at the processes
_FAREWELL = 30.0  # seconds for the workers to end after the chief
_PATIENCE = 60.0  # seconds for a process to end after SIGTERM: an epoch, and its checkpoint


@dataclass(frozen=True)
class Share:
    """What one worker may use: processors by number, GPUs as CUDA names them."""

    cores: frozenset[int] = frozenset()
    gpus: tuple[str, ...] = ()


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name and not name.startswith("-")]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
        return [str(number) for number, _ in enumerate(listed.splitlines())]
    return []


def shares(workers: int | None, gpus_per_worker: int, gpus: Sequence[str]) -> list[Share]:
    """Divide the machine: by default a worker a GPU, or one on the processors.

    Raises:
        BadInput: there are GPUs, but not as many as asked for.
    """
    count = workers or max(1, len(gpus) // gpus_per_worker)
    if gpus and count * gpus_per_worker > len(gpus):
        raise BadInput(f"{count} workers with {gpus_per_worker} GPU(s) each: this machine has {len(gpus)}")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return [
        Share(
            # More workers than processors share them.
            frozenset(cores[number::count] or [cores[number % len(cores)]]),
            tuple(gpus[number * gpus_per_worker : (number + 1) * gpus_per_worker]),
        )
        for number in range(count)
    ]


def run(run: RunDir, command: Sequence[str], shares: Sequence[Share], stop: Stop, restarts: int = RESTARTS) -> None:
    """Run the search in `run` by a chief and one worker a share, each the process `command` in its role.

    Raises:
        BadInput: the run folder has a chief already.
        Interrupted: a stop was requested; no process is left.
        SystemExit: the exit code of a process that cannot go on, or 1 if they died too often.
    """
    with run.lock("tune"):
        # Nobody may call at the address of a chief of old.
        run.chief.unlink(missing_ok=True)
    token = secrets.token_urlsafe()
    with progress.live(run) as display:
        chief = _Member("chief", command, token, Share(), restarts, display)
        workers = [_Member(f"worker-{n}", command, token, share, restarts, display) for n, share in enumerate(shares)]
        try:
            _watch(run, chief, workers, stop, display)
        finally:
            # The workers first: what they finish in their last moment is reported.
            _end(workers)
            _end([chief])
            if display:
                display.refresh()


def _watch(
    run: RunDir, chief: "_Member", workers: Sequence["_Member"], stop: Stop, display: progress.Display | None
) -> None:
    while not stop.wait(_LOOK):
        if display:
            display.refresh()
        members = (chief, *workers)
        codes = [member.process.poll() for member in members]
        if codes[0] is not None and _is_over(run):
            _wait(workers, _FAREWELL)
            if codes[0] > 0:
                sys.exit(codes[0])
            return
        if EXIT_BAD_INPUT in codes:
            # It has said why, and would say it again.
            sys.exit(EXIT_BAD_INPUT)
        if codes[0] == EXIT_INTERRUPTED:
            raise Interrupted
        for member, code in zip(members, codes, strict=True):
            if code:
                member.restart()
        if chief.given_up or all(worker.given_up for worker in workers):
            logger.error("the search in %s ends before its time; the same command goes on from here", run)
            sys.exit(1)
    raise Interrupted


class _Member:
    """One process of the search, and the ones that take its place."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        token: str,
        share: Share,
        restarts: int,
        display: progress.Display | None,
    ) -> None:
        self._name = name
        self._display = display
        self._restarts = restarts
        self.given_up = False
        # If this process is killed, its children must not live on: the kernel sees to it.
        self._command = [*_tool("setpriv", "--pdeathsig", "KILL"), *command]
        if share.cores:
            self._command = [*_tool("taskset", "--cpu-list", ",".join(map(str, sorted(share.cores)))), *self._command]
        self._environment = {
            **os.environ,
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "",
            "KERASTUNER_ORACLE_PORT": "",
            "FMNIST_TOKEN": token,
            "CUDA_VISIBLE_DEVICES": ",".join(share.gpus) or "-1",
        }
        self.process = self._start()

    def restart(self) -> None:
        """Start the process that has died again, unless it has died too often."""
        if self.given_up:
            return
        self.given_up = self._restarts == 0
        end = f"{self._name} died (exit {self.process.returncode})"
        if self.given_up:
            logger.error("%s once too often", end)
            return
        logger.warning("%s: starting it again", end)
        self._restarts -= 1
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        # A session of its own: Ctrl-C on the terminal is for this process, which tells the others in order.
        process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if self._display else None,
            start_new_session=True,
        )
        if self._display:
            threading.Thread(target=_forward, args=(process, self._display), daemon=True).start()
        return process


def _forward(process: "subprocess.Popen[bytes]", display: progress.Display) -> None:
    """Print what a process logs, above the display."""
    for line in process.stderr or ():
        display.print(line.decode(errors="replace").rstrip())


def _tool(name: str, *args: str) -> list[str]:
    """A command of util-linux, to put before another; nothing on a system without it."""
    return [name, *args] if shutil.which(name) else []


def _is_over(run: RunDir) -> bool:
    notice = read_notice(run)
    return notice is not None and notice.address is None


def _end(members: Iterable[_Member]) -> None:
    """Stop what still runs, and see it end."""
    members = list(members)
    for member in members:
        if member.process.poll() is None:
            member.process.terminate()
    _wait(members, _PATIENCE)
    for member in members:
        member.process.kill()
        member.process.wait()


def _wait(members: Iterable[_Member], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for member in members:
        with contextlib.suppress(subprocess.TimeoutExpired):
            member.process.wait(max(0.0, deadline - time.monotonic()))
