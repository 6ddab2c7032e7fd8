"""Make the table of `evidence`: a row for each way to classify, over its seeds, and the commits of the trainings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fmnist.report.comparison import Aggregate, Spread
from fmnist.report.results import Figure
from fmnist.run import records
from fmnist.run.folder import RunDir, read_trials

_HEAD = ("", "n", "test accuracy", "validation accuracy", "parameters", "training images/s", "training, s")
_UNKNOWN = "(not recorded)"


@dataclass(frozen=True)
class Judged:
    """One evaluation.

    metrics: the result of `evaluate` or a similar function.
    runs: the run folder of its model, or those of the members of its ensemble.
    """

    metrics: Mapping[str, Any]
    runs: Sequence[RunDir]

    @cached_property
    def figures(self) -> list[Figure]:
        """The figures of the table; seconds are those of one model, or of all members of an ensemble."""
        metrics, splits = self.metrics, ("test", "validation")
        histories = [records.read(run.history, records.History) for run in self.runs]
        trials = [trial for run in self.runs for trial in read_trials(run.trials)]
        return [
            *(Figure(f"{split} accuracy", metrics[split]["accuracy"]) for split in splits if split in metrics),
            # A search may choose another model with each seed.
            Figure("parameters", int(metrics.get("model", metrics)["parameters"])),
            *(Figure("training images/s", float(history["images_per_second"])) for history in histories),
            Figure("training seconds", math.fsum(history["seconds"] for history in histories)),
            Figure("search seconds", math.fsum(float(trial["seconds"] or 0) for trial in trials)),
        ]


Row = Aggregate[Judged]


def markdown(rows: Sequence[Row]) -> str:
    """Return the table in Markdown, with notes for its reader below."""
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD)), *(_line(_cells(row)) for row in rows)]
    said = [
        "Mean ± the sample's standard deviation over n; seconds are those of one model, or of all in an ensemble.",
        "Parameters are all that the model holds, also of a whitening.",
        "Where no image is held back for validation, there is no validation accuracy (–).",
    ]
    return "\n".join([*lines, "", *said, *provenance(rows), ""])


def to_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the same table for programs, with each value that a mean is taken over."""
    return {
        "rows": [
            {
                "what": row.name,
                "n": len(row.runs),
                "runs": [[run.name for run in judged.runs] for judged in row.runs],
                "test_accuracy": _spread(row.spread("test accuracy")),
                "validation_accuracy": _spread(row.spread("validation accuracy")),
                "parameters": list(row.spread("parameters").values),
                "images_per_second": _spread(row.spread("training images/s")),
                "seconds": _spread(row.spread("training seconds")),
                "search_seconds": _spread(row.spread("search seconds")),
            }
            for row in rows
        ],
        "revisions": _revisions(rows),
        "notes": provenance(rows),
    }


def provenance(rows: Sequence[Row]) -> list[str]:
    """Return sentences on the commits of the trainings, with a warning if a commit is unknown or not the only one.

    Further warnings concern code with changes after its commit, and other data than Fashion-MNIST.
    """
    revisions = _revisions(rows)
    distinct = sorted({revision for found in revisions.values() for revision in found})
    if len(distinct) == 1:
        said = [f"All models were trained at commit {distinct[0]}."]
    else:
        said = [
            f"{recipe} was trained at commit{'s' * (len(found) > 1)} {', '.join(found)}."
            for recipe, found in revisions.items()
        ]
    said += [f"WARNING: {recipe} is of several commits." for recipe, found in revisions.items() if len(found) > 1]
    if any(revision.endswith("+changes") for revision in distinct):
        said.append("WARNING: the code was not that of the commit, where it says +changes.")
    if _UNKNOWN in distinct:
        said.append("WARNING: of some runs the commit is not known.")
    if not all(judged.metrics["data"]["is_fashion_mnist"] for row in rows for judged in row.runs):
        said.append("WARNING: NOT FASHION-MNIST: these are the figures of another data set.")
    return said


def _revisions(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the commits that the runs of each recipe were trained at, by the recipe's name."""
    found: dict[str, set[str]] = {}
    for run in (run for row in rows for judged in row.runs for run in judged.runs):
        config = records.read(run.config, records.Config)
        commits = found.setdefault(config["recipe"]["name"], set())
        if "train" not in config["jobs"]:
            commits.add(_UNKNOWN)
        # A search chooses what is trained.
        for job in (config["jobs"][name] for name in ("tune", "train") if name in config["jobs"]):
            commits |= {facts.get("revision") or _UNKNOWN for facts in (job, *job.get("went_on_from", []))}
    return {recipe: sorted(revisions) for recipe, revisions in found.items()}


def _cells(row: Row) -> list[str]:
    parameters = row.spread("parameters").values
    fewest, most = min(parameters), max(parameters)
    searched = row.spread("search seconds").mean
    return [
        row.name,
        str(len(row.runs)),
        str(row.spread("test accuracy")),
        str(row.spread("validation accuracy")),
        f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        f"{row.spread('training images/s').mean:,.0f}",
        f"{row.spread('training seconds').mean:,.0f}" + (f" and {searched:,.0f} of search" if searched else ""),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(spread: Spread) -> dict[str, Any]:
    mean = spread.mean if spread.values else None
    return {"mean": mean, "standard_deviation": spread.deviation, "values": list(spread.values)}
