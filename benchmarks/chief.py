"""What a trial costs the chief, as their number grows: in one process, without gRPC, whose workers take no time."""

import logging
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search.chief import Chief

from . import machine
from .output import options, publish
from .simulation import simulated
from .table import Figure, cost

EPOCHS = 10
WINDOW = 50  # trials on both sides of one


class Sample(NamedTuple):
    """One search. Seconds of each trial, of the clock and of the processor; what it wrote; seconds to take it up."""

    clock: list[float]
    processor: list[float]
    written: int
    volume: int
    restart: float


def measure(folder: Path, of: Recipe, workers: int) -> Sample:
    """Run all trials of a search one by one, each by the next of `workers`."""
    assert of.search
    chance = random.Random(0)
    chief = Chief(RunDir(folder), of, 0)
    clock, processor = [], []
    before = _written()
    for number in range(of.search.trials):
        begin, used = time.perf_counter(), time.process_time()
        worker = f"worker-{number % workers}"
        trial = chief.create_trial(worker)
        values = trial.hyperparameters.values
        for epoch in range(values["tuner/initial_epoch"], values["tuner/epochs"]):
            metrics = {name: chance.random() for name in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")}
            chief.update_trial(worker, trial.trial_id, metrics, epoch)
        chief.end_trial(worker, trial.trial_id, "COMPLETED")
        processor.append(time.process_time() - used)
        clock.append(time.perf_counter() - begin)
    assert chief.finished
    written = _written() - before
    volume = sum(512 * path.lstat().st_blocks for path in folder.rglob("*"))
    begin = time.perf_counter()
    assert Chief(RunDir(folder), of, 0).finished
    return Sample(clock, processor, written, volume, time.perf_counter() - begin)


def _written() -> int:
    """Return how many bytes this process has had written to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def around(seconds: Sequence[float], trial: int) -> float:
    """Return the median milliseconds of the trials around one."""
    return 1000 * statistics.median(seconds[max(0, trial - WINDOW) : trial + WINDOW])


def main() -> None:
    parser = options("chief", __doc__, pairs=3)
    parser.add_argument("--oracles", nargs="+", default=["random", "asha"], help="[%(default)s]")
    parser.add_argument("--trials", type=int, default=10_000, help="[%(default)s]")
    parser.add_argument("--workers", type=int, default=100, help="[%(default)s]")
    arguments = parser.parse_args()
    logging.getLogger("fmnist").setLevel(logging.WARNING)  # a line a trial
    here = machine.describe()
    figures = []
    for oracle in arguments.oracles:
        with tempfile.TemporaryDirectory() as folder:
            of = simulated(oracle, arguments.trials, EPOCHS)
            samples = [measure(Path(folder, str(n)), of, arguments.workers) for n in range(arguments.pairs)]
        case = f"{oracle}, {arguments.trials:,} trials of {EPOCHS} epochs"
        for name in ("clock", "processor"):
            early, late = (
                tuple(around(getattr(sample, name), at) for sample in samples) for at in (100, arguments.trials)
            )
            figures += [
                Figure(f"ms a trial at trial 100, {name}", case, values=early),
                Figure(f"ms a trial at the last trials, {name}", case, values=late),
                Figure(f"the one over the other, {name}", case, "<= 1.2", values=cost(late, early)),
                Figure(
                    f"ms a trial over all, tables included, {name}", case,
                    values=tuple(1000 * statistics.mean(getattr(sample, name)) for sample in samples),
                ),
            ]  # fmt: skip
        count = arguments.trials
        figures += [
            Figure("KiB written a trial", case, values=tuple(one.written / 2**10 / count for one in samples)),
            Figure(
                "KiB a trial on the volume", case, "<= 6", values=tuple(one.volume / 2**10 / count for one in samples)
            ),
            Figure("s to take the search up again", case, "<= 5", values=tuple(one.restart for one in samples)),
        ]
    publish("chief", here, figures, arguments.out)
