"""Build the search's part of a run's page: its progress, the effect of each hyperparameter, and the trials."""

import itertools
import math
import statistics

from fmnist.report import page, plots
from fmnist.report.results import Results

_TRIAL_COLUMNS = ("trial", "status", "score", "epochs", "seconds", "worker", "message")


def fragments(results: Results) -> list[str]:
    """Return the part's HTML fragments; none if no trial has a score."""
    if all(score is None for score in results.scores):
        return []
    lowest = results.objective == "val_loss"
    worst = math.inf if lowest else -math.inf
    scores = [worst if score is None else score for score in results.scores]
    best_so_far = [None if score == worst else score for score in itertools.accumulate(scores, min if lowest else max)]
    ranked = sorted(zip(scores, results.trials, strict=True), key=lambda pair: pair[0], reverse=not lowest)
    hyperparameters = [column for column in results.trials[0] if column not in _TRIAL_COLUMNS]
    columns = [*_TRIAL_COLUMNS[:-1], *hyperparameters, "message"]
    progress = plots.curves(
        f"Score: {results.objective}",
        "trial",
        [plots.Series("trial", results.scores, "dots"), plots.Series("best so far", best_so_far, "steps")],
    )
    table = page.table(
        [_label(column) for column in columns],
        ([_short(trial.get(column, "")) for column in columns] for _, trial in ranked),
        "wide sortable",
    )
    return [
        *_parameters(results, progress, lowest),
        page.element("h3", "Trials, the best first"),
        table,
    ]


def _parameters(results: Results, progress: str, lowest: bool) -> list[str]:
    """Plot the trials in parallel coordinates, then the score over the trials and over each hyperparameter."""
    scored = [(score, trial) for score, trial in zip(results.scores, results.trials, strict=True) if score is not None]
    scores = [score for score, _ in scored]
    drawn = _within_reach(scores, lowest)
    names = [f"trial {trial['trial']}: {score:.4f}" for score, trial in scored]
    varied = [
        (_label(column), values)
        for column in results.trials[0]
        # Keras Tuner's own values, `tuner/...`, only say which round a trial belongs to.
        if column not in _TRIAL_COLUMNS and "/" not in column
        for values in [[trial.get(column, "") for _, trial in scored]]
        if len(set(values)) > 1
    ]
    if not varied:
        return [page.columns([progress])]
    order = sorted(scores, reverse=lowest)
    goodness = [order.index(score) / max(len(scores) - 1, 1) for score in scores]
    note = "A line is a trial; the stronger its colour, the better its rank. Point at one to see which it is."
    if drawn != scores:
        note += " Scores far behind the others are drawn at the edge."
    return [
        page.element("h3", "What each trial was, and its score"),
        plots.parallel_coordinates(varied, results.objective, drawn, goodness, names),
        page.element("p", note, "muted"),
        page.columns([progress, *(plots.scatter(name, values, drawn, names) for name, values in varied)]),
    ]


def _within_reach(scores: list[float], lowest: bool) -> list[float]:
    """Clip scores to three times the median's distance from the best, so that a failure does not flatten the rest."""
    best, median = (min if lowest else max)(scores), statistics.median(scores)
    edge = best - 3 * (best - median)
    return [min(score, edge) if lowest else max(score, edge) for score in scores]


def _label(column: str) -> str:
    return column.removeprefix("model.").removeprefix("training.")


def _short(text: str) -> str:
    """Round a number to four digits; of any other text return the last line, which is the message of a traceback."""
    try:
        return f"{float(text):.4g}" if set(text) & set(".e") else text
    except ValueError:
        return text.strip().rpartition("\n")[2]
