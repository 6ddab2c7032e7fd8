"""`python -m fmnist` as a real process, without the seconds of its imports: a fork of a server that has made them."""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

SEARCH = ["searching", "fmnist.search.service", "fmnist.search.client"]
JOBS = [
    "search.job",
    "search.trial",
    "search.local",
    "training.job",
    "study.job",
    "report.one",
    "report.several",
    "evaluation.predict",
    "evaluation.export",
    "evaluation.metrics",
]

# What jobs import only when they need it.
LIBRARIES = ["sklearn.decomposition", "sklearn.mixture"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(SEARCH)


def preload_jobs() -> None:
    """From the first fork on, be ready for `Forked` too. It imports alone: a fork has no threads but its own."""
    CONTEXT.set_forkserver_preload([*SEARCH, *(f"fmnist.{job}" for job in JOBS), *LIBRARIES, "pytest"])


Prepare = Callable[[], object]


class Forked:
    """`python -m fmnist ARGUMENTS`, as far like a `subprocess.Popen` with pipes as the tests need it."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        stderr: int | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        """Start it.

        Args:
            env: the whole of its environment; but what an import reads, the server has read in its own.
            stderr: a descriptor that it has instead of a pipe.
            prepare: what it calls before all else.
        """
        self.args = arguments
        read_output, write_output = os.pipe()
        read_errors, write_errors = os.pipe()
        self.stdout, self.stderr = os.fdopen(read_output), os.fdopen(read_errors)
        if stderr is not None:
            os.dup2(stderr, write_errors)
        # What multiprocessing hands over to a process that is not its child.
        with Connection(write_output, readable=False) as output, Connection(write_errors, readable=False) as errors:
            self._process = CONTEXT.Process(target=_main, args=(arguments, cwd, dict(env), output, errors, prepare))
            self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.stdout.close()
        self.stderr.close()

    @property
    def returncode(self) -> int:
        code = self._process.exitcode
        assert code is not None, "it runs"
        return code

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both pipes to their ends. What takes longer than `timeout` is killed."""
        with ThreadPoolExecutor() as pool:
            readers = [pool.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            finally:
                self._process.kill()
            output, errors = (reader.result() for reader in readers)
            return output, errors

    def send_signal(self, signum: signal.Signals) -> None:
        # The server does not keep the number of one that has ended, as a parent would.
        if self._process.exitcode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self._process.kill()


def _main(
    arguments: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    output: Connection,
    errors: Connection,
    prepare: Prepare | None,
) -> None:
    with output, errors:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    # The server's own may have been files.
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-m", *arguments]
    # By which it starts itself anew.
    sys.orig_argv = [sys.executable, "-m", "fmnist", *arguments]
    try:
        if prepare:
            prepare()
        runpy.run_module("fmnist", run_name="__main__", alter_sys=True)
    finally:
        # multiprocessing leaves them out before Python 3.13.
        atexit._run_exitfuncs()
