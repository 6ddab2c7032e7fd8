"""Wrap Keras Tuner's private names, which no other module uses, so that only this one depends on its version.

Two of its oracles are corrected for a space in which every configuration was tried. The stock random search stops then.
But Bayesian optimization would try the same configurations again, with the same outcome; and Hyperband would stop in
the middle of a bracket, after short trials of the first round only.

All that an oracle knows can be derived from its trials and from the state of its draws, so `adopt` restores it.
"""

import contextlib
import functools
import itertools
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras_tuner
from keras_tuner import oracles
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos as protos
from keras_tuner.src.engine import oracle as _oracle
from keras_tuner.src.engine.metrics_tracking import MetricsTracker as MetricsTracker
from keras_tuner.src.engine.metrics_tracking import infer_metric_direction
from sklearn.exceptions import ConvergenceWarning

Answer = dict[str, Any]

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)

# Keras Tuner gives a space up after 20 collisions, which would often leave some of a small space untried.
_COLLISIONS = 1000

_STANDING = ("tuner/epochs", "tuner/initial_epoch", "tuner/bracket", "tuner/round")


@functools.cache
def direction(metric: str) -> str:
    """Return whether a metric, by its name, should be large ("max") or small ("min"), as one that is not known."""
    # It makes a Keras metric of the name.
    return infer_metric_direction(metric) or "min"


def keep_in_memory(oracle: keras_tuner.Oracle) -> None:
    """Keep the oracle's state in memory: the stock methods write files in place, before a trial's end is complete."""
    oracle.save = lambda: None
    oracle._save_trial = lambda trial: None
    oracle._max_collisions = _COLLISIONS
    # A limit would end the search with an error in the middle of a call; but bad regions of the space are no error. The
    # stock method looks at all trials each time that one ends.
    oracle._check_consecutive_failures = lambda: None


@contextlib.contextmanager
def calling(oracle: keras_tuner.Oracle) -> Iterator[keras_tuner.Oracle]:
    """Prepare the oracle for one call from this thread; the caller keeps other threads out."""
    # The oracle's own lock stays taken if a call raises, so the oracle is told that this thread has it already.
    _oracle.THREADS[oracle] = threading.current_thread().name
    # The oracle announces retries on stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        yield oracle


def check_objective(oracle: keras_tuner.Oracle, metrics: Mapping[str, float]) -> None:
    """Check that the objective is among the metrics; raise ValueError if it is not."""
    oracle._check_objective_found(metrics)


def waiting(oracle: keras_tuner.Oracle) -> list[str]:
    """Return the ids of the trials that are to be taken up again, the next one last. The list is the oracle's own."""
    return oracle._retry_queue


def runs(oracle: keras_tuner.Oracle) -> dict[str, int]:
    """Return how many runs of each trial have ended, by its id. The dictionary is the oracle's own."""
    return oracle._run_times


def seed_state(oracle: keras_tuner.Oracle) -> int:
    """Return the state of the oracle's draws: it grows with each value that is drawn."""
    state: int = oracle._seed_state
    return state


def set_seed_state(oracle: keras_tuner.Oracle, state: int) -> None:
    """Let the oracle's draws go on from a state that `seed_state` returned."""
    oracle._seed_state = state


def draw(oracle: keras_tuner.Oracle) -> dict[str, Any] | None:
    """Return the random values of a configuration that was not tried before; None if it finds none."""
    values: dict[str, Any] | None = oracle._random_values()
    return values


def adopt(oracle: keras_tuner.Oracle, trial: Trial, ended: int) -> None:
    """Add a trial that an earlier process made, as the next one; `ended` is how many runs of it have ended.

    A trial that has not ended waits to be taken up again.
    """
    oracle.trials[trial.trial_id] = trial
    oracle.start_order.append(trial.trial_id)
    oracle._record_values(trial)
    oracle._run_times[trial.trial_id] = ended
    if isinstance(oracle, HyperbandOracle):
        oracle.place(trial)
    if trial.status in ENDED:
        oracle.end_order.append(trial.trial_id)
    else:
        # The oracle takes trials from the end of the list, so the oldest one is last.
        oracle._retry_queue.insert(0, trial.trial_id)


