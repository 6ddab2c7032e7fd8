"""SIGTERM, SIGINT and SIGUSR2 ask a job to stop at the next epoch's end."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

from fmnist.errors import Interrupted

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Stop:
    """Whether somebody has asked this process to stop; set by a signal or by `request`."""

    def __init__(self) -> None:
        self._event = threading.Event()

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

    def ignore(_signum: int, _frame: FrameType | None) -> None:
        """Keep the default action away; the wake-up descriptor does the work."""

    for signum in STOP_SIGNALS:
        # nohup means what it says.
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, ignore)

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
                logger.info("%s: stopping at the end of this epoch", signum.name)
            stop.request()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    return stop
