"""Trials that are not worth further epochs: which are pruned, against the rule in its plain form, and what is told."""

import random
import statistics
from collections import Counter
from pathlib import Path

import pytest
from conftest import Command
from searching import Runner, recipe, search, table

from fmnist.errors import BadInput
from fmnist.run.folder import RunDir
from fmnist.search import status
from fmnist.search.chief import Chief
from fmnist.search.worker import TrialRequest


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_a_trial_is_pruned_by_the_median_of_the_means_of_the_others(tmp_path: Path, objective: str) -> None:
    sign = 1 if objective == "val_accuracy" else -1
    chance = random.Random(0)
    of = recipe(trials=60, epochs=4, objective=objective, prune="median")
    chief = Chief(RunDir(tmp_path), of, 0)
    ended: list[list[float]] = []
    answers: Counter[str] = Counter()
    for number in range(60):
        if number == 30:
            chief = Chief(RunDir(tmp_path), of, 0)
        trial = chief.create_trial("w").trial_id
        values: list[float] = []
        for epoch in range(4):
            values.append(chance.random())
            answer = chief.update_trial("w", trial, {objective: values[-1]}, epoch).status
            means = [statistics.mean(sign * value for value in one[: epoch + 1]) for one in ended if len(one) > epoch]
            best = max(sign * value for value in values)
            pruned = len(means) >= 5 and best < statistics.median_low(means)
            assert (answer == "STOPPED") == pruned
            answers[answer] += 1
            if pruned:
                break
        chief.end_trial("w", trial, "COMPLETED")
        ended.append(values)
    assert min(answers["STOPPED"], answers["RUNNING"]) > 10


class Unequal(Runner):
    """Each third trial is hopeless."""

    def metrics(self, trial: TrialRequest, epoch: int) -> dict[str, float]:
        value = int(trial.trial_id) / 1000 + (0.5 if int(trial.trial_id) % 3 else 0.1)
        return {"val_accuracy": value, "val_loss": 1 - value}


def test_a_pruned_trial_is_completed_and_shown_as_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = recipe(trials=12, epochs=4, prune="median")
    run = RunDir(tmp_path)
    run.claim(of, 0)
    search(tmp_path, of, Unequal())
    found = {row["trial"]: row for row in table(tmp_path)}
    assert {row["status"] for row in found.values()} == {"COMPLETED"}
    assert {name for name, row in found.items() if row["message"]} == {"06", "09"}
    assert (found["09"]["epochs"], found["09"]["message"]) == ("1", "pruned after epoch 1 of 4")
    told = status.read(run)
    assert (told.state, told.count("completed"), told.count("pruned"), told.best.id if told.best else "") == (
        "finished", 10, 2, "11",
    )  # fmt: skip
    status.show(run)
    assert "12 of 12 trials done, 0 running, 0 failed, 2 pruned" in (shown := capsys.readouterr().out)
    assert [line.split()[-2] for line in shown.splitlines()[-2:]] == ["pruned", "pruned"]


def test_a_trial_that_was_taken_up_again_is_judged_when_it_reports_something_new(tmp_path: Path) -> None:
    of = recipe(trials=9, epochs=4, prune="median")
    chief = Chief(RunDir(tmp_path), of, 0)

    def answers(worker: str, trial: str, value: float, epochs: range) -> list[str]:
        return [str(chief.update_trial(worker, trial, {"val_accuracy": value}, epoch).status) for epoch in epochs]

    bad = chief.create_trial("bad").trial_id
    assert answers("bad", bad, 0.1, range(3)) == ["RUNNING"] * 3
    for _ in range(5):
        good = chief.create_trial("good").trial_id
        answers("good", good, 0.9, range(4))
        chief.end_trial("good", good, "COMPLETED")
    # It goes on from its checkpoint, and tells again what that holds.
    assert answers("bad", bad, 0.1, range(3)) == ["RUNNING", "RUNNING", "STOPPED"]


@pytest.mark.parametrize("oracle", ["hyperband", "asha"])
def test_what_promotes_trials_does_not_prune(oracle: str) -> None:
    with pytest.raises(BadInput, match="prune is for random and bayesian"):
        recipe(oracle, prune="median")


@pytest.mark.faults
def test_a_real_search_prunes(tiny: Path, train_files: Path, fmnist: Command) -> None:
    keys = [argument for key in ("search.prune=median", "search.epochs=3") for argument in ("--set", key)]
    options = ("--recipe", "tiny.toml", "--trials", "16", "--run", "pruned", *keys)
    told = fmnist("tune", *options, FMNIST_DATA=str(train_files))
    rows = table(tiny / "pruned")
    pruned = [row for row in rows if row["message"]]
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert pruned
    assert all(row["message"] == f"pruned after epoch {row['epochs']} of 3" for row in pruned)
    assert "pruned after epoch" in told.stderr
