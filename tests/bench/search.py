"""The search's figures: what a chief costs, how busy it keeps its workers, and the loop around the training."""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import searching
from searching import process, recipe, until

from fmnist.rundir import RunDir
from fmnist.search import client
from fmnist.search.roles import Role, read_notice
from fmnist.search.worker import Report, TrialRequest
from fmnist.signals import Stop

WORKERS = 64
TRIALS_EACH = 4
EPOCHS, EPOCH_SECONDS = 10, 1.0


def processor_seconds(pid: int) -> float:
    """What a process has used of all processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def many_workers(folder: Path) -> dict[str, float]:
    """Threads over real gRPC, whose trials of ten seconds only sleep and report."""
    of = recipe(trials=WORKERS * TRIALS_EACH, epochs=EPOCHS)
    run = RunDir(folder / "run")
    chief = process(searching.chief, run.path, of)
    until(lambda: (notice := read_notice(run)) and notice.address)
    assert chief.pid
    epochs, present = [0] * WORKERS, [0.0] * WORKERS

    def train(number: int) -> Callable[[TrialRequest, Report], None]:
        def run_trial(trial: TrialRequest, report: Report) -> None:
            for epoch in range(trial.epochs):
                time.sleep(EPOCH_SECONDS)
                epochs[number] += 1
                report(epoch, {"val_accuracy": 0.5, "val_loss": 0.5, "loss": 0.5, "accuracy": 0.5})

        return run_trial

    def work(number: int) -> None:
        # Real workers do not report in step.
        time.sleep(EPOCH_SECONDS * number / WORKERS)
        start = time.perf_counter()
        client.join(run, of, Role(f"worker-{number}"), train(number), Stop())
        present[number] = time.perf_counter() - start

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    used, begin = processor_seconds(chief.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    while (notice := read_notice(run)) and notice.address:
        time.sleep(0.01)
        used_last = processor_seconds(chief.pid)
    end = time.perf_counter()
    _join(chief)
    for thread in threads:
        thread.join()
    return {
        "busy": EPOCH_SECONDS * sum(epochs) / sum(present),
        "chief": (used_last - used) / (end - begin),
        "end": time.perf_counter() - end,
    }


def _join(one: BaseProcess) -> None:
    one.join(10)
    assert one.exitcode == 0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = many_workers(Path(folder))
    print(f"{WORKERS} workers, {WORKERS * TRIALS_EACH} trials of {EPOCHS * EPOCH_SECONDS:.0f} s")
    print(f"  workers busy              {found['busy']:.1%}   (to reach: 95%)")
    print(f"  chief, of one processor   {found['chief']:.1%}   (to reach: 25%)")
    print(f"  chief's end               {found['end']:.2f} s (to reach: 2 s)")


if __name__ == "__main__":
    main()
