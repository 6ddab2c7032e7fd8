"""Compare finished runs: each recipe over its seeds, and pairs of models on the same test images."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fmnist.errors import BadInput
from fmnist.recipe import config
from fmnist.report.results import Figure, Results, read
from fmnist.run.folder import RunDir, check_distinct

_NAMED = 60  # characters of settings in a group's name
_ABOUT = ("name", "description", "reference.")


@dataclass(frozen=True)
class Spread:
    """A figure's values over the results of an aggregate that have it.

    `deviation` is the sample standard deviation (n - 1), None for fewer than two values.
    """

    values: Sequence[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if not self.values:
            return "–"
        return f"{self.mean:.4f}" if self.deviation is None else f"{self.mean:.4f} ± {self.deviation:.4f}"


class HasFigures(Protocol):
    """A result of one or more trainings."""

    @property
    def figures(self) -> Sequence[Figure]:
        """Its figures; several may have the same name."""


Result = TypeVar("Result", bound=HasFigures)


@dataclass(frozen=True)
class Aggregate(Generic[Result]):
    """The results of one way to classify, which differ in nothing but their seeds."""

    name: str
    runs: Sequence[Result]

    def spread(self, figure: str) -> Spread:
        """Return the values of all figures that have this name."""
        return Spread([found.value for run in self.runs for found in run.figures if found.name == figure])


class Group(Aggregate[Results]):
    """The runs of one recipe with the same settings."""

    @property
    def seeds(self) -> str:
        """The seeds as text, for example "seeds 0, 1, 2"."""
        seeds = sorted(run.seed for run in self.runs)
        return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


@dataclass(frozen=True)
class Pair:
    """The comparison of two models on the same test images.

    first_only, second_only: number of images that only this model classified correctly.
    p: p-value of McNemar's exact two-sided test that both are equally often right (McNemar 1947; the binomial form).
    """

    first: Results
    second: Results
    first_only: int
    second_only: int
    p: float

    @property
    def difference(self) -> float:
        """The second model's test accuracy minus the first's."""
        return (self.second_only - self.first_only) / len(self.first.predictions["labels"])


def read_all(runs: Sequence[RunDir]) -> list[Results]:
    """Read finished runs that were evaluated on the same test set.

    Raises:
        BadInput: a run cannot be read, is named twice or is a copy of another, or was trained or evaluated on other
            data than the first.
    """
    check_distinct(runs)
    found: list[Results] = []
    models: dict[str, Results] = {}
    for run in runs:
        results = read(run)
        same = models.setdefault(results.metrics["model"]["sha256"], results)
        if same is not results:
            raise BadInput(f"{run} holds the same model as {same.run}, so it is no sample of its own; leave out one")
        if found and results.metrics["data"]["sha256"] != found[0].metrics["data"]["sha256"]:
            raise BadInput(f"{run} and {found[0].run} were trained or judged on different data; compare them apart")
        if found and len(results.predictions["labels"]) != len(found[0].predictions["labels"]):
            raise BadInput(f"{run.predictions} is of other images than {found[0].run.predictions}; eval both again")
        found.append(results)
    return found


def groups(runs: Sequence[Results]) -> list[Group]:
    """Group the runs by recipe and settings, in the order of each group's first run.

    Where several groups have the same recipe name, the later ones are named with the settings that differ from the
    first, or with a number where those are many. The number of trials is such a setting, and so is each `--set`.
    """
    members: dict[str, list[Results]] = {}
    for run in runs:
        members.setdefault(json.dumps(_settings(run)), []).append(run)
    first: dict[str, Results] = {}
    found: list[Group] = []
    for same in members.values():
        origin = first.setdefault(same[0].claimed.name, same[0])
        changed = " ".join(_changes(_settings(origin), _settings(same[0])))
        if len(changed) > _NAMED:
            changed = f"({sum(group.runs[0].claimed.name == origin.claimed.name for group in found) + 1})"
        found.append(Group(f"{same[0].claimed.name} {changed}".strip(), same))
    return found


def differences(found: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Return each setting that differs between groups: its key, and its value in each, empty if it is not set."""
    settings = [_flat(_settings(group.runs[0])) for group in found]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [(key, [one.get(key, "") for one in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def pairs(runs: Sequence[Results]) -> list[Pair]:
    """Compare the two runs if there are two; else each two that share a seed and differ in recipe or settings."""
    if len(runs) == 2:
        return [compare(*runs)]
    of = {id(run): group.name for group in groups(runs) for run in group.runs}
    return [
        compare(first, second)
        for index, first in enumerate(runs)
        for second in runs[index + 1 :]
        if first.seed == second.seed and of[id(first)] != of[id(second)]
    ]


def compare(first: Results, second: Results) -> Pair:
    """Compare two models by McNemar's test on their predictions."""
    # The import takes half a second.
    from scipy.stats import binomtest

    right = [run.predictions["predicted"] == run.predictions["labels"] for run in (first, second)]
    first_only, second_only = (int(np.count_nonzero(one & ~other)) for one, other in (right, right[::-1]))
    differing = first_only + second_only
    p = float(binomtest(first_only, differing, 0.5).pvalue) if differing else 1.0
    return Pair(first, second, first_only, second_only, p)


def _settings(run: Results) -> dict[str, Any]:
    return {**config.to_dict(run.claimed), "description": "", "reference": None, **run.gone}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return what is set, by dotted keys, as text; not the names and figures that are about a recipe."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if prefix == "search.space.":
            flat[prefix + key] = _domain(value)
        elif isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = _text(value)
    return {key: value for key, value in flat.items() if not key.startswith(_ABOUT)}


def _domain(domain: Mapping[str, Any]) -> str:
    if domain.get("layers"):
        return f"{' to '.join(map(_text, domain['layers']))} layers of {_text(domain['units'])}"
    if domain.get("values"):
        return _text(domain["values"])
    log = ", logarithmic" if domain.get("sampling") == "log" else ""
    return f"{_text(domain.get('min'))} to {_text(domain.get('max'))}{log}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    changed = []
    for key in dict.fromkeys([*before, *after]):
        old, value = before.get(key), after.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            changed += _changes(old, value, f"{prefix}{key}.")
        elif value != old:
            changed.append(f"{prefix}{key}={json.dumps(value)}")
    return changed
