"""Keep the idle log lines of libraries off stderr, which is for the job's own lines and for errors.

TF_CPP_MIN_LOG_LEVEL and similar variables stop only some lines: TensorFlow announces oneDNN, and absl its own start,
before they read them. So file descriptor 2, which all compiled code writes to, becomes a pipe to a filter that passes
on every line that it does not recognise as idle. The filter is a process, not a thread: it survives a crash of this
process, and passes on the last lines.
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
_PATIENCE = 0.2  # seconds after which an unfinished line is matched as it is
_READ = 65536

# Lines of level INFO and WARNING, and a few others that only repeat what the job itself reports.
_CHATTER = re.compile(
    rb"[IWV]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \S+:\d+\] "  # absl: TensorFlow, XLA, gRPC, LiteRT
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWV] \S+:\d+\] "  # TensorFlow's own form
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \[[IW]:"  # ONNX Runtime
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|To enable the following instructions: .* rebuild TensorFlow with the appropriate compiler flags"
    rb"|INFO: |WARNING: Attempting to use a delegate |fully_quantize: \d+, inference_type: "  # LiteRT
    rb"|OMP: (Info|Warning) #"
    # CUDA, or its stub library, without a GPU; `devices` reports a missing GPU where that matters.
    rb"|E\d{4} .* cuda_platform\.cc:\d+\] failed call to cuInit: .*(\(303\)|CUDA_ERROR_NO_DEVICE)"
)


def silence() -> None:
    """Start to filter file descriptor 2, and drop Python's warnings; `sys.stderr` bypasses the filter.

    Call it before any thread starts. Child processes that should not be filtered take `sys.stderr` as their stderr.
    """
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    _open_the_standard_files()
    stderr, (source, pipe) = os.dup(2), os.pipe()
    # The filter ignores all signals: those that are sent to the process group are for the job.
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
    # Reports a crash of compiled code, after that code's own lines; otherwise the process would end silently.
    faulthandler.enable(2, all_threads=False)
    global _child
    _child = child
    atexit.register(release)


_child: int | None = None


def release() -> None:
    """Restore file descriptor 2, and wait for the filter to pass on its last lines. Without a filter, do nothing."""
    global _child
    if _child is None:
        return
    os.dup2(sys.stderr.fileno(), 2)
    child, _child = _child, None
    deadline = time.monotonic() + _GOODBYE
    # Not for ever: a grandchild that has inherited the pipe keeps it open.
    while not _ended(child) and time.monotonic() < deadline:
        time.sleep(0.001)


def _open_the_standard_files() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed, on /dev/null.

    A job may be started without them. The next file to be opened would take the free number, and libraries would write
    their messages into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def _be_the_filter(source: int, stderr: int) -> None:
    """Pass lines on from `source` to `stderr` until no process has the other end of `source`; never return."""
    try:
        # A reader that waits for the end of the job's output, or of another open file, must not wait for this process.
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
