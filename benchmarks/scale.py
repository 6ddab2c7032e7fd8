"""What a chief with a thousand workers takes, over gRPC, and what a trial leaves on the volume."""

import tempfile
from pathlib import Path

from . import machine
from .output import options, publish
from .simulation import simulate, simulated
from .table import Figure

GOALS = {
    "workers busy, of their time": ">= 0.97",
    "chief, of one processor": "<= 0.25",
    "chief's memory, MiB": "<= 300",
    "on the volume, KiB a trial": "<= 6",
}


def main() -> None:
    parser = options("scale", __doc__)
    parser.add_argument("--oracle", default="asha", help="[%(default)s]")
    parser.add_argument("--workers", type=int, default=1000, help="[%(default)s]")
    parser.add_argument("--trials", type=int, default=2, help="of each worker [%(default)s]")
    parser.add_argument("--epochs", type=int, default=10, help="of each trial [%(default)s]")
    parser.add_argument("--seconds", type=float, default=6.0, help="that an epoch takes on average [%(default)s]")
    parser.add_argument("--spread", type=float, default=0.5, help="of the trials' speeds [%(default)s]")
    arguments = parser.parse_args()
    trials, epochs = arguments.workers * arguments.trials, arguments.epochs
    of = simulated(arguments.oracle, trials, epochs)
    here = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(Path(folder), of, arguments.workers, arguments.seconds, arguments.spread)
    seconds = f"{epochs} x {arguments.seconds:g} s +- {arguments.spread:.0%}"
    case = f"{arguments.oracle}, {arguments.workers:,} simulated workers, {trials:,} trials of {seconds}"
    figures = {
        "workers busy, of their time": found.busy,
        "chief, of one processor": found.chief,
        "chief's memory, MiB": found.memory / 2**20,
        "chief's memory before a worker came, MiB": found.before / 2**20,
        "chief's open files": found.handles,
        "chief's threads": found.threads,
        "calls a second": found.calls,
        "files written a second": found.files,
        "chief's end after the last trial, s": found.end,
        "on the volume, KiB a trial": found.volume / 2**10 / trials,
    }
    publish(
        "scale", here, [Figure(name, case, GOALS.get(name, ""), values=(value,)) for name, value in figures.items()],
        arguments.out,
    )  # fmt: skip
