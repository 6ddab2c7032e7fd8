"""Run a search on one machine, the chief and its workers as processes; or several workers in place of one.

It imports nothing heavy, so that it reacts to a signal at once.
"""

import contextlib
import functools
import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fmnist import environment
from fmnist.errors import Busy
from fmnist.run.folder import RunDir
from fmnist.search import status
from fmnist.search.roles import Role
from fmnist.search.supervise import RESTARTS, Ending, Member, Share, supervise, supervise_workers
from fmnist.signals import TOLD, Stop

_CHILD = '[ "$PPID" -eq "$0" ] && exec "$@"'
_OF_ANOTHER_SEARCH = ("FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY")
"""Variables that a shell may still have of a search on several machines."""
_LAST_BREATH = 3.0  # seconds in which a chief ends after its parent was killed


def run(run: RunDir, command: Sequence[str], shares: Sequence[Share], stop: Stop, restarts: int = RESTARTS) -> None:
    """Run the search in `run` with a chief and one worker per share, each a process of `command` in its own role.

    Raises:
        BadInput: the run folder already has a chief.
        Interrupted: a stop was requested; no process is left.
        SystemExit: with the exit code of a process that cannot continue, or 1 if processes died too often.
    """
    _clear(run, stop)
    its_search = {"KERASTUNER_ORACLE_IP": "", "KERASTUNER_ORACLE_PORT": "", "FMNIST_TOKEN": secrets.token_urlsafe()}
    with status.live(run) as log:
        # The result is this process's to print, below the table.
        options: dict[str, Any] = {"restarts": restarts, "log": log, "stdout": subprocess.DEVNULL}
        chief = _member("chief", Share(), command, its_search, **options)
        workers = [
            _member(f"worker-{number}", share, command, its_search, **options) for number, share in enumerate(shares)
        ]
        with stop.in_order():
            supervise(chief, workers, Ending(run.chief), stop)


def join(role: Role, command: Sequence[str], shares: Sequence[Share], stop: Stop) -> None:
    """Run one worker per share in place of one worker, `role`, of a search whose chief is elsewhere.

    Raises:
        Interrupted: a stop was requested, or the chief is lost; no process is left.
        SystemExit: as `run`.
    """
    workers = [_member(f"{role.id}-{number}", share, command) for number, share in enumerate(shares)]
    with stop.in_order():
        supervise_workers(workers, stop)


def _member(
    name: str, share: Share, command: Sequence[str], variables: Mapping[str, str] | None = None, **options: Any
) -> Member:
    """Return a process of the search; `options` are those of `Member`."""
    its_environment = environment.original()
    if variables:
        for foreign in _OF_ANOTHER_SEARCH:
            its_environment.pop(foreign, None)
    its_environment |= {
        **(variables or {}),
        "KERASTUNER_TUNER_ID": name,
        TOLD: "1",
        "CUDA_VISIBLE_DEVICES": share.visible_devices,
    }
    # If this process is killed, its children must end, too. The kernel kills them (--pdeathsig). If this process was
    # killed before they had set that up, they end themselves (_CHILD).
    follow = [*_if_there(["setpriv", "--pdeathsig", "KILL"]), "sh", "-c", _CHILD, str(os.getpid())]
    return Member(name, [*_if_there(share.taskset), *follow, *command], its_environment, **options)


def _clear(run: RunDir, stop: Stop) -> None:
    """Wait for the end of an earlier chief, and remove its notice; raise Busy if it does not end."""
    deadline = time.monotonic() + _LAST_BREATH
    while True:
        try:
            with run.lock("tune"):
                run.chief.unlink(missing_ok=True)
                return
        except Busy:
            if time.monotonic() > deadline or stop.wait(0.1):
                raise


def _if_there(command: list[str]) -> list[str]:
    """Return a prefix command of util-linux; an empty list on a system that lacks it, or has one that is too old."""
    return command if command and _works(tuple(command)) else []


@functools.cache
def _works(command: tuple[str, ...]) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return False
