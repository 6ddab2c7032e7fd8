"""Choose trials by asynchronous successive halving (Li et al. 2018, arXiv:1810.05934, algorithm 2).

A bracket is a ladder of rungs: each rung trains a share of the trials of the one below, for more epochs. A trial is
promoted as soon as it is among the best of those that have ended beside it, so no worker waits for the others.

What the oracle knows, it derives from the trials alone: a trial's values name its rung and the trial that it goes on
from, with the names of Keras Tuner's Hyperband.
"""

import bisect
import heapq
import math
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from fmnist.search import stock

_Place = tuple[float, int, str]  # loss, number and id of a trial: the best one is the least, of equals the oldest


class AshaOracle(stock.PromotingOracle):
    """The oracle of `oracle = "asha"`.

    Args:
        max_epochs: epochs of a trial on the last rung.
        min_epochs: epochs of a trial on the first rung, at least.
        factor: one in so many trials of a rung is promoted, and trained for so many times the epochs.
        brackets: how many brackets share the new configurations; each further one begins a rung higher.
    """

    def __init__(self, max_epochs: int, min_epochs: int, factor: int, brackets: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._max_epochs = max_epochs
        self._factor = factor
        rungs = 1
        while max_epochs >= min_epochs * factor**rungs:
            rungs += 1
        # As Hyperband numbers and sizes its brackets: number N has N promotions, and each takes about the same time.
        numbers = range(rungs - 1, max(-1, rungs - 1 - brackets), -1)
        self._new = [number for number in numbers for _ in range(math.ceil(rungs / (number + 1) * factor**number))]
        self._rungs = {(number, round_): _Rung() for number in numbers for round_ in range(number + 1)}
        below = [place for place in self._rungs if place[1] < place[0]]
        self._highest_first = sorted(below, key=lambda place: self._epochs(*place), reverse=True)
        self._promoted: set[str] = set()
        self._started = self._ended = self._configurations = 0
        self._used_up = False

    def populate_space(self, trial_id: str) -> stock.Answer:
        """Return the values of the promotion that is due, else of a new configuration.

        Once the space is used up, the best trial of each rung is promoted even where it is one of too few; while it
        may still be beaten by a trial that runs, the answer is IDLE.
        """
        self._take_in()
        running = len(self.end_order) < len(self.trials)
        values = self._promotion() or self._configuration()
        if values is None and not running:
            values = self._promotion(at_least=1)
        if values is not None:
            return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.IDLE if running else TrialStatus.STOPPED, "values": None}

    def _take_in(self) -> None:
        """Take in the trials that have begun or ended since the last call."""
        for trial_id in self.start_order[self._started :]:
            parent = self.trials[trial_id].hyperparameters.values.get("tuner/trial_id")
            if parent:
                self._promoted.add(parent)
            else:
                self._configurations += 1
        self._started = len(self.start_order)
        for trial_id in self.end_order[self._ended :]:
            trial = self.trials[trial_id]
            values = trial.hyperparameters.values
            rung = self._rungs.get((values.get("tuner/bracket"), values.get("tuner/round")))
            if rung:
                rung.add(trial, maximize=self.objective.direction == "max")
        self._ended = len(self.end_order)

    def _promotion(self, at_least: int = 0) -> dict[str, Any] | None:
        """Return the values of the best trial that is to be promoted, from the highest rung that has one."""
        for number, round_ in self._highest_first:
            best = self._rungs[number, round_].promotable(self._promoted, self._factor, at_least)
            if best:
                values = self.trials[best].hyperparameters.values
                return {**values, "tuner/trial_id": best, **self._place(number, round_ + 1)}
        return None

    def _configuration(self) -> dict[str, Any] | None:
        """Return the values of a new configuration; None if the space is used up.

        They depend on how many there were before, and not on what has ended meanwhile.
        """
        values = None if self._used_up else stock.draw(self)
        if values is None:
            # To look again for what is not there would take long.
            self._used_up = True
            return None
        return {**values, **self._place(self._new[self._configurations % len(self._new)], 0)}

    def _place(self, number: int, round_: int) -> dict[str, Any]:
        return {
            "tuner/epochs": self._epochs(number, round_),
            "tuner/initial_epoch": self._epochs(number, round_ - 1) if round_ else 0,
            "tuner/bracket": number,
            "tuner/round": round_,
        }

    def _epochs(self, number: int, round_: int) -> int:
        return math.ceil(self._max_epochs / self._factor ** (number - round_))


class _Rung:
    """The ended trials of a rung. Each operation takes a time that hardly grows with their number."""

    def __init__(self) -> None:
        self._ended = 0
        self._left: list[_Place] = []  # a heap
        self._promoted: list[_Place] = []  # sorted

    def add(self, trial: Trial, maximize: bool) -> None:
        """Add a trial that has ended; a failed one counts as the worst, and is not promoted."""
        self._ended += 1
        if trial.status == TrialStatus.COMPLETED:
            loss = -trial.score if maximize else trial.score
            heapq.heappush(self._left, (loss, int(trial.trial_id), trial.trial_id))

    def promotable(self, promoted: set[str], factor: int, at_least: int) -> str | None:
        """Return the best trial that is not in `promoted`, if it is among the best 1 / `factor` of this rung.

        Args:
            at_least: number of trials that are promoted even if that share is less.
        """
        while self._left and self._left[0][-1] in promoted:
            bisect.insort(self._promoted, heapq.heappop(self._left))
        # All trials that are better than the best one left are promoted.
        if self._left and bisect.bisect(self._promoted, self._left[0]) < max(self._ended // factor, at_least):
            return self._left[0][-1]
        return None
