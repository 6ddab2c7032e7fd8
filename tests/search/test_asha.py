"""Asynchronous successive halving: what is promoted when, against the rule as the paper writes it."""

import random
from pathlib import Path
from typing import Any

import pytest
from keras_tuner.engine.trial import Trial
from searching import Runner, recipe, search

from fmnist.errors import BadInput
from fmnist.recipe.schema import Recipe
from fmnist.search import oracles, stock


class Search:
    """An oracle, and workers whose trials end in a random order."""

    def __init__(self, of: Recipe, seed: int = 0, workers: int = 7, failing: float = 0.1) -> None:
        self.of, self.chance, self.workers, self.failing = of, random.Random(seed), workers, failing
        self.oracle = oracles.make(of, 0)
        self.running: list[Trial] = []
        self.made: list[Trial] = []

    def step(self) -> Trial:
        """Have some trials end, and then a worker ask."""
        for _ in range(self.chance.randrange(3)):
            self.end()
        while len(self.running) >= self.workers:
            self.end()
        return self.ask()

    def ask(self) -> Trial:
        with stock.calling(self.oracle):
            trial = self.oracle.create_trial(f"worker-{len(self.made)}")
        if trial.status == "RUNNING":
            self.running.append(trial)
            self.made.append(trial)
        return trial

    def end(self) -> None:
        if self.running:
            trial = self.running.pop(self.chance.randrange(len(self.running)))
            trial.status = "FAILED" if self.chance.random() < self.failing else "COMPLETED"
            with stock.calling(self.oracle):
                # Of few values, so that some are equal.
                self.oracle.update_trial(trial.trial_id, {"val_accuracy": self.chance.randrange(20) / 20})
                self.oracle.end_trial(trial)


def due(trials: list[Trial], rungs: int, factor: int) -> str | None:
    """The trial that algorithm 2 promotes, from the trials alone and at leisure."""
    promoted = {trial.hyperparameters.values.get("tuner/trial_id") for trial in trials}
    for round_ in reversed(range(rungs - 1)):
        ended = [t for t in trials if t.status in stock.ENDED and t.hyperparameters.values["tuner/round"] == round_]
        completed = [trial for trial in ended if trial.status == "COMPLETED"]
        best = sorted(completed, key=lambda trial: (-trial.score, int(trial.trial_id)))[: len(ended) // factor]
        for trial in best:
            if trial.trial_id not in promoted:
                return trial.trial_id
    return None


def network(trial: Trial) -> dict[str, Any]:
    return {name: value for name, value in trial.hyperparameters.values.items() if not name.startswith("tuner/")}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("factor", "rungs"), [(2, 5), (3, 3)])
def test_what_is_promoted_is_what_the_paper_promotes(seed: int, factor: int, rungs: int) -> None:
    run = Search(recipe("asha", trials=200, epochs=16, reduction_factor=factor), seed)
    promotions = 0
    while len(run.made) < 200:
        run.step()
        expected = due(run.made[:-1], rungs, factor)
        values = run.made[-1].hyperparameters.values
        assert values.get("tuner/trial_id") == expected
        if expected:
            promotions += 1
            parent = run.oracle.trials[expected]
            assert network(run.made[-1]) == network(parent)
            assert values["tuner/initial_epoch"] == parent.hyperparameters.values["tuner/epochs"]
            assert values["tuner/round"] == parent.hyperparameters.values["tuner/round"] + 1
    assert promotions > 200 // (factor + 1) - 10


def test_new_configurations_are_the_same_whatever_ends_when() -> None:
    of = recipe("asha", trials=120, epochs=9, brackets=2)
    drawn = []
    for seed, workers in enumerate((1, 3, 50)):
        run = Search(of, seed, workers)
        while run.step().status == "RUNNING":
            pass
        new = [trial for trial in run.made if not trial.hyperparameters.values.get("tuner/trial_id")]
        drawn.append([trial.hyperparameters.values for trial in new[:60]])
    assert drawn[0] == drawn[1] == drawn[2]


def test_nobody_waits_while_a_new_configuration_may_be_drawn() -> None:
    run = Search(recipe("asha", trials=100, epochs=9))
    assert {run.ask().status for _ in range(100)} == {"RUNNING"}


@pytest.mark.parametrize(
    ("epochs", "least", "factor", "rungs"),
    [(15, 1, 3, [2, 5, 15]), (9, 1, 3, [1, 3, 9]), (16, 4, 2, [4, 8, 16]), (4, 4, 3, [4]), (10, 2, 4, [3, 10])],
)
def test_the_rungs_end_with_all_epochs_and_begin_with_no_fewer_than_the_least(
    epochs: int, least: int, factor: int, rungs: list[int]
) -> None:
    run = Search(recipe("asha", trials=150, epochs=epochs, min_epochs=least, reduction_factor=factor), failing=0)
    while run.step().status == "RUNNING":
        pass
    assert sorted({trial.hyperparameters.values["tuner/epochs"] for trial in run.made}) == rungs


