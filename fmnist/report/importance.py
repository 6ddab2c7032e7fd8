"""Tell which hyperparameters the scores of a search depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 10
"""Number of configurations below which a forest tells nothing."""

_FORESTS, _TREES, _SHUFFLES = 20, 30, 2
_HELD_OUT = 0.25


@dataclass(frozen=True)
class Importance:
    """How much worse held-out scores are predicted without a parameter: mean and standard deviation over forests."""

    name: str
    mean: float
    deviation: float


@dataclass(frozen=True)
class Importances:
    """The importance of each parameter, the largest first, and how well the scores can be predicted at all.

    error, guess: the mean absolute error on held-out trials of the forests, and of the mean of the other scores.
    """

    rows: Sequence[Importance]
    error: float
    guess: float


def importances(parameters: Mapping[str, Sequence[str]], scores: Sequence[float], budget: str) -> Importances | None:
    """Return permutation importances of random forests, each fitted to three quarters of the configurations.

    A forest is judged on the configurations that it has not seen: on others, all would look important.

    Args:
        parameters: the values of each over the trials, as texts; an empty one is missing.
        scores: of the trials.
        budget: the parameter by which trials of one configuration may differ. It has a row of its own, so that what
            more epochs bring is not taken for the merit of what was promoted to them.

    Returns:
        None if there are too few configurations.
    """
    configurations = list(zip(*(values for name, values in parameters.items() if name != budget), strict=True))
    distinct = {one: index for index, one in enumerate(dict.fromkeys(configurations))}
    if len(distinct) < LEAST:
        return None
    # The imports take a second.
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GroupShuffleSplit

    features, target = np.column_stack([_numbers(values) for values in parameters.values()]), np.asarray(scores)
    splits = GroupShuffleSplit(_FORESTS, test_size=_HELD_OUT, random_state=0)
    drops, errors, guesses = [], [], []
    for seed, (seen, held) in enumerate(splits.split(features, groups=[distinct[one] for one in configurations])):
        forest = RandomForestRegressor(_TREES, random_state=seed).fit(features[seen], target[seen])
        errors.append(np.abs(forest.predict(features[held]) - target[held]).mean())
        guesses.append(np.abs(target[seen].mean() - target[held]).mean())
        shuffled = permutation_importance(
            forest, features[held], target[held],
            scoring="neg_mean_absolute_error", n_repeats=_SHUFFLES, random_state=seed,
        )  # fmt: skip
        drops.append(shuffled.importances_mean)
    rows = [
        Importance(name, float(mean), float(deviation))
        for name, mean, deviation in zip(parameters, np.mean(drops, axis=0), np.std(drops, axis=0, ddof=1), strict=True)
    ]
    ranked = sorted(rows, key=lambda row: -row.mean)
    return Importances(ranked, float(np.mean(errors)), float(np.mean(guesses)))


def _numbers(values: Sequence[str]) -> np.ndarray:
    """Return numbers as they are, words as their places in the alphabet, and what is missing as NaN."""
    try:
        return np.array([float(value or "nan") for value in values])
    except ValueError:
        places = {word: place for place, word in enumerate(sorted(set(filter(None, values))))}
        return np.array([places.get(value, np.nan) for value in values])
