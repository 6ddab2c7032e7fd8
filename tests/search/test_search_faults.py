import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from searching import SMALL_SPACE, SPACE, Runner, recipe, search, table
from test_chief import Failing

from fmnist.run.folder import RunDir
from fmnist.search.chief import Chief
from fmnist.search.worker import Report, TrialRequest, work
from fmnist.signals import Stop

pytestmark = pytest.mark.usefixtures("no_power_cuts")


def unlucky() -> Failing:
    """Fails the first attempt of trial 1."""
    return Failing(RuntimeError("bad luck"), range(1, 2), attempts=1)


def ended(path: Path) -> set[str]:
    found = RunDir(path).search.glob("trial_*/trial.json")
    return {file.parent.name for file in found if b'"status": "COMPLETED"' in file.read_bytes()}


@pytest.mark.parametrize(
    ("oracle", "trials", "every"),
    [
        ("random", 4, 1),
        ("hyperband", 10, 5),
        ("asha", 10, 5),
        ("bayesian", 8, 51),
        pytest.param("bayesian", 8, 17, marks=pytest.mark.faults),
    ],
)
def test_killed_after_any_write_the_search_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oracle: str, trials: int, every: int
) -> None:
    space = SMALL_SPACE if oracle == "bayesian" else SPACE
    of = recipe(oracle, space, trials=trials, epochs=4, max_retries_per_trial=1)
    whole = tmp_path / "whole"
    snapshots: list[Path] = []
    replace = os.replace

    def replace_and_keep(source: str, target: str) -> None:
        replace(source, target)
        snapshots.append(tmp_path / f"killed-{len(snapshots)}")
        if len(snapshots) % every == 0:
            shutil.copytree(whole, snapshots[-1])

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_and_keep)
        search(whole, of, unlucky())
    for snapshot in filter(Path.exists, snapshots):
        done = ended(snapshot)
        search(snapshot, of, runner := unlucky())
        assert table(snapshot) == table(whole), snapshot.name
        assert RunDir(snapshot).best.read_bytes() == RunDir(whole).best.read_bytes()
        assert done.isdisjoint(f"trial_{request.trial_id}" for request in runner.requests)


def half_way(path: Path, oracle: str) -> list[dict[str, str]]:
    """A search with trial 3 of 8 in hand, one epoch reported; returns the table of the same search, undisturbed."""
    of = recipe(oracle, trials=8, epochs=4)
    search(path / "whole", of, Runner())
    chief = Chief(RunDir(path / "cut"), of, 0)
    runner = Runner()

    def three(trial: TrialRequest, report: Report) -> None:
        if int(trial.trial_id) == 3:
            report(trial.initial_epoch, runner.metrics(trial, trial.initial_epoch))
            raise SystemExit
        runner(trial, report)

    with pytest.raises(SystemExit):
        work(chief, "w", three, Stop())
    return table(path / "whole")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "overwritten": lambda file: file.write_bytes(b'{"trial_id": 3, "hyperparameters": []}'),
    "empty": lambda file: file.write_bytes(b""),
    "removed": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["trial_1/trial.json", "trial_3/trial.json"])
@pytest.mark.parametrize("oracle", ["random", "asha"])
def test_a_damaged_file_costs_at_most_one_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, oracle: str, name: str, damage: str
) -> None:
    whole = half_way(tmp_path, oracle)
    file = tmp_path / "cut" / "search" / name
    DAMAGES[damage](file)
    caplog.clear()
    search(tmp_path / "cut", recipe(oracle, trials=8, epochs=4), Runner())
    assert str(file) in caplog.text
    assert table(tmp_path / "cut") == whole


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("oracle", ["random", "hyperband", "asha"])
def test_a_search_goes_on_from_its_trials_whatever_is_left_of_the_oracles_file(
    tmp_path: Path, oracle: str, damage: str
) -> None:
    whole = half_way(tmp_path, oracle)
    for file in (tmp_path / "cut" / "search").glob("oracle.json*"):
        DAMAGES[damage](file)
    search(tmp_path / "cut", recipe(oracle, trials=8, epochs=4), Runner())
    assert table(tmp_path / "cut") == whole


def test_a_trial_lost_with_its_last_version_has_failed_and_no_other_takes_its_place(tmp_path: Path) -> None:
    whole = half_way(tmp_path, "random")
    for file in (tmp_path / "cut" / "search" / "trial_1").glob("trial.json*"):
        DAMAGES["truncated"](file)
    search(tmp_path / "cut", recipe(trials=8, epochs=4), Runner())
    found = table(tmp_path / "cut")
    assert found[1]["status"] == "FAILED"
    assert "damaged" in found[1]["message"]
    assert found[:1] + found[2:] == whole[:1] + whole[2:]


def test_a_trial_whose_folder_is_gone_with_the_oracle_keeps_its_number(tmp_path: Path) -> None:
    whole = half_way(tmp_path, "random")
    for file in (tmp_path / "cut" / "search").glob("oracle.json*"):
        file.unlink()
    shutil.rmtree(tmp_path / "cut" / "search" / "trial_1")
    search(tmp_path / "cut", recipe(trials=8, epochs=4), Runner())
    found = table(tmp_path / "cut")
    assert [trial["trial"] for trial in found] == [str(number) for number in range(8)]
    assert found[1]["status"] == "FAILED"
    assert found[:1] + found[2:] == whole[:1] + whole[2:]


def test_a_full_disk_ends_the_work_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = recipe(trials=4)
    search(tmp_path / "whole", of, Runner())
    replace = os.replace
    writes = 0
    while True:
        run = tmp_path / f"full-{writes}"
        left = writes

        def replace_while_there_is_room(source: str, target: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device")
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_while_there_is_room)
            try:
                search(run, of, Runner())
                break
            except OSError:
                pass
        search(run, of, Runner())
        assert table(run) == table(tmp_path / "whole")
        assert not [row for row in table(run) if row["status"] != "COMPLETED"]
        writes += 1
    assert writes > 20
