"""Make Keras Tuner's oracles from a recipe, and restore them from the files on disk."""

from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import RandomSearchOracle

from fmnist.recipe.schema import Recipe
from fmnist.search import space, stock
from fmnist.search.asha import AshaOracle
from fmnist.search.project import Project
from fmnist.search.project import reports as reported
from fmnist.search.record import Record
from fmnist.search.reports import record as add_report


def make(recipe: Recipe, seed: int) -> keras_tuner.Oracle:
    """Return a new oracle for `recipe.search`. It keeps its state in memory; its caller writes the project.

    Raises:
        BadInput: the recipe has no search, or its space holds values that the configuration refuses.
    """
    hyperparameters = space.hyperparameters(recipe)
    search = recipe.require_search()
    halving = {"max_epochs": search.epochs, "min_epochs": search.min_epochs, "factor": search.reduction_factor}
    settings = {
        "objective": keras_tuner.Objective(search.objective, "min" if search.objective == "val_loss" else "max"),
        "hyperparameters": hyperparameters,
        # Keras Tuner takes 0 for "no seed"; the largest seed searches as seed 0 does.
        "seed": (seed + 1) % 2**32 or 1,
        "max_retries_per_trial": search.max_retries_per_trial,
    }
    if search.oracle == "hyperband":
        # Never the limit: each iteration has at least one trial.
        iterations = search.trials
        oracle = stock.HyperbandOracle(brackets=search.brackets, hyperband_iterations=iterations, **halving, **settings)
    elif search.oracle == "asha":
        oracle = AshaOracle(brackets=search.brackets or 1, **halving, **settings)
    elif search.oracle == "bayesian":
        oracle = stock.BayesianOptimizationOracle(**settings)
    else:
        oracle = RandomSearchOracle(**settings)
    oracle.max_trials = search.trials
    oracle.verbose = 0
    stock.keep_in_memory(oracle)
    return oracle


def load(project: Project, recipe: Recipe, seed: int) -> tuple[keras_tuner.Oracle, dict[str, Record], bool]:
    """Restore the oracle from what the project keeps, or make a new one. Trials that have not ended wait.

    Returns:
        The oracle, what was kept of each trial by its id, and whether the project's journal holds all of that.

    Raises:
        BadInput: as `make`, or a file cannot be read.
    """
    oracle = make(recipe, seed)
    kept, whole = project.load()
    kept = _without_gaps(kept)
    earlier = _Earlier(None if whole else project.load_oracle(), oracle)
    for trial_id, record in kept.items():
        trial = _trial(record, oracle) if record else _lost(trial_id)
        runs = record.runs if record else 1
        stock.adopt(oracle, trial, earlier.runs(trial) if runs is None else runs)
    states = [record.seed_state for record in kept.values() if record and record.seed_state is not None]
    stock.set_seed_state(oracle, max(states, default=stock.seed_state(oracle)))
    return (
        oracle,
        {trial_id: record for trial_id, record in kept.items() if record},
        whole and None not in kept.values(),
    )


def record(
    oracle: keras_tuner.Oracle,
    trial: Trial,
    worker: str,
    at_work: bool,
    lease: float | None,
    *,
    reports: bool = False,
) -> Record:
    """Return what is to be kept of a trial, with its reports or without."""
    return Record(
        trial_id=trial.trial_id,
        status=trial.status,
        message=trial.message,
        values=trial.hyperparameters.values,
        score=trial.score,
        best_step=trial.best_step,
        worker=worker,
        at_work=at_work,
        lease=lease,
        runs=stock.runs(oracle)[trial.trial_id],
        seed_state=stock.seed_state(oracle),
        reports=reported(trial.metrics.get_config()) if reports else {},
    )


class _Earlier:
    """What the stock file of the oracle tells of trials that are read from their own stock files."""

    def __init__(self, state: Mapping[str, Any] | None, oracle: keras_tuner.Oracle) -> None:
        self._known = set(state["start_order"]) if state else set()
        self._runs = state["run_times"] if state else {}
        self._ongoing = set(state["ongoing_trials"].values()) if state else set()
        self._oracle = oracle
        if state:
            stock.set_seed_state(oracle, state["seed_state"])

    def runs(self, trial: Trial) -> int:
        """Return how many runs of the next trial have ended, and let the oracle draw what it drew for that trial."""
        known = trial.trial_id in self._known
        if not known and not trial.hyperparameters.values.get("tuner/trial_id"):
            stock.draw(self._oracle)
        # The oracle's file was written after the trial's.
        newer = not known or trial.trial_id in self._ongoing
        return self._runs.get(trial.trial_id, 0) + (newer and trial.status != TrialStatus.RUNNING)


def lend_again(oracle: keras_tuner.Oracle, workers: Mapping[str, str], alive: bool) -> dict[str, str]:
    """Give running trials back to the workers that had them, if those may be alive; return their ids by worker."""
    waiting = [oracle.trials[trial_id] for trial_id in stock.waiting(oracle)]
    running = {workers.get(trial.trial_id): trial for trial in waiting if trial.status == TrialStatus.RUNNING}
    lent = {worker: trial for worker, trial in running.items() if worker and alive}
    oracle.ongoing_trials = lent
    for trial in lent.values():
        stock.waiting(oracle).remove(trial.trial_id)
    return {worker: trial.trial_id for worker, trial in lent.items()}


def failures(oracle: keras_tuner.Oracle, trial: Trial) -> int:
    """Return how many runs of the trial, and of the trials that it was promoted from, have failed."""
    parent = trial.hyperparameters.values.get("tuner/trial_id")
    runs = stock.runs(oracle)[trial.trial_id] - (trial.status == TrialStatus.COMPLETED)
    return runs + (failures(oracle, oracle.trials[parent]) if parent else 0)


def _without_gaps(found: Mapping[str, Record | None]) -> dict[str, Record | None]:
    """Fill gaps in the trials' numbers with lost ones: Keras Tuner numbers the next trial by their count."""
    known = {int(trial_id): trial_id for trial_id in found}
    digits = max(map(len, found), default=0)
    names = (known.get(number, f"{number:0{digits}}") for number in range(max(known, default=-1) + 1))
    return {name: found.get(name) for name in names}


def _trial(record: Record, oracle: keras_tuner.Oracle) -> Trial:
    space = stock.assign(oracle.hyperparameters, record.values)
    trial = Trial(space, record.trial_id, record.status, record.message)
    trial.score, trial.best_step = record.score, record.best_step
    for step, metrics in record.reports.items():
        add_report(trial, metrics, step, oracle.objective)
    return trial


def _lost(trial_id: str) -> Trial:
    message = "what was kept of it is lost or damaged"
    return Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED, message)
