"""Build the search's part of a run's page: importance, progress, curves, a slice of each hyperparameter, the trials."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fmnist.report import page, plots
from fmnist.report.importance import LEAST, importances
from fmnist.report.results import Results
from fmnist.search import curves

_OWN = ("trial", "status", "score", "epochs", "seconds", "worker", "message")
_BUDGET, _LAYERS, _UNITS = "tuner/epochs", "layers", "units_"
_DRAWN = 400  # trials in a plot, the best ones: each has a tooltip
_EPOCHS = "epochs allowed"


@dataclass(frozen=True)
class _Trial:
    """A trial with a score.

    budget: the most epochs that it was to train, as text.
    """

    row: Mapping[str, str]
    score: float
    budget: str

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The hyperparameters by short names."""
        return _parameters(self.row)

    @cached_property
    def told(self) -> str:
        """What a tooltip says."""
        lines = [f"trial {self.row['trial']}: {self.score:.4f}, at most {self.budget} epochs"]
        return "\n".join([*lines, *(f"{name} {_short(value)}" for name, value in _merged(self.row).items() if value)])


def fragments(results: Results) -> list[str]:
    """Return the part's HTML fragments; none if no trial has a score."""
    longest = str(results.recipe.search.epochs) if results.recipe.search else "all"
    scored = [
        _Trial(row, score, row.get(_BUDGET) or longest)
        for score, row in zip(results.scores, results.trials, strict=True)
        if score is not None
    ]
    if not scored:
        return []
    lowest = results.objective == "val_loss"
    better: Callable[..., float] = min if lowest else max
    budgets = sorted({trial.budget for trial in scored}, key=_size)
    ranked = sorted(scored, key=lambda trial: (-_size(trial.budget), trial.score if lowest else -trial.score))
    best = {trial.row["trial"] for trial in ranked[:_DRAWN]}
    drawn = [trial for trial in scored if trial.row["trial"] in best]
    reach = _within_reach([trial.score for trial in scored], lowest)
    notes = [
        f"A trial's score is the {'lowest' if lowest else 'highest'} {results.objective} of its epochs.",
        f"Trials of {_listed(budgets)} epochs have colours of their own; they do not compare with each other."
        if len(budgets) > 1
        else "",
        f"Of {len(scored)} trials {len(drawn)} are drawn." if len(drawn) < len(scored) else "",
        "Scores far behind the others are drawn at the edge."
        if any(reach(trial.score) != trial.score for trial in drawn)
        else "",
        "Point at a dot or line to see the trial's parameters.",
    ]
    columns = _columns(scored, budgets)
    names = [(color, f"at most {budget} epochs") for color, budget in enumerate(budgets)]
    colors = {budget: color for color, budget in enumerate(budgets)}
    charts = [
        _progress(results, drawn, budgets, better, reach),
        _learning_curves(results, ranked[:_DRAWN], colors, lowest),
        *(
            plots.scatter(
                name,
                [trial.parameters.get(name, "") for trial in drawn],
                [reach(trial.score) for trial in drawn],
                [trial.told for trial in drawn],
                [colors[trial.budget] for trial in drawn],
            )
            for name in columns
            if name != _EPOCHS
        ),
    ]
    return [
        page.element("p", " ".join(filter(None, notes)), "muted"),
        *_importance(scored, columns, results.objective),
        *_parallel(results, drawn, columns, budgets, reach, lowest),
        page.legend(names, dots=True) if len(names) > 1 else "",
        page.columns(filter(None, charts)),
        page.element("h3", "Trials, the longest trained first, of those the best"),
        *_table(results, ranked),
    ]


def _columns(scored: Sequence[_Trial], budgets: Sequence[str]) -> dict[str, list[str]]:
    """Return the values over the trials of what varies: the epochs allowed, and each hyperparameter."""
    found = {_EPOCHS: [trial.budget for trial in scored]} if len(budgets) > 1 else {}
    for name in dict.fromkeys(name for trial in scored for name in trial.parameters):
        found[name] = [trial.parameters.get(name, "") for trial in scored]
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _importance(scored: Sequence[_Trial], columns: Mapping[str, Sequence[str]], objective: str) -> Iterator[str]:
    if not columns:
        return
    yield page.element("h3", "What the score depends on")
    found = importances(columns, [trial.score for trial in scored], _EPOCHS)
    if found is None:
        yield page.element("p", f"Fewer than {LEAST} configurations tell nothing about it.", "muted")
        return
    note = (
        f"How much worse random forests predict the {objective} of trials that they have not seen when a parameter's "
        "values are shuffled: the mean over twenty forests, and one standard deviation to each side. They are off by "
        f"{found.error:.4f} on average; by {found.guess:.4f} without any parameter."
    )
    if found.error >= found.guess:
        note += " So they predict nothing: there are too few trials to tell what matters."
    yield page.element("p", note, "muted")
    yield plots.intervals(
        f"Permutation importance for {objective}",
        [
            plots.Interval(
                row.name, row.mean, row.mean - row.deviation, row.mean + row.deviation,
                note=f"{row.mean:.4f} ± {row.deviation:.4f}",
            )
            for row in found.rows
        ],
        zero=True,
    )  # fmt: skip


