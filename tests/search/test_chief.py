import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from keras_tuner.engine.trial import TrialStatus
from searching import SMALL_SPACE, Runner, log, process, recipe, search, table, until

from fmnist.errors import GpuFailed, Interrupted, SearchFailed
from fmnist.files import read_json
from fmnist.recipe import config
from fmnist.recipe.schema import MOST_SEED
from fmnist.run.folder import RunDir
from fmnist.search import status, stock
from fmnist.search.chief import Chief, NotYours
from fmnist.search.job import nothing_to_do
from fmnist.search.worker import Report, TrialRequest, work
from fmnist.signals import Stop

pytestmark = pytest.mark.usefixtures("no_power_cuts")


@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband", "asha"])
def test_the_search_ends_with_every_trial_counted_and_the_best_named(tmp_path: Path, oracle: str) -> None:
    of = recipe(oracle, trials=14, epochs=4)
    chief = search(tmp_path, of, Runner())
    assert chief.finished
    found = table(tmp_path)
    assert [int(row["trial"]) for row in found] == list(range(14))
    assert {row["status"] for row in found} == {"COMPLETED"}
    best = read_json(RunDir(tmp_path).best)
    assert best == chief.best()
    assert best["score"] == max(float(row["score"]) for row in found)
    assert config.replace(of, best["values"]).model.hidden == tuple(best["values"]["model.hidden"])


@pytest.mark.parametrize("seed", [MOST_SEED - 1, MOST_SEED])
@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband", "asha"])
def test_every_oracle_searches_with_the_largest_seed(tmp_path: Path, oracle: str, seed: int) -> None:
    of = recipe(oracle, SMALL_SPACE, trials=7)
    assert len(search(tmp_path, of, Runner(), seed=seed).rows()) == 7


def test_the_bayesian_oracle_finds_what_it_was_told_of(tmp_path: Path) -> None:
    found = search(tmp_path, recipe("bayesian", SMALL_SPACE, trials=9), Runner()).rows()
    guesses = [row["training.learning_rate"] for row in found[6:]]
    assert min(guesses) < 1e-3  # the formula's best rate is the lowest
    assert len(set(guesses)) > 1


def test_the_score_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    search(tmp_path, recipe(trials=1, epochs=5), runner := Runner())
    best = read_json(RunDir(tmp_path).best)
    assert best["epoch"] == 3
    assert best["score"] == pytest.approx(runner.metrics(runner.requests[0], 3)["val_accuracy"])
    assert table(tmp_path)[0]["epochs"] == "5"


def test_an_objective_to_minimize(tmp_path: Path) -> None:
    best = search(tmp_path, recipe(objective="val_loss"), Runner()).best()
    assert best["score"] == min(float(row["score"]) for row in table(tmp_path))


