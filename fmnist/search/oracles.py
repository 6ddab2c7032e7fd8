"""Make Keras Tuner's oracles from a recipe, and restore them from the files on disk."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import RandomSearchOracle

from fmnist.recipe.schema import Recipe
from fmnist.search import space, stock
from fmnist.search.project import Project

logger = logging.getLogger(__name__)


def make(recipe: Recipe, seed: int) -> keras_tuner.Oracle:
    """Return a new oracle for `recipe.search`. It keeps its state in memory; its caller writes the project.

    Raises:
        BadInput: the recipe has no search, or its space holds values that the configuration refuses.
    """
    hyperparameters = space.hyperparameters(recipe)
    search = recipe.require_search()
    settings = {
        "objective": keras_tuner.Objective(search.objective, "min" if search.objective == "val_loss" else "max"),
        "hyperparameters": hyperparameters,
        # Keras Tuner takes 0 for "no seed"; the largest seed searches as seed 0 does.
        "seed": (seed + 1) % 2**32 or 1,
        "max_retries_per_trial": search.max_retries_per_trial,
        # A limit would end the search with an error in the middle of a call; but bad regions of the space are no error.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if search.oracle == "hyperband":
        # Never the limit: each iteration has at least one trial.
        oracle = stock.HyperbandOracle(max_epochs=search.epochs, hyperband_iterations=search.trials, **settings)
    elif search.oracle == "bayesian":
        oracle = stock.BayesianOptimizationOracle(**settings)
    else:
        oracle = RandomSearchOracle(**settings)
    oracle.max_trials = search.trials
    oracle.verbose = 0
    stock.keep_in_memory(oracle)
    return oracle


def load(project: Project, recipe: Recipe, seed: int) -> tuple[keras_tuner.Oracle, dict[str, str]]:
    """Restore the oracle from the project's files, or make a new one; return it, and each trial's last worker by id.

    For a trial, its own file counts. The oracle's file is written second, so it may be one step behind, or lost. Trials
    that have not ended wait to be taken up again.
    """
    trials: dict[str, Trial] = {}
    workers: dict[str, str] = {}
    for trial_id, found in project.load_trials():
        trials[trial_id], workers[trial_id] = found or (_lost(trial_id), "")
    oracle = project.load_oracle(lambda state: _restore(make(recipe, seed), state, trials))
    if oracle is None:
        oracle = make(recipe, seed)
        if trials:
            logger.warning("no oracle.json in %s: the search goes on from its %d trials", project.path, len(trials))
            trials = _without_gaps(trials)
    for trial_id, trial in trials.items():
        if trial_id not in oracle.trials:
            stock.adopt(oracle, trial)
    _settle(oracle)
    return oracle, workers


def lend_again(oracle: keras_tuner.Oracle, workers: Mapping[str, str], alive: bool) -> list[str]:
    """Give running trials back to the workers that had them, if those may be alive; return these workers."""
    waiting = [oracle.trials[trial_id] for trial_id in stock.waiting(oracle)]
    running = {workers.get(trial.trial_id): trial for trial in waiting if trial.status == TrialStatus.RUNNING}
    lent = {worker: trial for worker, trial in running.items() if worker and alive}
    oracle.ongoing_trials = lent
    for trial in lent.values():
        stock.waiting(oracle).remove(trial.trial_id)
    return list(lent)


def failures(oracle: keras_tuner.Oracle, trial: Trial) -> int:
    """Return how many runs of the trial, and of the trials that Hyperband promoted it from, have failed."""
    parent = trial.hyperparameters.values.get("tuner/trial_id")
    runs = stock.runs(oracle)[trial.trial_id] - (trial.status == TrialStatus.COMPLETED)
    return runs + (failures(oracle, oracle.trials[parent]) if parent else 0)


def _without_gaps(trials: Mapping[str, Trial]) -> dict[str, Trial]:
    """Fill gaps in the trials' numbers with failed trials: Keras Tuner numbers the next trial by their count."""
    known = {int(trial_id): trial for trial_id, trial in trials.items()}
    digits = len(next(iter(trials)))
    every = (known.get(number) or _lost(f"{number:0{digits}}") for number in range(max(known) + 1))
    return {trial.trial_id: trial for trial in every}


def _lost(trial_id: str) -> Trial:
    message = "its trial.json was lost or damaged, and so was the version before"
    return Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED, message)


def _restore(oracle: keras_tuner.Oracle, state: dict[str, Any], trials: Mapping[str, Trial]) -> keras_tuner.Oracle:
    known = set(state["start_order"])
    places = [place for bracket in state.get("brackets", ()) for round_ in bracket["rounds"] for place in round_]
    named = {*state["end_order"], *state["retry_queue"], *state["ongoing_trials"].values(), *state["run_times"]}
    named |= {name for place in places for name in (place["id"], place["past_id"]) if name is not None}
    if unknown := named - known:
        raise ValueError(f"it names trials that it does not know: {', '.join(sorted(unknown))}")
    oracle.trials = {trial_id: trials.get(trial_id) or _lost(trial_id) for trial_id in state["start_order"]}
    budget = {"hyperband_iterations": oracle.max_trials}
    oracle.set_state({**state, **budget})
    return oracle


def _settle(oracle: keras_tuner.Oracle) -> None:
    """Make the oracle's lists of ended and waiting trials agree with the trials."""
    for trial in oracle.ongoing_trials.values():
        if trial.status != TrialStatus.RUNNING:
            stock.runs(oracle)[trial.trial_id] += 1
    oracle.ongoing_trials = {}
    ended = [trial_id for trial_id, trial in oracle.trials.items() if trial.status in stock.ENDED]
    oracle.end_order = sorted(ended, key=(oracle.end_order + ended).index)
    # The oracle takes trials from the end of the list, so the oldest one is last.
    stock.set_waiting(oracle, (trial_id for trial_id in reversed(oracle.trials) if trial_id not in ended))
