"""Keeps what libraries say of themselves off stderr: a job's stderr is for its own words, and for errors.

TF_CPP_MIN_LOG_LEVEL and its like stop only some lines: TensorFlow announces oneDNN, and absl its own start, before
they have read it. So file descriptor 2, which all compiled code writes to, becomes a pipe to a process that passes on
what it does not know to be idle talk. A process, not a thread: it outlives a crash, and shows what that said.
"""

import atexit
import contextlib
import faulthandler
import os
import re
import select
import signal
import sys
import time
import warnings

_GOODBYE = 2.0  # seconds for the last lines to be passed on
_PATIENCE = 0.2  # seconds after which a line without an end is judged as it is
_READ = 65536

# Lines of level INFO and WARNING, and the few of others that only say what the job says itself.
_CHATTER = re.compile(
    rb"[IWV]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \S+:\d+\] "  # absl: TensorFlow, XLA, gRPC, LiteRT
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWV] \S+:\d+\] "  # TensorFlow's own form
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \[[IW]:"  # ONNX Runtime
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|To enable the following instructions: .* rebuild TensorFlow with the appropriate compiler flags"
    rb"|INFO: |WARNING: Attempting to use a delegate "  # LiteRT
    rb"|OMP: (Info|Warning) #"
    # CUDA's stub, and CUDA, where there is no GPU: `devices` says so where it matters.
    rb"|E\d{4} .* cuda_platform\.cc:\d+\] failed call to cuInit: .*(\(303\)|CUDA_ERROR_NO_DEVICE)"
)


def silence() -> None:
    """Begin to filter file descriptor 2, and all that Python's warnings say; `sys.stderr` goes around the filter.

    Call it before there are threads. Child processes that should not be filtered take `sys.stderr` for their stderr.
    """
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    _open_the_standard_files()
    stderr, (source, pipe) = os.dup(2), os.pipe()
    # They are for the job, also where they come to its whole group; the filter never heeds them.
    heeded = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        os.close(pipe)
        _be_the_filter(source, stderr)
    signal.pthread_sigmask(signal.SIG_SETMASK, heeded)
    os.close(source)
    os.dup2(pipe, 2)
    os.close(pipe)
    sys.stderr = os.fdopen(stderr, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    # In place of nothing, where compiled code ends the process by a signal; after what that said of it.
    faulthandler.enable(2, all_threads=False)
    global _child
    _child = child
    atexit.register(release)


_child: int | None = None


def release() -> None:
    """Put file descriptor 2 back, once all that was written to it is passed on. Nothing to do without a filter."""
    global _child
    if _child is None:
        return
    os.dup2(sys.stderr.fileno(), 2)
    child, _child = _child, None
    deadline = time.monotonic() + _GOODBYE
    # A grandchild that has the pipe would keep it open.
    while not _ended(child) and time.monotonic() < deadline:
        time.sleep(0.001)


def _open_the_standard_files() -> None:
    """A job may be started without them; the next file that is opened must not become what others write messages to."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def _be_the_filter(source: int, stderr: int) -> None:
    """Pass on what `source` brings until nobody has its other end; does not return."""
    try:
        # Whoever waits for the end of the job's output, or of another file of its, must not wait for this process.
        first, second = sorted((source, stderr))
        os.closerange(0, first)
        os.closerange(first + 1, second)
        os.closerange(second + 1, os.sysconf("SC_OPEN_MAX"))
        _pass_on(source, stderr)
    finally:
        os._exit(0)


def _pass_on(source: int, stderr: int) -> None:
    rest = b""
    while True:
        if rest and not select.select([source], [], [], _PATIENCE)[0] and not _CHATTER.match(rest):
            _write(stderr, rest)
            rest = b""
        read = os.read(source, _READ)
        *lines, rest = (rest + read).split(b"\n")
        _write(stderr, b"".join(line + b"\n" for line in lines if not _CHATTER.match(line)))
        if not read:
            _write(stderr, b"" if _CHATTER.match(rest) else rest)
            return


def _write(stderr: int, text: bytes) -> None:
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(stderr, text) :]