def test_hyperband_promotes_the_better_trials_and_says_where_to_go_on_from(tmp_path: Path) -> None:
    runner = Runner()
    chief = search(tmp_path, recipe("hyperband", trials=14, epochs=9), runner)
    promoted = [request for request in runner.requests if request.parent_trial_id]
    assert promoted
    for request in promoted:
        parent = next(r for r in runner.requests if r.trial_id == request.parent_trial_id)
        assert (request.values, request.initial_epoch) == (parent.values, parent.epochs)
        assert request.epochs > parent.epochs
        peers = [chief.get_trial(r.trial_id).score for r in runner.requests if r.epochs == parent.epochs]
        assert chief.get_trial(parent.trial_id).score >= sorted(peers)[len(peers) // 2]


def test_other_oracles_train_as_long_as_the_recipe_says(tmp_path: Path) -> None:
    search(tmp_path, recipe(epochs=3), runner := Runner())
    assert {(r.initial_epoch, r.epochs, r.parent_trial_id, r.attempt) for r in runner.requests} == {(0, 3, None, 0)}


def test_one_seed_gives_one_search_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(tmp_path / name, recipe(), Runner(), seed)
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert table(tmp_path / "a") != table(tmp_path / "c")


def together_at_work(chief: Chief, runners: Sequence[Runner]) -> None:
    """Workers w0, w1, ..., each in a thread of its own, to the end of the search."""
    with ThreadPoolExecutor(len(runners)) as pool:
        ends = [pool.submit(work, chief, f"w{n}", runner, Stop()) for n, runner in enumerate(runners)]
        for end in ends:
            end.result(timeout=60)


@pytest.mark.parametrize("oracle", ["random", "hyperband", "asha"])
def test_several_workers_share_one_search(tmp_path: Path, oracle: str) -> None:
    of = recipe(oracle, trials=12, epochs=4)
    chief = Chief(RunDir(tmp_path / "four"), of, 0)
    meeting = threading.Barrier(4)

    class Meeting(Runner):
        def __call__(self, trial: TrialRequest, report: Report) -> None:
            if int(trial.trial_id) < 4:
                meeting.wait(timeout=30)  # all four workers have a trial at once
            super().__call__(trial, report)

    together_at_work(chief, [Meeting() for _ in range(4)])
    assert chief.finished
    assert {row["worker"] for row in chief.rows()} == {"w0", "w1", "w2", "w3"}
    if oracle == "random":
        search(tmp_path / "one", of, Runner())
        assert table(tmp_path / "four") == table(tmp_path / "one")


def test_raised_trials_go_on_and_a_finished_search_runs_nothing(tmp_path: Path) -> None:
    search(tmp_path / "a", recipe(trials=3), Runner())
    assert Chief(RunDir(tmp_path / "a"), recipe(trials=3), 0).finished
    search(tmp_path / "a", recipe(trials=3), nothing := Runner())
    assert nothing.requests == []
    assert not Chief(RunDir(tmp_path / "a"), recipe(trials=11), 0).finished
    search(tmp_path / "a", recipe(trials=11), more := Runner())
    assert len(more.requests) == 8
    search(tmp_path / "b", recipe(trials=11), Runner())
    assert [row["score"] for row in table(tmp_path / "a")] == [row["score"] for row in table(tmp_path / "b")]


def test_raised_trials_give_hyperband_new_brackets(tmp_path: Path) -> None:
    search(tmp_path, recipe("hyperband", trials=1, epochs=4), Runner())
    assert len(search(tmp_path, recipe("hyperband", trials=40, epochs=4), Runner()).rows()) == 40


SIX = {
    "training.optimizer": {"values": ["sgd", "adam", "nadam"]},
    "training.batch_size": {"values": [32, 64]},
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("oracle", ["random", "bayesian"])
def test_a_space_that_is_used_up_ends_the_search_with_each_configuration_tried_once(
    tmp_path: Path, oracle: str
) -> None:
    of, run = recipe(oracle, SIX, trials=20), RunDir(tmp_path)
    assert not status.search_finished(run, of)
    chief = search(tmp_path, of, runner := Runner())
    assert chief.finished
    assert len({tuple(request.values.items()) for request in runner.requests}) == len(chief.rows()) == 6
    assert status.search_finished(run, of)
    assert re.fullmatch(
        r"the space is used up after 6 of 20 trials: more .*\nbest of 6 trials: \d+, val_accuracy 0\.\d+\n(.*\n)*.*",
        status.outcome(run, of),
    )


@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband", "asha"])
def test_whoever_waits_does_not_search_a_space_that_is_used_up_again(tmp_path: Path, oracle: str) -> None:
    chief = Chief(RunDir(tmp_path), recipe(oracle, SIX, trials=50, epochs=4), 0)
    for number in itertools.count():
        if chief.create_trial(f"worker-{number}").status == TrialStatus.IDLE:
            break
    drawn = stock.seed_state(chief._oracle)
    assert chief.create_trial("late").status == TrialStatus.IDLE
    assert stock.seed_state(chief._oracle) == drawn
    # What it has, a worker still gets; and what has ended makes the oracle look again.
    trial = chief.create_trial("worker-0")
    chief.update_trial("worker-0", trial.trial_id, {"val_accuracy": 0.5}, 0)
    chief.end_trial("worker-0", trial.trial_id, "COMPLETED")
    chief.create_trial("late")
    assert stock.seed_state(chief._oracle) > drawn or oracle in ("hyperband", "asha")


@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband", "asha"])
def test_more_trials_change_nothing_once_the_space_is_used_up(tmp_path: Path, oracle: str) -> None:
    search(tmp_path, recipe(oracle, SIX, trials=30, epochs=4), Runner())
    before, more = table(tmp_path), recipe(oracle, SIX, trials=50, epochs=4)
    assert status.search_finished(RunDir(tmp_path), more)
    # Nobody needs to ask the chief first.
    assert Chief(RunDir(tmp_path), more, 0).finished
    search(tmp_path, more, runner := Runner())
    assert runner.requests == []
    assert table(tmp_path) == before
    assert f"used up after {len(before)} of 50 trials" in status.outcome(RunDir(tmp_path), more)
    # Without its mark the search asks its oracle again.
    RunDir(tmp_path).used_up.unlink()
    assert not status.search_finished(RunDir(tmp_path), more)
    search(tmp_path, more, runner)
    assert runner.requests == []
    assert status.search_finished(RunDir(tmp_path), more)


@pytest.mark.parametrize("failed", [range(0), range(2, 4), range(6, 7)])
@pytest.mark.parametrize("workers", [1, 3])
def test_hyperband_trains_the_winners_of_a_space_that_is_used_up(tmp_path: Path, failed: range, workers: int) -> None:
    """Six configurations, for a bracket of 12 that go on as 4 and 2."""
    of = recipe("hyperband", SIX, trials=50, epochs=15)
    runner = Scoring(failed)
    chief = Chief(RunDir(tmp_path), of, 0)
    together_at_work(chief, [runner] * workers)
    assert chief.finished
    assert status.search_finished(RunDir(tmp_path), of)
    rounds: dict[int, list[TrialRequest]] = {}
    for request in runner.requests:
        rounds.setdefault(request.epochs, []).append(request)
    assert {epochs: len(requests) for epochs, requests in rounds.items()} == {2: 6, 5: 4, 15: 2}
    for shorter, longer in ((2, 5), (5, 15)):
        good = [request for request in rounds[shorter] if int(request.trial_id) not in failed]
        best = sorted(good, key=runner.accuracy, reverse=True)[: len(rounds[longer])]
        assert {request.parent_trial_id for request in rounds[longer]} == {request.trial_id for request in best}
        assert {request.initial_epoch for request in rounds[longer]} == {shorter}


@pytest.mark.parametrize("oracle", ["hyperband", "asha"])
def test_promotions_in_a_used_up_space_go_on_after_any_interruption(tmp_path: Path, oracle: str) -> None:
    of = recipe(oracle, SIX, trials=50, epochs=4)
    search(tmp_path / "whole", of, Runner())
    while not status.search_finished(RunDir(tmp_path / "cut"), of):
        with contextlib.suppress(Interrupted):
            search(tmp_path / "cut", of, Interrupting(5))
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


def test_a_finished_search_is_told_from_its_files_alone(tmp_path: Path) -> None:
    run, of = RunDir(tmp_path), recipe(trials=3)
    with pytest.raises(Interrupted):
        search(tmp_path, of, Interrupting(5))
    assert not status.search_finished(run, of)
    search(tmp_path, of, Runner())
    assert status.search_finished(run, of)
    assert not status.search_finished(run, recipe(trials=4))
    assert "used up" not in status.outcome(run, of)
    for path in run.best, run.trials, run.search:
        # Removed as damaged, say; the search makes it anew.
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert not status.search_finished(run, of)
        search(tmp_path, of, Runner())
        assert status.search_finished(run, of)


class Interrupting(Runner):
    """Stops before its report number `at`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __call__(self, trial: TrialRequest, report: Report) -> None:
        def counted(epoch: int, metrics: object) -> None:
            if self.left == 0:
                raise Interrupted
            self.left -= 1
            report(epoch, metrics)  # type: ignore[arg-type]

        super().__call__(trial, counted)


@pytest.mark.parametrize("at", range(10))
def test_an_interrupted_trial_is_taken_up_again_under_its_id(tmp_path: Path, at: int) -> None:
    search(tmp_path / "whole", recipe(), Runner())
    with pytest.raises(Interrupted):
        search(tmp_path / "cut", recipe(), Interrupting(at))
    search(tmp_path / "cut", recipe(), rest := Runner(), worker="another")
    assert [int(request.trial_id) for request in rest.requests] == list(range(at // 2, 5))
    assert {request.attempt for request in rest.requests} == {0}
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


def test_no_trial_is_taken_after_a_stop(tmp_path: Path) -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Interrupted):
        work(Chief(RunDir(tmp_path), recipe(), 0), "w", runner := Runner(), stop)
    assert runner.requests == []


def test_epochs_reported_again_count_once(tmp_path: Path) -> None:
    chief = Chief(RunDir(tmp_path), recipe(), 0)
    trial = chief.create_trial("w").trial_id
    for epoch, accuracy in enumerate((0.1, 0.9, 0.5)):
        chief.update_trial("w", trial, {"val_accuracy": accuracy, "seconds": 2.0}, epoch)
    chief.update_trial("w", trial, {"val_accuracy": 0.1, "seconds": 0.0}, 0)  # read from a checkpoint
    assert chief.rows()[0]["epochs"] == 3
    assert chief.rows()[0]["seconds"] == 6.0
    chief.update_trial("w", trial, {"val_accuracy": 0.6, "seconds": 3.0}, 1)  # trained again, otherwise
    chief.end_trial("w", trial, "COMPLETED")
    row = chief.rows()[0]
    assert (row["score"], row["epochs"], row["seconds"]) == (0.6, 2, 5.0)


def test_only_the_worker_that_has_a_trial_may_speak_of_it(tmp_path: Path) -> None:
    chief = Chief(RunDir(tmp_path), recipe(), 0)
    trial = chief.create_trial("a").trial_id
    with pytest.raises(NotYours):
        chief.update_trial("b", trial, {"val_accuracy": 1.0}, 0)
    with pytest.raises(NotYours):
        chief.end_trial("b", trial, "COMPLETED")
    with pytest.raises(NotYours):
        chief.end_trial("a", "99", "COMPLETED")
    assert chief.rows()[0]["status"] == "RUNNING"


def test_ending_a_trial_twice_changes_nothing(tmp_path: Path) -> None:
    chief = Chief(RunDir(tmp_path), recipe(), 0)
    trial = chief.create_trial("a").trial_id
    chief.update_trial("a", trial, {"val_accuracy": 0.5}, 0)
    chief.end_trial("a", trial, "COMPLETED")
    before = chief.rows()
    chief.end_trial("a", trial, "INVALID", "a late word")
    assert chief.rows() == before


def test_a_call_that_raises_leaves_the_chief_at_work(tmp_path: Path) -> None:
    chief = Chief(RunDir(tmp_path), recipe(), 0)
    trial = chief.create_trial("w").trial_id
    with pytest.raises(ValueError, match="[Oo]bjective"):
        chief.update_trial("w", trial, {"loss": 1.0}, 0)
    other = threading.Thread(target=work, args=(chief, "w", Runner(), Stop()))
    other.start()
    other.join(timeout=30)
    assert chief.finished


def test_stock_keras_tuner_opens_the_project(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    best = search(tmp_path, recipe(max_retries_per_trial=1), Runner()).best()
    assert capfd.readouterr().out == ""
    stock = keras_tuner.RandomSearch(
        hypermodel=lambda hp: None,
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=5,
        directory=tmp_path,
        project_name="search",
    )
    assert stock.oracle.get_best_trials(1)[0].trial_id == best["trial"]
    assert stock.remaining_trials == 0
    assert stock.oracle._retry_queue == []
    assert json.loads((tmp_path / "search" / "oracle.json").read_bytes())["ongoing_trials"] == {}


def test_the_table_names_worker_seconds_and_hyperparameters(tmp_path: Path) -> None:
    search(tmp_path, recipe(), Runner(), worker="tuner7")
    with RunDir(tmp_path).trials.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:7] == ["trial", "status", "score", "epochs", "seconds", "worker", "message"]
    assert {"model.layers", "model.units_1", "training.learning_rate", "training.optimizer"} <= set(rows[0])
    assert {row["worker"] for row in rows} == {"tuner7"}
    assert all(float(row["seconds"]) >= 0 for row in rows)


class Scoring(Runner):
    """Each configuration has an accuracy of its own; the trials `failed` end in an error."""

    def __init__(self, failed: range) -> None:
        super().__init__()
        self.failed = failed

    def __call__(self, trial: TrialRequest, report: Report) -> None:
        self.requests.append(trial)
        if int(trial.trial_id) in self.failed:
            raise RuntimeError("no luck")
        for epoch in range(trial.initial_epoch, trial.epochs):
            report(epoch, {"val_accuracy": self.accuracy(trial)})

    def accuracy(self, trial: TrialRequest) -> float:
        values = trial.values
        return 0.1 * ["sgd", "nadam", "adam"].index(values["training.optimizer"]) + values["training.batch_size"] / 1e3


class Failing(Runner):
    def __init__(self, error: Exception | float, trials: range, attempts: int = 99) -> None:
        super().__init__()
        self.error, self.trials, self.attempts = error, trials, attempts

    def __call__(self, trial: TrialRequest, report: Report) -> None:
        if int(trial.trial_id) not in self.trials or trial.attempt >= self.attempts:
            return super().__call__(trial, report)
        self.requests.append(trial)
        report(0, {"val_accuracy": 0.99})  # must not count
        if isinstance(self.error, Exception):
            raise self.error
        return report(1, {"val_accuracy": self.error})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no kernel\nimage"), "RuntimeError: no kernel"),
        (MemoryError(), "out of memory"),
        (float("nan"), "val_accuracy is nan after epoch 2"),
        (KeyError(), "KeyError"),
    ],
)
@pytest.mark.parametrize("oracle", ["random", "hyperband", "asha"])
def test_failed_trials_give_their_reason_and_the_search_goes_on(
    tmp_path: Path, error: Exception | float, reason: str, oracle: str
) -> None:
    of = recipe(oracle, trials=10, epochs=4)
    chief = search(tmp_path, of, Failing(error, range(2, 6)))  # four in a row
    rows = chief.rows()
    assert [row["status"] for row in rows] == ["FAILED" if n in range(2, 6) else "COMPLETED" for n in range(10)]
    assert all(reason in row["message"] for row in rows[2:6])
    assert chief.best()["score"] < 0.99


@pytest.mark.parametrize("failed", [range(2, 6), range(0, 1)])
def test_failures_cost_hyperband_no_promotion(tmp_path: Path, failed: range) -> None:
    of = recipe("hyperband", trials=18, epochs=15)
    search(tmp_path, of, Failing(RuntimeError("diverged"), failed))
    # A bracket: 12 trials, 4 of them go on, and 2 of those.
    epochs = Counter(row["tuner/epochs"] for row in table(tmp_path))
    assert epochs == {"2": 12, "5": 4, "15": 2}


def test_a_broken_gpu_costs_one_trial_and_ends_the_work(tmp_path: Path) -> None:
    of = recipe("random", trials=5)
    with pytest.raises(GpuFailed, match="no CUDA"):
        search(tmp_path, of, Failing(GpuFailed("no CUDA"), range(1, 5)))
    chief = search(tmp_path, of, Runner())
    assert [row["status"] for row in chief.rows()] == ["COMPLETED", "FAILED", *["COMPLETED"] * 3]


def test_a_retry_starts_afresh_and_its_result_counts(tmp_path: Path) -> None:
    of = recipe(max_retries_per_trial=2)
    chief = search(tmp_path, of, runner := Failing(float("nan"), range(1, 2), attempts=2))
    assert [r.attempt for r in runner.requests if r.trial_id == "1"] == [0, 1, 2]
    assert chief.get_trial("1").status == "COMPLETED"
    search(tmp_path / "whole", of, Runner())
    assert table(tmp_path) == table(tmp_path / "whole")


@pytest.mark.parametrize("oracle", ["hyperband", "asha"])
def test_a_trial_promoted_from_one_that_was_retried_goes_on_from_it(tmp_path: Path, oracle: str) -> None:
    """Its seed, and so the identity of its checkpoint, comes from the attempt."""
    of = recipe(oracle, trials=14, epochs=9, max_retries_per_trial=1)
    search(tmp_path, of, runner := Failing(float("nan"), range(14), attempts=1))
    promoted = [request for request in runner.requests if request.parent_trial_id]
    assert promoted
    for request in promoted:
        parent = [r for r in runner.requests if r.trial_id == request.parent_trial_id][-1]
        assert request.attempt >= parent.attempt > 0
    assert any(request.attempt == 1 for request in promoted)


def test_retries_are_bounded(tmp_path: Path) -> None:
    chief = search(tmp_path, recipe(max_retries_per_trial=2), runner := Failing(OSError("x"), range(1, 2)))
    assert len([r for r in runner.requests if r.trial_id == "1"]) == 3
    assert chief.get_trial("1").status == "FAILED"


def test_a_search_whose_every_trial_failed_says_so(tmp_path: Path) -> None:
    chief = search(tmp_path, recipe(), Failing(RuntimeError("no luck"), range(9)))
    assert chief.finished
    with pytest.raises(SearchFailed, match="all 5 trials.*no luck"):
        chief.best()
    assert not RunDir(tmp_path).best.exists()


def test_a_trial_that_reports_nothing_has_failed(tmp_path: Path) -> None:
    chief = Chief(RunDir(tmp_path), recipe(), 0)
    work(chief, "w", lambda trial, report: None, Stop())
    assert {row["message"] for row in chief.rows()} == {"it reported no val_accuracy"}


def test_an_interrupted_search_leaves_its_tables_as_of_now(tmp_path: Path) -> None:
    """They are written at intervals before."""
    chief = Chief(RunDir(tmp_path), recipe(trials=9), 0)
    for accuracy in (0.5, 0.6):
        trial = chief.create_trial("w").trial_id
        chief.update_trial("w", trial, {"val_accuracy": accuracy}, 0)
        chief.end_trial("w", trial, "COMPLETED")
    chief.close()
    assert [(row["status"], row["score"]) for row in table(tmp_path)] == [("COMPLETED", "0.5"), ("COMPLETED", "0.6")]
    assert json.loads((tmp_path / "best.json").read_text())["score"] == 0.6
    assert len(list((tmp_path / "search").glob("trial_*/trial.json"))) == 2


def test_while_the_disk_hangs_nobody_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chief = Chief(RunDir(tmp_path), recipe(trials=3), 0)
    trials = {worker: chief.create_trial(worker, lease=2.0).trial_id for worker in ("a", "b")}
    write = chief._project.flush

    def hang() -> None:
        since = time.monotonic()
        until(lambda: time.monotonic() > since + 2.5)
        write()

    with monkeypatch.context() as patch:
        patch.setattr(chief._project, "flush", hang)
        chief.update_trial("a", trials["a"], {"val_accuracy": 0.5}, 0)
    # What "b" said meanwhile was not heard.
    for worker, trial in trials.items():
        chief.update_trial(worker, trial, {"val_accuracy": 0.5}, 1)


def frozen_chief(path: Path) -> None:
    """A chief whose process is frozen for longer than its lease; then its worker reports again."""
    chief = Chief(RunDir(path), recipe(), 0)
    trial = chief.create_trial("w", lease=2.0).trial_id
    waiting = threading.Thread(target=lambda: [chief.wait_finished(0.5) for _ in range(2)])
    waiting.start()
    subprocess.Popen(["sh", "-c", f"sleep 4; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)
    chief.update_trial("w", trial, {"val_accuracy": 0.5}, 0)
    waiting.join()
    chief.update_trial("w", trial, {"val_accuracy": 0.5}, 1)


def test_while_the_chief_is_frozen_nobody_is_silent(tmp_path: Path) -> None:
    frozen = process(frozen_chief, tmp_path / "run")
    frozen.join(30)
    assert frozen.exitcode == 0, log(tmp_path / "run")


@pytest.mark.parametrize("oracle", ["random", "asha"])
def test_checkpoints_that_no_trial_goes_on_from_are_removed(tmp_path: Path, oracle: str) -> None:
    run = RunDir(tmp_path)
    run.checkpoint.mkdir()
    halving: dict[str, Any] = {"min_epochs": 1, "reduction_factor": 2} if oracle == "asha" else {}
    chief = Chief(run, recipe(oracle, trials=9, epochs=2, max_retries_per_trial=1, **halving), 0)
    kept: set[str] = set()
    for number in range(9):
        trial = chief.create_trial("w")
        values, path = trial.hyperparameters.values, run.trial_checkpoint(trial.trial_id, 0)
        path.touch()
        if number == 0:
            # It is tried again, as another attempt.
            chief.end_trial("w", trial.trial_id, "INVALID", "once")
            assert chief.create_trial("w").hyperparameters.values["tuner/attempt"] == 1
            run.trial_checkpoint(trial.trial_id, 1).touch()
        chief.update_trial("w", trial.trial_id, {"val_accuracy": number / 10}, values["tuner/epochs"] - 1)
        chief.end_trial("w", trial.trial_id, "COMPLETED")
        kept.discard(values.get("tuner/trial_id", ""))
        if values["tuner/epochs"] < 2:
            kept.add(trial.trial_id)
        assert {file.name.split("_")[1] for file in run.checkpoint.iterdir()} == kept
    assert bool(kept) == (oracle == "asha")


@pytest.mark.parametrize(("trials", "said"), [(2, True), (9, False)])
def test_a_search_without_a_trial_to_the_last_epoch_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trials: int, said: bool
) -> None:
    search(tmp_path, recipe("asha", trials=trials, epochs=4, min_epochs=1, reduction_factor=2), Runner())
    warning = "no trial was trained for more than 1 of 4 epochs; the search wants more trials, or fewer workers"
    assert (warning in caplog.text) == said


def test_a_worker_that_may_be_silent_for_long_keeps_its_trial_when_the_chief_is_started_again(tmp_path: Path) -> None:
    """A stock worker reports nothing before a trial's end."""
    run = RunDir(tmp_path)
    first = Chief(run, recipe(), 0)
    held = {name: first.create_trial(name, lease=lease).trial_id for name, lease in (("stock", 3600.0), ("ours", 60.0))}
    for _ in range(2):
        # Again, since the chief in between may have heard of nobody.
        chief = Chief(run, recipe(), 0, grace=1e-9)
        assert chief.holder(held["stock"]) == "stock"
    assert chief.create_trial("another").trial_id not in held.values()
    assert chief.holder(held["ours"]) == "ours"


def test_a_worker_in_the_chiefs_process_is_gone_with_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    trial = Chief(run, recipe(), 0).create_trial("worker-0").trial_id
    assert Chief(run, recipe(), 0, grace=1e-9).create_trial("another").trial_id == trial


def test_checkpoints_that_a_chief_could_not_remove_go_later(tmp_path: Path) -> None:
    run, of = RunDir(tmp_path / "run"), recipe(trials=1)
    run.claim(of, 0)
    search(run.path, of, Runner())
    for name in ("trial_0_0.npz", "train.npz"):
        (run.checkpoint / name).touch()
    assert nothing_to_do(run, of, 0)
    assert [path.name for path in run.checkpoint.glob("*.npz")] == ["train.npz"]
