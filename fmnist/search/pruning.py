"""Tell which trials are not worth further epochs: the median stopping rule (Golovin et al. 2017, section 3.2.2)."""

import bisect
import itertools
from collections import defaultdict

from keras_tuner.engine.trial import Trial, TrialStatus

_LEAST = 5  # trials that have completed an epoch, before others are compared with them


class MedianRule:
    """A trial is pruned after an epoch if its best value so far is worse than the median of the other trials' means.

    Each completed trial that has reported the epoch counts, with the mean of its values up to there.

    Args:
        maximize: whether large values of the objective are good.
    """

    def __init__(self, objective: str, maximize: bool) -> None:
        self._objective = objective
        self._sign = 1 if maximize else -1
        self._means: dict[int, list[float]] = defaultdict(list)  # by epoch, sorted; the greater the better

    def add(self, trial: Trial) -> None:
        """Compare later trials with this one, which has ended."""
        if trial.status == TrialStatus.COMPLETED:
            steps, values = self._reported(trial)
            for number, (step, total) in enumerate(zip(steps, itertools.accumulate(values), strict=True), start=1):
                bisect.insort(self._means[step], total / number)

    def prunes(self, trial: Trial) -> bool:
        """Tell whether a running trial is to end after the last epoch that it has reported."""
        steps, values = self._reported(trial)
        means = self._means[steps[-1]]
        # Of an even number the lower one of both in the middle: a trial gets the benefit of the doubt.
        return len(means) >= _LEAST and max(values) < means[(len(means) - 1) // 2]

    def _reported(self, trial: Trial) -> tuple[list[int], list[float]]:
        history = trial.metrics.get_history(self._objective)
        return [seen.step for seen in history], [self._sign * seen.mean() for seen in history]
