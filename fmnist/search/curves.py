"""Read the learning curves of a search's trials from its Keras Tuner project, without Keras Tuner."""

import json
import math

from fmnist.files import read_bytes
from fmnist.run import records
from fmnist.run.folder import RunDir
from fmnist.search import formats

_LONGEST = 10_000  # epochs


def read(run: RunDir, metric: str) -> dict[str, list[float | None]]:
    """Return a value an epoch by the trial's id; None for an epoch without a finite one.

    A trial whose file cannot be read goes without: the search says what is damaged, and has the version before.
    """
    found: dict[str, list[float | None]] = {}
    for folder in run.search.glob("trial_*"):
        try:
            trial = records.check(json.loads(read_bytes(folder / "trial.json")), formats.Trial)
        except (OSError, ValueError, RecursionError):
            continue
        history = trial["metrics"]["metrics"].get(metric)
        seen = {one["step"]: one["value"][0] for one in history["observations"] if one["value"]} if history else {}
        if seen and max(seen) < _LONGEST:
            values = [seen.get(epoch, math.nan) for epoch in range(max(seen) + 1)]
            found[trial["trial_id"]] = [value if math.isfinite(value) else None for value in values]
    return found
