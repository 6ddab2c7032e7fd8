"""Read the learning curves of a search's trials: from its journal or Keras Tuner project, without Keras Tuner."""

import contextlib
import json
import math
from collections.abc import Mapping

from fmnist.errors import BadInput
from fmnist.files import read_bytes
from fmnist.run import records
from fmnist.run.folder import RunDir
from fmnist.search import formats
from fmnist.search.record import Reader

_LONGEST = 10_000  # epochs


def read(run: RunDir, metric: str) -> dict[str, list[float | None]]:
    """Return a value an epoch by the trial's id; None for an epoch without a finite one.

    A trial whose file cannot be read goes without: the search says what is damaged, and has the version before.
    """
    seen = _of_project(run, metric)
    with contextlib.suppress(BadInput):
        # The chief writes the project at intervals, its journal at once.
        for trial_id, record in Reader(run.search).read().items():
            seen[trial_id] = {step: metrics[metric] for step, metrics in record.reports.items() if metric in metrics}
    return {trial_id: _curve(values) for trial_id, values in seen.items() if values and max(values) < _LONGEST}


def _of_project(run: RunDir, metric: str) -> dict[str, dict[int, float]]:
    """Return the values by epoch that each trial's trial.json holds."""
    found: dict[str, dict[int, float]] = {}
    for folder in run.search.glob("trial_*"):
        try:
            trial = records.check(json.loads(read_bytes(folder / "trial.json")), formats.Trial)
        except (OSError, ValueError, RecursionError):
            continue
        if history := trial["metrics"]["metrics"].get(metric):
            found[trial["trial_id"]] = {one["step"]: one["value"][0] for one in history["observations"] if one["value"]}
    return found


def _curve(values: Mapping[int, float]) -> list[float | None]:
    curve = [values.get(epoch, math.nan) for epoch in range(max(values) + 1)]
    return [value if math.isfinite(value) else None for value in curve]
