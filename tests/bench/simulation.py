"""A chief and many simulated workers: threads over real gRPC, whose trials only sleep and report."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import searching
from searching import process, recipe, until

from fmnist.rundir import RunDir
from fmnist.search import client
from fmnist.search.roles import Role, read_notice
from fmnist.search.worker import Report, RunTrial, TrialRequest
from fmnist.signals import Stop


@dataclass(frozen=True)
class Outcome:
    """busy: share of the workers' time. chief: processors it used. end: seconds from the last trial to its exit."""

    busy: float
    chief: float
    end: float


def simulate(folder: Path, workers: int, trials: int, epochs: int, epoch_seconds: float) -> Outcome:
    """A search of `workers` x `trials` trials of `epochs` x `epoch_seconds`, in `folder`."""
    of = recipe(trials=workers * trials, epochs=epochs)
    run = RunDir(folder / "run")
    chief = process(searching.chief, run.path, of)
    until(lambda: (notice := read_notice(run)) and notice.address)
    assert chief.pid
    slept, present = [0] * workers, [0.0] * workers

    def train(number: int) -> RunTrial:
        def run_trial(trial: TrialRequest, report: Report) -> None:
            for epoch in range(trial.epochs):
                time.sleep(epoch_seconds)
                slept[number] += 1
                report(epoch, {"val_accuracy": 0.5, "val_loss": 0.5, "loss": 0.5, "accuracy": 0.5})

        return run_trial

    def work(number: int) -> None:
        # Real workers do not report in step.
        time.sleep(epoch_seconds * number / workers)
        start = time.perf_counter()
        client.join(run, of, Role(f"worker-{number}"), train(number), Stop())
        present[number] = time.perf_counter() - start

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    used, begin = processor_seconds(chief.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    while (notice := read_notice(run)) and notice.address:
        time.sleep(0.01)
        used_last = processor_seconds(chief.pid)
    end = time.perf_counter()
    chief.join(10)
    assert chief.exitcode == 0
    for thread in threads:
        thread.join()
    return Outcome(
        busy=epoch_seconds * sum(slept) / sum(present),
        chief=(used_last - used) / (end - begin),
        end=time.perf_counter() - end,
    )


def processor_seconds(pid: int) -> float:
    """What a process has used of all processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
