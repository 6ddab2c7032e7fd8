"""What a chief with a thousand workers takes, and what a trial leaves on the volume."""

import tempfile
from pathlib import Path

from . import machine
from .output import options, publish
from .simulation import simulate
from .table import Figure


def main() -> None:
    parser = options("scale", __doc__)
    parser.add_argument("--workers", type=int, default=1000, help="[%(default)s]")
    parser.add_argument("--trials", type=int, default=2, help="of each worker [%(default)s]")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial [%(default)s]")
    parser.add_argument("--seconds", type=float, default=30.0, help="that an epoch takes [%(default)s]")
    arguments = parser.parse_args()
    here = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(Path(folder), arguments.workers, arguments.trials, arguments.epochs, arguments.seconds)
    trials = arguments.workers * arguments.trials
    case = f"{arguments.workers:,} simulated workers, {trials:,} trials of {arguments.epochs} x {arguments.seconds:g} s"
    figures = {
        "workers busy, of their time": found.busy,
        "chief, of one processor": found.chief,
        "chief's memory, MiB": found.memory / 2**20,
        "calls a second": found.calls,
        "files written a second": found.files,
        "chief's end after the last trial, s": found.end,
        "on the volume, KiB a trial": found.volume / 2**10 / trials,
    }
    publish("scale", here, [Figure(name, case, values=(value,)) for name, value in figures.items()], arguments.out)
