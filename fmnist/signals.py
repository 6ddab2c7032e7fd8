"""SIGTERM, SIGINT, SIGHUP and SIGUSR2 end a job with exit code 75: at once, or in order where it says so."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from fmnist.errors import EXIT_INTERRUPTED, Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)

_GRACE = 4.0  # seconds for the main thread to leave what it is in, such as a call into compiled code


class Stop:
    """Whether somebody has asked this process to stop; set by a signal or by `request`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._in_order = 0

    def request(self) -> None:
        self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`, less if a stop is requested; return whether it is."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise `Interrupted` if a stop was requested."""
        if self.requested:
            raise Interrupted

    @property
    def at_once(self) -> bool:
        """Whether a signal is to end the job wherever it is."""
        return not self._in_order

    @contextlib.contextmanager
    def in_order(self) -> Iterator[None]:
        """Within, a signal is for the job to heed by `check`, when what it would lose is saved."""
        self._in_order += 1
        try:
            yield
        finally:
            self._in_order -= 1


def stop_on_signals(abandon: Callable[[], None] = lambda: None) -> Stop:
    """Install the handlers and return the `Stop` that they set. A second SIGINT ends the process, after `abandon`.

    Python runs a signal handler only between two bytecodes, which is too late for a main thread that spends seconds
    inside one compiled epoch. The byte that the interpreter's C handler writes to the wake-up descriptor arrives at
    once, so a thread reads those.
    """
    stop = Stop()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    raised = False

    def handle(_signum: int, _frame: FrameType | None) -> None:
        nonlocal raised
        # Once: what it unwinds is not to be disturbed.
        if stop.at_once and not raised:
            raised = True
            raise Interrupted

    for signum in STOP_SIGNALS:
        # nohup means what it says.
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
                _say(f"{signum.name}: stopping{'' if stop.at_once else ' at the end of this epoch'}")
            if stop.at_once:
                # What it writes is replaced whole or not at all, so nothing needs the rest.
                end = threading.Timer(_GRACE, os._exit, (EXIT_INTERRUPTED,))
                end.daemon = True
                end.start()
            stop.request()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    return stop


def _say(line: str) -> None:
    # Whoever has closed the terminal has no use for it.
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
