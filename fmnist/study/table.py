"""Make the table of `evidence`: a row for each way to classify, over its seeds, and the commits of the trainings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmnist.report.comparison import Spread
from fmnist.run import records
from fmnist.run.folder import RunDir, read_trials

_HEAD = ("", "n", "test accuracy", "validation accuracy", "parameters", "training images/s", "training, s")
_UNKNOWN = "(not recorded)"


@dataclass(frozen=True)
class Row:
    """One way to classify, evaluated n times.

    metrics: the n results of `evaluate` or a similar function.
    runs: for each result, the run folders of its models: one, or the members of an ensemble.
    """

    what: str
    metrics: Sequence[Mapping[str, Any]]
    runs: Sequence[Sequence[RunDir]]

    def accuracy(self, split: str) -> Spread:
        """Return the accuracies on a split, "test" or "validation"."""
        return Spread([metrics[split]["accuracy"] for metrics in self.metrics if split in metrics])

    @property
    def parameters(self) -> list[int]:
        """Number of parameters of each model or whole ensemble; a search may choose another model with each seed."""
        return [int(metrics.get("model", metrics)["parameters"]) for metrics in self.metrics]

    @property
    def images_per_second(self) -> Spread:
        """Training images per second of each training."""
        return Spread([float(_history(run)["images_per_second"]) for runs in self.runs for run in runs])

    @property
    def seconds(self) -> Spread:
        """Seconds of training for each result: of one model, or of all members of an ensemble."""
        return Spread([math.fsum(_history(run)["seconds"] for run in runs) for runs in self.runs])

    @property
    def search_seconds(self) -> Spread:
        """Seconds of the search's trials for each result; 0 without a search."""
        return Spread(
            [
                math.fsum(float(trial["seconds"] or 0) for run in runs for trial in read_trials(run.trials))
                for runs in self.runs
            ]
        )


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
                "what": row.what,
                "n": len(row.metrics),
                "runs": [[run.name for run in runs] for runs in row.runs],
                "test_accuracy": _spread(row.accuracy("test")),
                "validation_accuracy": _spread(row.accuracy("validation")),
                "parameters": row.parameters,
                "images_per_second": _spread(row.images_per_second),
                "seconds": _spread(row.seconds),
                "search_seconds": _spread(row.search_seconds),
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
    if not all(metrics["data"]["is_fashion_mnist"] for row in rows for metrics in row.metrics):
        said.append("WARNING: NOT FASHION-MNIST: these are the figures of another data set.")
    return said


def _revisions(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the commits that the runs of each recipe were trained at, by the recipe's name."""
    found: dict[str, set[str]] = {}
    for run in (run for row in rows for runs in row.runs for run in runs):
        config = records.read(run.config, records.Config)
        trained = config["jobs"].get("train")
        revision = trained.get("revision") if trained else None
        found.setdefault(config["recipe"]["name"], set()).add(revision or _UNKNOWN)
    return {recipe: sorted(revisions) for recipe, revisions in found.items()}


def _cells(row: Row) -> list[str]:
    fewest, most = min(row.parameters), max(row.parameters)
    searched = row.search_seconds.mean
    return [
        row.what,
        str(len(row.metrics)),
        str(row.accuracy("test")),
        str(row.accuracy("validation")),
        f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        f"{row.images_per_second.mean:,.0f}",
        f"{row.seconds.mean:,.0f}" + (f" and {searched:,.0f} of search" if searched else ""),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(spread: Spread) -> dict[str, Any]:
    mean = spread.mean if spread.values else None
    return {"mean": mean, "standard_deviation": spread.deviation, "values": list(spread.values)}


def _history(run: RunDir) -> records.History:
    return records.read(run.history, records.History)
