"""Keras Tuner's oracles where a space runs out of configurations that were not tried yet.

Random search stops then, as it comes. Bayesian optimization would try the same ones again, with the same outcome; and
Hyperband would stop in the middle of a bracket, with all of its trials as short as the first round's.
"""

import itertools
import warnings
from typing import Any

from keras_tuner import oracles
from keras_tuner.engine.trial import TrialStatus
from sklearn.exceptions import ConvergenceWarning

Answer = dict[str, Any]

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class BayesianOptimizationOracle(oracles.BayesianOptimizationOracle):
    """The stock oracle; a guess that was tried before is replaced by a random one that was not."""

    def populate_space(self, trial_id: str) -> Answer:
        # Its generator's state is not in oracle.json; without this a search that went on would be another one.
        self._random_state.seed((self.seed + len(self.trials)) % 2**32)
        with warnings.catch_warnings():
            # Of a kernel that fits few trials; a log's reader can do nothing about it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            answer: Answer = super().populate_space(trial_id)
        if answer["status"] == TrialStatus.RUNNING and self._duplicate(answer["values"]):
            return self._random_populate_space()
        return answer


class HyperbandOracle(oracles.HyperbandOracle):
    """The stock oracle; a bracket that can no longer be filled promotes the best of what it has."""

    def populate_space(self, trial_id: str) -> Answer:
        answer: Answer = super().populate_space(trial_id)
        filled = all(len(one["rounds"][0]) >= self._get_size(one["bracket_num"], 0) for one in self._brackets)
        if answer["status"] == TrialStatus.RUNNING or filled:
            return answer
        return next(filter(None, (self._promoted(trial_id, bracket) for bracket in self._brackets)), answer)

    def _promoted(self, trial_id: str, bracket: dict[str, Any]) -> Answer | None:
        """The trial that takes the best of a round, all of which have ended, to the next, if that has room."""
        number, rounds = bracket["bracket_num"], bracket["rounds"]
        for round_number, (before, promoted) in enumerate(itertools.pairwise(rounds), start=1):
            trials = [self.trials[entry["id"]] for entry in before]
            if any(trial.status not in ENDED for trial in trials):
                return None
            taken = {entry["past_id"] for entry in promoted}
            left = [t for t in trials if t.status == TrialStatus.COMPLETED and t.trial_id not in taken]
            if left and len(promoted) < self._get_size(number, round_number):
                best = (max if self.objective.direction == "max" else min)(left, key=lambda trial: trial.score)
                promoted.append({"past_id": best.trial_id, "id": trial_id})
                values = {
                    **best.hyperparameters.values,
                    "tuner/trial_id": best.trial_id,
                    "tuner/epochs": self._get_epochs(number, round_number),
                    "tuner/initial_epoch": self._get_epochs(number, round_number - 1),
                    "tuner/bracket": number,
                    "tuner/round": round_number,
                }
                return {"status": TrialStatus.RUNNING, "values": values}
        return None
