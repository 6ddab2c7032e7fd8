"""What a chief with a thousand workers takes, and what a trial leaves on the volume."""

import argparse
import logging
import tempfile
from pathlib import Path

from . import machine
from .output import publish
from .simulation import simulate
from .table import Figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--workers", type=int, default=1000, help="[%(default)s]")
    parser.add_argument("--trials", type=int, default=2, help="of each worker [%(default)s]")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial [%(default)s]")
    parser.add_argument("--seconds", type=float, default=30.0, help="that an epoch takes [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the JSON file [%(default)s]")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    here = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(Path(folder), options.workers, options.trials, options.epochs, options.seconds)
    trials = options.workers * options.trials
    case = f"{options.workers:,} simulated workers, {trials:,} trials of {options.epochs} x {options.seconds:g} s"
    figures = {
        "workers busy, of their time": found.busy,
        "chief, of one processor": found.chief,
        "chief's memory, MiB": found.memory / 2**20,
        "calls a second": found.calls,
        "files written a second": found.files,
        "chief's end after the last trial, s": found.end,
        "on the volume, KiB a trial": found.volume / 2**10 / trials,
    }
    publish("scale", here, [Figure(name, case, values=(value,)) for name, value in figures.items()], options.out)


if __name__ == "__main__":
    main()
