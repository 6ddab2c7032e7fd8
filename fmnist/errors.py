"""How a job ends when it does not end well; the exit codes 64 and 75 are those that a scheduler can act on."""

import errno
import os

EXIT_FAILED = 1
EXIT_BAD_INPUT = 64
EXIT_INTERRUPTED = 75


class BadInput(Exception):
    """The configuration, the data or the run folder cannot be used; a retry would meet it again.

    The message is one line for a person: what was wrong, which file or key, what to do.
    """


class Busy(BadInput):
    """Another process is at work on the same."""


class Failed(Exception):
    """The input was good and the outcome is not. The message is one line for a person."""


class SearchFailed(Failed):
    """Every trial of a search failed."""


class ExportFailed(Failed):
    """An exported model does not agree with the one that it was made from."""


class Interrupted(SystemExit):
    """A signal stopped the job after its state was saved; the same command goes on from there.

    A `SystemExit`, because Keras Tuner and Keras turn every `Exception` of a trial into a failed trial.
    """

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


def disk_full(error: Exception) -> bool:
    """Whether the disk is full, which TensorFlow and HDF5 tell by exceptions of their own."""
    return os.strerror(errno.ENOSPC) in str(error)


class Restart(Interrupted):
    """The job's state is saved, and it goes on in a fresh process: the command line starts one in this one's place."""