def _progress(
    results: Results,
    drawn: Sequence[_Trial],
    budgets: Sequence[str],
    better: Callable[..., float],
    reach: Callable[[float], float],
) -> str:
    """Plot the scores in the order of the trials, with the best so far of each budget."""
    place = {trial.row["trial"]: trial for trial in drawn}
    series = []
    for color, budget in enumerate(budgets):
        mine = [
            trial if trial and trial.budget == budget else None
            for trial in (place.get(row["trial"]) for row in results.trials)
        ]
        scores = [reach(trial.score) if trial else None for trial in mine]
        told = [trial.told if trial else "" for trial in mine]
        best_so_far: list[float | None] = list(
            itertools.accumulate(scores, lambda best, score: _of_known(better, best, score))
        )
        series.append(plots.Series("", scores, "dots", color, told))
        series.append(plots.Series("", best_so_far, "steps", color))
    return plots.curves(f"{results.objective} by trial; the line: the best so far", "trial", series)


def _of_known(better: Callable[..., float], best: float | None, score: float | None) -> float | None:
    known = [value for value in (best, score) if value is not None]
    return better(known) if known else None


def _learning_curves(results: Results, ranked: Sequence[_Trial], colors: Mapping[str, int], lowest: bool) -> str:
    """Plot the objective of each trial over its epochs; an empty string if the search's folder does not say it."""
    known = curves.read(results.run, results.objective)
    told = [(trial, known[trial.row["trial"]]) for trial in ranked if trial.row["trial"] in known]
    values = [value for _, curve in told for value in curve if value is not None]
    if not values:
        return ""
    reach = _within_reach(values, lowest)
    series = [
        plots.Series(
            "",
            [value if value is None else reach(value) for value in curve],
            "line",
            colors[trial.budget],
            [trial.told],
        )
        # The best one last, above the others.
        for trial, curve in reversed(told)
    ]
    return plots.curves(f"{results.objective} by epoch", "epoch", series)


def _parallel(
    results: Results,
    drawn: Sequence[_Trial],
    columns: Mapping[str, Sequence[str]],
    budgets: Sequence[str],
    reach: Callable[[float], float],
    lowest: bool,
) -> Iterator[str]:
    if not columns:
        return
    ranks = {
        budget: sorted((trial.score for trial in drawn if trial.budget == budget), reverse=lowest) for budget in budgets
    }
    goodness = [
        ranks[trial.budget].index(trial.score) / (len(ranks[trial.budget]) - 1) if len(ranks[trial.budget]) > 1 else 1.0
        for trial in drawn
    ]
    among = " among those of as many epochs" if len(budgets) > 1 else ""
    axes = [
        (name, [trial.budget if name == _EPOCHS else trial.parameters.get(name, "") for trial in drawn])
        for name in columns
    ]
    yield page.element("h3", "What each trial was, and its score")
    yield page.element("p", f"A line is a trial; the stronger its colour, the better its rank{among}.", "muted")
    yield plots.parallel_coordinates(
        axes, results.objective, [reach(trial.score) for trial in drawn], goodness, [trial.told for trial in drawn]
    )  # fmt: skip


def _table(results: Results, ranked: Sequence[_Trial]) -> Iterator[str]:
    """Show of all trials what varies, and say the rest in a line."""
    first = {trial.row["trial"]: place for place, trial in enumerate(ranked)}
    rows = [
        {**row, **_merged(row)} for row in sorted(results.trials, key=lambda row: first.get(row["trial"], len(first)))
    ]
    names = dict.fromkeys(name for row in results.trials for name in _merged(row))
    columns = [*_OWN[:-1], *names, "message"]
    values = {name: {row.get(name, "") for row in rows} for name in columns}
    results_of = {"trial", "score", "epochs", "seconds"}
    shown = [name for name in columns if len(values[name]) > 1 or (name in results_of and values[name] != {""})]
    same = {name: next(iter(values[name])) for name in columns if name not in shown}
    if told := ", ".join(f"{name} {_short(value)}" for name, value in same.items() if value):
        yield page.element("p", f"The same for all: {told}.", "muted")
    yield page.table(shown, ([_cell(name, row.get(name, "")) for name in shown] for row in rows), "wide sortable")


def _parameters(row: Mapping[str, str]) -> dict[str, str]:
    # Keras Tuner's own values, `tuner/...`, only say which round a trial belongs to.
    return {
        name.removeprefix("model.").removeprefix("training."): value
        for name, value in row.items()
        if name not in _OWN and "/" not in name
    }


def _merged(row: Mapping[str, str]) -> dict[str, str]:
    """Return the hyperparameters with one text for the widths of all layers, such as "512-256"."""
    found = _parameters(row)
    if _LAYERS not in found:
        return found
    widths = [value for name, value in found.items() if name.startswith(_UNITS) and value]
    others = {name: value for name, value in found.items() if name != _LAYERS and not name.startswith(_UNITS)}
    return {"hidden": "-".join(widths), **others}


def _within_reach(scores: Sequence[float], lowest: bool) -> Callable[[float], float]:
    """Return a clip to three times the median's distance from the best, so that a failure does not flatten the rest."""
    best, median = (min if lowest else max)(scores), statistics.median(scores)
    edge = best - 3 * (best - median)
    return lambda score: (min if lowest else max)(score, edge)


def _size(budget: str) -> float:
    try:
        return float(budget)
    except ValueError:
        return 0.0


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _cell(name: str, text: str) -> str:
    return f"{float(text):.4f}" if name == "score" and text else _short(text)


def _short(text: str) -> str:
    """Round a number to four digits; of any other text return the last line, which is the message of a traceback."""
    try:
        return f"{float(text):.4g}" if set(text) & set(".e") else text
    except ValueError:
        return text.strip().rpartition("\n")[2]