def assign(space: keras_tuner.HyperParameters, values: dict[str, Any]) -> keras_tuner.HyperParameters:
    """Return the space with these values. It shares the space itself, which is large and does not change."""
    assigned = keras_tuner.HyperParameters()
    assigned._hps, assigned._space = space._hps, space._space
    assigned.values = values
    return assigned


class PromotingOracle(keras_tuner.Oracle):
    """An oracle whose trials may go on from others, with Hyperband's values `tuner/...`."""

    def _compute_values_hash(self, values: dict[str, Any]) -> str:
        # As Hyperband's: where a trial stands is no part of what it tries.
        tried = {name: value for name, value in values.items() if name not in _STANDING}
        found: str = super()._compute_values_hash(tried)
        return found


class BayesianOptimizationOracle(oracles.BayesianOptimizationOracle):
    """The stock oracle, except that a proposal that was tried before is replaced by a random one that was not."""

    def populate_space(self, trial_id: str) -> Answer:
        # The generator's state is not kept; without this seed a continued search would take another course.
        self._random_state.seed((self.seed + len(self.trials)) % 2**32)
        with warnings.catch_warnings():
            # A kernel that fits few trials warns; the reader of a log can do nothing about that.
            warnings.simplefilter("ignore", ConvergenceWarning)
            answer: Answer = super().populate_space(trial_id)
        if answer["status"] == TrialStatus.RUNNING and self._duplicate(answer["values"]):
            return self._random_populate_space()
        return answer


class HyperbandOracle(oracles.HyperbandOracle):
    """The stock oracle, except that an ended round promotes as many trials as the next one takes, if so many succeeded.

    The stock oracle promotes one fewer for each that failed, and none of a bracket that cannot be filled any more.

    Args:
        min_epochs: epochs of the shortest trial, at least.
        brackets: how many of the brackets that there are then are used, the one with the shortest trials first; None
            for all.
    """

    def __init__(self, min_epochs: int, brackets: int | None, **settings: Any) -> None:
        super().__init__(**settings)
        self.min_epochs = min_epochs
        self._last_bracket = max(0, self._get_num_brackets() - (brackets or sys.maxsize))
        self._current_bracket = self._get_num_brackets() - 1
        self._brackets: list[dict[str, Any]] = []
        self._start_new_bracket()

    def place(self, trial: Trial) -> None:
        """Put a trial that an earlier process made into its bracket; a trial that was lost has none."""
        values = trial.hyperparameters.values
        number, parent = values.get("tuner/round"), values.get("tuner/trial_id")
        if number == 0:
            bracket = self._brackets[-1]
            full = len(bracket["rounds"][0]) >= self._get_size(bracket["bracket_num"], 0)
            # Only the newest bracket has room in its first round, so the next trial there begins another one.
            if full or bracket["bracket_num"] != values["tuner/bracket"]:
                self._increment_bracket_num()
                self._start_new_bracket()
        for bracket in reversed(self._brackets):
            rounds = bracket["rounds"]
            # Not by `tuner/bracket`: of a promoted trial, the stock oracle names the newest bracket there.
            has_parent = number and number < len(rounds) and any(one["id"] == parent for one in rounds[number - 1])
            if number == 0 or has_parent:
                rounds[number].append({"past_id": parent, "id": trial.trial_id})
                break

    def populate_space(self, trial_id: str) -> Answer:
        filled = [len(one["rounds"][0]) >= self._get_size(one["bracket_num"], 0) for one in self._brackets]
        for bracket in itertools.compress(self._brackets, filled):
            if promoted := self._promoted(trial_id, bracket):
                return promoted
        answer: Answer = super().populate_space(trial_id)
        if answer["status"] == TrialStatus.RUNNING or all(filled):
            return answer
        return next(filter(None, (self._promoted(trial_id, bracket) for bracket in self._brackets)), answer)

    def _increment_bracket_num(self) -> None:
        super()._increment_bracket_num()
        if self._current_bracket < self._last_bracket:
            self._current_bracket = self._get_num_brackets() - 1
            self._current_iteration += 1

    def _promoted(self, trial_id: str, bracket: dict[str, Any]) -> Answer | None:
        """Return a trial that promotes the best one of an ended round to the next round; None if there is no room."""
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