def test_brackets_begin_at_rungs_of_their_own() -> None:
    run = Search(recipe("asha", trials=200, epochs=9, brackets=3), failing=0)
    while run.step().status == "RUNNING":
        pass
    places = {tuple(trial.hyperparameters.values[f"tuner/{key}"] for key in ("bracket", "round", "epochs"))
              for trial in run.made}  # fmt: skip
    assert places == {(2, 0, 1), (2, 1, 3), (2, 2, 9), (1, 0, 3), (1, 1, 9), (0, 0, 9)}


@pytest.mark.parametrize(
    ("oracle", "workers", "halving"),
    [("asha", 7, {"brackets": 2}), ("hyperband", 7, {"brackets": 2}), ("hyperband", 12, {}), ("random", 7, {})],
)
def test_an_oracle_that_is_restored_from_its_trials_goes_on_as_the_one_before(
    oracle: str, workers: int, halving: dict[str, Any]
) -> None:
    of = recipe(oracle, trials=150, epochs=9, max_retries_per_trial=1, **halving)
    run = Search(of, seed=3, workers=workers)
    for number in range(150):
        if run.step().status != "RUNNING":
            continue
        if number % 10 == 9:
            restored = oracles.make(run.of, 0)
            for trial in run.oracle.trials.values():
                stock.adopt(restored, trial, stock.runs(run.oracle)[trial.trial_id])
            stock.set_seed_state(restored, stock.seed_state(run.oracle))
            restored.ongoing_trials = run.oracle.ongoing_trials
            stock.waiting(restored).clear()
            run.oracle = restored
    undisturbed = Search(of, seed=3, workers=workers)
    for _ in range(150):
        undisturbed.step()
    assert [trial.hyperparameters.values for trial in run.made] == [
        trial.hyperparameters.values for trial in undisturbed.made
    ]


TWELVE = {
    "training.optimizer": {"values": ["sgd", "adam", "nadam"]},
    "training.batch_size": {"values": [16, 32, 64, 128]},
}


@pytest.mark.parametrize("failing", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_in_a_space_that_is_used_up_the_winners_are_trained_to_their_epochs(seed: int, failing: float) -> None:
    run = Search(recipe("asha", TWELVE, trials=90, epochs=27), seed, failing=failing)
    while (trial := run.step()).status != "STOPPED":
        assert trial.status == "RUNNING" or run.running
    assert not run.running
    assert len({tuple(network(trial).items()) for trial in run.made}) == 12
    for round_ in range(4):
        rung = [t for t in run.made if t.hyperparameters.values["tuner/round"] == round_ and t.status == "COMPLETED"]
        promoted = {trial.hyperparameters.values.get("tuner/trial_id") for trial in run.made}
        if rung and round_ < 3:
            assert max(rung, key=lambda trial: (trial.score, -int(trial.trial_id))).trial_id in promoted


def test_a_search_by_one_worker_trains_few_trials_long(tmp_path: Path) -> None:
    search(tmp_path, recipe("asha", trials=26, epochs=9), runner := Runner())
    trained = [request.epochs for request in runner.requests]
    assert {epochs: trained.count(epochs) for epochs in trained} == {1: 17, 3: 6, 9: 3}
    longest = [request for request in runner.requests if request.epochs == 9]
    assert {request.initial_epoch for request in longest} == {3}


@pytest.mark.parametrize("key", ["min_epochs", "reduction_factor", "brackets"])
@pytest.mark.parametrize("oracle", ["random", "bayesian"])
def test_what_is_for_halving_is_refused_elsewhere(oracle: str, key: str) -> None:
    keys: dict[str, Any] = {key: 2}
    with pytest.raises(BadInput, match=f"test: search: {key} is for hyperband and asha; leave it out with {oracle}$"):
        recipe(oracle, epochs=9, **keys)
    assert recipe("hyperband", epochs=9, **keys).search


def test_the_shortest_trial_is_no_longer_than_the_longest() -> None:
    with pytest.raises(BadInput, match="min_epochs 5 is above epochs 4$"):
        recipe("asha", epochs=4, min_epochs=5)


def test_hyperband_takes_the_same_keys(tmp_path: Path) -> None:
    of = recipe("hyperband", trials=40, epochs=16, min_epochs=4, reduction_factor=2, brackets=2)
    search(tmp_path, of, runner := Runner())
    assert {request.epochs for request in runner.requests if not request.parent_trial_id} == {4, 8}
    assert {request.epochs for request in runner.requests} == {4, 8, 16}
