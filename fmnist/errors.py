"""Define the exceptions and exit codes of jobs that do not end well; a scheduler can act on codes 64 and 75."""

import errno
import os
import re

EXIT_FAILED = 1
EXIT_BAD_INPUT = 64
EXIT_GPU_FAILED = 69
EXIT_INTERRUPTED = 75

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers that mean that there is no room on the disk."""
# Error numbers that a bug in this program would cause. Any other one is due to the system or its user.
_OURS = (errno.EBADF, errno.EFAULT, errno.ENOTSOCK, errno.ECHILD, errno.ESRCH)
# The file system fails, as a network's may for a while.
_FAILING = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOLINK)
_ADVICE = {
    **dict.fromkeys(FULL, "make room, or choose another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "see to its permissions, or choose another place"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EOVERFLOW),
        "remove what has its name, or choose another place",
    ),
    **dict.fromkeys(_FAILING, "its file system fails: try again when that works"),
    **dict.fromkeys((errno.ENOSYS, errno.EOPNOTSUPP), "its file system cannot do that: choose another place"),
    **dict.fromkeys((errno.EBUSY, errno.ETXTBSY, errno.EDEADLK), "wait for what has it, or choose another place"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files, or run fewer processes"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "run fewer processes, or take a larger machine"),
    errno.ENOENT: "make it again, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_ANY_ADVICE = "try again when the system is well, or choose another place"
# How TensorFlow begins the message of an error in a compiled function; the reason comes below.
_OF_A_GRAPH = re.compile(
    r"Graph execution error:|Detected at node |<stack traces unavailable>|  File \"| {4}|\d+ root error"
)


class BadInput(Exception):
    """The configuration, the data or the run folder cannot be used; a retry would fail in the same way.

    The message is one line for a person: what is wrong, in which file or key, and what to do.
    """


class Busy(BadInput):
    """Another process is already at work on the same files."""


class Contended(Busy):
    """Others have held a lock that each process takes for a moment; when there are fewer of them, it is free."""


class Failed(Exception):
    """The input was valid, but the job failed. The message is one line for a person."""


class SearchFailed(Failed):
    """Every trial of a search failed."""


class ExportFailed(Failed):
    """An exported model does not agree with the model that it was made from."""


class GpuFailed(Failed):
    """A GPU, its driver or a library of CUDA failed; in a fresh process, or on another GPU, the same may succeed."""


class Interrupted(SystemExit):
    """A signal stopped the job after its state was saved; the same command continues from there.

    It is a `SystemExit`, because Keras Tuner and Keras turn every `Exception` of a trial into a failed trial.
    """

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


def explain(error: BaseException) -> str | None:
    """Return a line for a person that says what the system refused, and what to do; None for any other error."""
    code = _refusal(error)
    if code is None:
        return None
    if isinstance(error, OSError) and error.filename is not None:
        name = error.filename if isinstance(error.filename, str) else os.fsdecode(error.filename)
        reason = f"{name}: {error.strerror or os.strerror(code)}"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        # TensorFlow puts the operation's name before and after the file's name, and a trace below.
        reason = str(error).splitlines()[0].rpartition("}} ")[2].partition(" [Op:")[0]
    return f"{reason}; {_ADVICE.get(code, _ANY_ADVICE)}"


def may_pass(error: BaseException) -> bool:
    """Tell whether the same job may succeed after a while: a file system failed, or a lock was held for too long."""
    if isinstance(error, BadInput):
        return isinstance(error, Contended) or (error.__cause__ is not None and may_pass(error.__cause__))
    return _refusal(error) in _FAILING


def out_of_memory(error: BaseException) -> bool:
    """Tell whether the error means that the memory of the machine or of a device ran out."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def first_line(error: BaseException) -> str:
    """Return an error that is none of ours, for a table or a message: its type, and the first line that says why."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    said = next((line for line in lines if not _OF_A_GRAPH.match(line)), lines[0] if lines else "")
    return f"{type(error).__name__}: {said.strip()[:200]}" if said else type(error).__name__


def gpu_failed(error: BaseException) -> bool:
    """Tell whether the error, of a computation on a GPU, may be one of the GPU's and not of what was computed."""
    names = ("AbortedError", "InternalError", "UnavailableError", "UnknownError")
    of_cuda = re.search("cuda|cudnn|cublas|nccl", str(error).lower())
    return type(error).__name__ in names and (of_cuda is not None or not explain(error))


def _refusal(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return None if error.errno in _OURS else error.errno
    said = str(error).lower()
    # TensorFlow and HDF5 raise exceptions of their own; for a full disk other libraries do, too.
    if not (isinstance(error, OSError) or type(error).__module__.startswith("tensorflow.")):
        return next((code for code in FULL if os.strerror(code).lower() in said), None)
    if number := re.search(r"errno = (\d+)", said):
        return int(number[1])
    first = said.partition("\n")[0]
    return next(
        (
            code
            for code in errno.errorcode
            for text in [os.strerror(code).lower()]
            # TensorFlow ends a line about a file like this. It uses some of these texts for other things, too.
            if first.endswith(f"; {text}") or (code in _ADVICE and text in said)
        ),
        None,
    )


class Restart(Interrupted):
    """The job's state is saved, and it continues in a fresh process: the command line replaces this process by one."""
