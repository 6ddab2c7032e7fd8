"""End a job on SIGTERM, SIGINT, SIGHUP or SIGUSR2 with exit code 75: at once, or in order if the job asks for that."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from fmnist.errors import EXIT_INTERRUPTED, Interrupted

TOLD = "FMNIST_STOP_IS_TOLD"
"""Environment variable by which a parent that says itself that it stops keeps its children from saying so, too."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)

_GRACE = 4.0  # seconds for the main thread to return from a call, such as one into compiled code


class Stop:
    """A request to stop this process, made by a signal or by `request`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._in_order = 0

    def request(self) -> None:
        self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or until a stop is requested; return whether one is requested."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise `Interrupted` if a stop was requested."""
        if self.requested:
            raise Interrupted

    @property
    def at_once(self) -> bool:
        """Whether a signal ends the job at once, wherever it is."""
        return not self._in_order

    @contextlib.contextmanager
    def in_order(self) -> Iterator[None]:
        """Let a signal only set the request during the block; the job calls `check` when its state is saved."""
        self._in_order += 1
        try:
            yield
        finally:
            self._in_order -= 1


def stop_on_signals(abandon: Callable[[], None] = lambda: None) -> Stop:
    """Install the handlers and return the `Stop` that they set. A second SIGINT calls `abandon` and ends the process.

    Python runs a signal handler only between two bytecodes, which is too late for a main thread that spends seconds
    inside one compiled epoch. The interpreter's C handler writes a byte to the wake-up descriptor at once, so a thread
    reads these bytes.
    """
    stop = Stop()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    raised = False

    def handle(_signum: int, _frame: FrameType | None) -> None:
        nonlocal raised
        # Only once: a second exception must not interrupt the clean-up after the first.
        if stop.at_once and not raised:
            raised = True
            raise Interrupted

    for signum in STOP_SIGNALS:
        # Under nohup, SIGHUP stays ignored.
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handle)

    def watch() -> None:
        # The closure keeps `sender` open for as long as the thread lives.
        while sender.fileno() >= 0:
            signum = signal.Signals(receiver.recv(1)[0])
            if signum not in STOP_SIGNALS:
                continue
            if stop.requested and signum == signal.SIGINT:
                abandon()
                os._exit(128 + signum)
            if not stop.requested:
                when = "" if stop.at_once else " at the end of this epoch"
                _say(f"{signum.name}: stopping{when}; the same command goes on")
            if stop.at_once:
                # Files are replaced atomically, so the job may end anywhere.
                end = threading.Timer(_GRACE, os._exit, (EXIT_INTERRUPTED,))
                end.daemon = True
                end.start()
            stop.request()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    return stop


def _say(line: str) -> None:
    if os.environ.get(TOLD):
        return
    # If the terminal is closed, nobody needs the line.
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
