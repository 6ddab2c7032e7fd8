"""Give a report's figures as plain values, for `report --json`."""

from collections.abc import Sequence
from typing import Any

from fmnist.report.comparison import groups, pairs, read_all
from fmnist.report.results import Figure, Results, read, warning
from fmnist.run.folder import RunDir


def of_run(run: RunDir) -> dict[str, Any]:
    """Return the figures of a finished run.

    Raises:
        BadInput: there is no run, it is not evaluated yet, or a file is damaged.
    """
    return _of_results(read(run))


def of_runs(runs: Sequence[RunDir]) -> dict[str, Any]:
    """Return the figures of several finished runs, of each recipe over its seeds, and of pairs of models.

    Raises:
        BadInput: a run that cannot be compared.
    """
    results = read_all(runs)
    return {
        "runs": [_of_results(each) for each in results],
        "recipes": [
            {
                "name": group.name,
                "runs": [str(each.run) for each in group.runs],
                "seeds": [each.seed for each in group.runs],
                "figures": {
                    figure.name: {"mean": spread.mean, "deviation": spread.deviation, "n": len(spread.values)}
                    for figure in group.runs[0].figures
                    for spread in [group.spread(figure.name)]
                },
            }
            for group in groups(results)
        ],
        "pairs": [
            {
                "first": str(pair.first.run),
                "second": str(pair.second.run),
                "difference": pair.difference,
                "first_alone": pair.first_only,
                "second_alone": pair.second_only,
                "p": pair.p,
            }
            for pair in pairs(results)
        ],
    }


def _of_results(results: Results) -> dict[str, Any]:
    fit = results.training
    return {
        "run": str(results.run),
        "recipe": results.recipe.name,
        "seed": results.seed,
        "warning": warning(results),
        "is_fashion_mnist": results.is_fashion_mnist,
        "parameters": results.metrics["model"]["parameters"],
        "figures": {figure.name: _of_figure(figure) for figure in results.figures},
        "averaged": results.averaged
        and {
            "views": results.averaged["views"],
            "test accuracy": results.averaged["test"]["accuracy"],
            "interval": results.averaged["test"]["accuracy_interval"],
        },
        "training": {
            "epochs": len(fit["history"]["loss"]),
            "best_epoch": fit["best_epoch"] + 1,
            "seconds": fit["seconds"],
            "images_per_second": fit["images_per_second"],
        },
        "search": results.best
        and {
            "trials": len(results.trials),
            **{key: results.best[key] for key in ("trial", "objective", "score", "values")},
        },
    }


def _of_figure(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "interval": figure.interval, "reference": figure.reference}
