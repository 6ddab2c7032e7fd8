import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from searching import SMALL_SPACE, SPACE, Runner, recipe, search, table
from test_chief import Failing

from fmnist import files
from fmnist.run.folder import RunDir
from fmnist.search import journal
from fmnist.search.chief import Chief
from fmnist.search.project import Project
from fmnist.search.worker import Report, TrialRequest, work
from fmnist.signals import Stop

pytestmark = pytest.mark.usefixtures("no_power_cuts")


def unlucky() -> Failing:
    """Fails the first attempt of trial 1."""
    return Failing(RuntimeError("bad luck"), range(1, 2), attempts=1)


def ended(path: Path) -> set[str]:
    records, _ = Project(RunDir(path).search).load()
    return {trial_id for trial_id, record in records.items() if record and record.status == "COMPLETED"}


@pytest.mark.parametrize(
    ("oracle", "trials", "every"),
    [
        ("random", 4, 1),
        ("hyperband", 10, 3),
        ("asha", 10, 3),
        pytest.param("bayesian", 8, 7, marks=pytest.mark.faults),
    ],
)
def test_killed_after_any_write_the_search_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oracle: str, trials: int, every: int
) -> None:
    space = SMALL_SPACE if oracle == "bayesian" else SPACE
    of = recipe(oracle, space, trials=trials, epochs=4, max_retries_per_trial=1)
    whole = tmp_path / "whole"
    snapshots: list[Path] = []

    def then_keep(write: Callable[..., object]) -> Callable[..., None]:
        def written(*args: Any, **kwargs: Any) -> None:
            write(*args, **kwargs)
            snapshots.append(tmp_path / f"killed-{len(snapshots)}")
            if len(snapshots) % every == 0:
                shutil.copytree(whole, snapshots[-1])

        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", then_keep(os.replace))
        patch.setattr("fmnist.search.journal.append", then_keep(files.append))
        search(whole, of, unlucky())
    for snapshot in filter(Path.exists, snapshots):
        done = ended(snapshot)
        search(snapshot, of, runner := unlucky())
        assert table(snapshot) == table(whole), snapshot.name
        assert RunDir(snapshot).best.read_bytes() == RunDir(whole).best.read_bytes()
        assert done.isdisjoint(request.trial_id for request in runner.requests)


def half_way(path: Path, oracle: str, *, published: bool = False) -> list[dict[str, str]]:
    """A search with trial 3 of 8 in hand, one epoch reported; returns the table of the same search, undisturbed.

    If `published`, the stock files are of that moment, too.
    """
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
    if published:
        chief.close()
    return table(path / "whole")


def journal_of(path: Path) -> Path:
    return path / "cut" / "search" / "journal"


def go_on(path: Path, oracle: str) -> list[dict[str, str]]:
    """Have the search that was cut end; return its table."""
    search(path / "cut", recipe(oracle, trials=8, epochs=4), runner := Runner())
    assert {request.attempt for request in runner.requests} == {0}
    return table(path / "cut")


def test_a_kill_at_any_byte_of_the_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    half_way(tmp_path, "random")
    file = journal_of(tmp_path)
    *lines, last = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines))
    before = Project(file.parent).load()
    for kept in range(len(last)):
        file.write_bytes(b"".join(lines) + last[:kept])
        project = Project(file.parent)
        assert project.load() == before
        project.report("3", 0, {"val_accuracy": 0.25})
        project.flush()
        records, whole = Project(file.parent).load()
        assert whole
        assert records["3"]
        assert records["3"].reports == {0: {"val_accuracy": 0.25}}


@pytest.mark.parametrize("oracle", ["random", pytest.param("asha", marks=pytest.mark.faults)])
def test_a_search_whose_last_line_was_cut_goes_on(tmp_path: Path, oracle: str) -> None:
    whole = half_way(tmp_path, oracle)
    content = journal_of(tmp_path).read_bytes()
    shutil.copytree(tmp_path / "cut", tmp_path / "kept")
    for cut in (1, 2, 30, 100):
        shutil.rmtree(tmp_path / "cut")
        shutil.copytree(tmp_path / "kept", tmp_path / "cut")
        journal_of(tmp_path).write_bytes(content[:-cut])
        assert go_on(tmp_path, oracle) == whole


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("oracle", ["random", "hyperband", "asha"])
def test_a_damaged_line_of_the_journal_costs_at_most_one_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, oracle: str, published: bool
) -> None:
    whole = half_way(tmp_path, oracle, published=published)
    lines = journal_of(tmp_path).read_bytes().splitlines(keepends=True)
    shutil.copytree(tmp_path / "cut", tmp_path / "kept")
    for damaged in range(len(lines)):
        shutil.rmtree(tmp_path / "cut")
        shutil.copytree(tmp_path / "kept", tmp_path / "cut")
        line = bytearray(lines[damaged])
        line[len(line) // 2] ^= 1
        journal_of(tmp_path).write_bytes(b"".join([*lines[:damaged], line, *lines[damaged + 1 :]]))
        caplog.clear()
        found = go_on(tmp_path, oracle)
        assert f"{journal_of(tmp_path)} is damaged" in caplog.text
        # A lost report is an epoch less in the table.
        assert [row | {"epochs": ""} for row in found] == [row | {"epochs": ""} for row in whole]
        assert sum(row != other for row, other in zip(found, whole, strict=True)) <= 1
        assert Project(journal_of(tmp_path).parent).load()[1], "it was not written anew"


@pytest.mark.parametrize("line", [{"trial_id": "3", "shape": 1}, {"step": 0}, {"trial_id": "3", "step": "0"}])
def test_a_line_that_another_version_wrote_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: journal.Line
) -> None:
    whole = half_way(tmp_path, "random")
    file = journal.Journal(journal_of(tmp_path))
    file.add(line, durable=False)
    file.flush()
    assert go_on(tmp_path, "random") == whole
    assert f"{journal_of(tmp_path)} is damaged" in caplog.text


@pytest.mark.parametrize("oracle", ["random", "hyperband", "asha", pytest.param("bayesian", marks=pytest.mark.faults)])
def test_without_its_journal_a_search_goes_on_from_the_stock_files(tmp_path: Path, oracle: str) -> None:
    space = SMALL_SPACE if oracle == "bayesian" else SPACE
    search(tmp_path / "whole", recipe(oracle, space, trials=9, epochs=4, max_retries_per_trial=1), unlucky())
    search(tmp_path / "cut", recipe(oracle, space, trials=7, epochs=4, max_retries_per_trial=1), unlucky())
    journal_of(tmp_path).unlink()
    search(tmp_path / "cut", recipe(oracle, space, trials=9, epochs=4, max_retries_per_trial=1), runner := unlucky())
    assert {request.trial_id for request in runner.requests} == {"7", "8"}
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


def retype(path: Path, **values: Any) -> None:
    """Give a file of the earlier version, which has no checksum, other values."""
    state = json.loads(path.read_bytes())
    del state["sha256"]
    path.write_text(json.dumps(state | values))


EARLIER: dict[str, Callable[[Path], object]] = {
    "whole": lambda search: None,
    "no oracle": lambda search: list(map(Path.unlink, search.glob("oracle.json*"))),
    "no newest version": lambda search: (search / "trial_2" / "trial.json").unlink(),
    "no running trial": lambda search: shutil.rmtree(search / "trial_5"),
    "other types": lambda search: retype(search / "trial_3" / "trial.json", score="high"),
    "an older oracle": lambda search: os.replace(search / "oracle.json.bak", search / "oracle.json"),
}


@pytest.mark.parametrize("change", EARLIER)
def test_a_project_of_an_earlier_version_is_taken_up(tmp_path: Path, change: str) -> None:
    """It has no journal, but the version before of each file."""
    of = recipe("hyperband", SMALL_SPACE, trials=8, epochs=4, max_retries_per_trial=1)
    search(tmp_path / "whole", of, unlucky())
    shutil.copytree(Path(__file__).with_name("earlier"), tmp_path / "run")
    EARLIER[change](tmp_path / "run" / "search")
    search(tmp_path / "run", of, runner := unlucky())
    assert {int(request.trial_id) for request in runner.requests} >= {5, 6, 7}
    assert table(tmp_path / "run") == table(tmp_path / "whole")


def test_a_trial_of_which_nothing_is_left_has_failed_and_no_other_takes_its_place(tmp_path: Path) -> None:
    whole = half_way(tmp_path, "random")
    lines = journal_of(tmp_path).read_bytes().splitlines(keepends=True)
    journal_of(tmp_path).write_bytes(b"".join(line for line in lines if b'"trial_id":"1"' not in line))
    found = go_on(tmp_path, "random")
    assert [trial["trial"] for trial in found] == [str(number) for number in range(8)]
    assert found[1]["status"] == "FAILED"
    assert "lost" in found[1]["message"]
    assert found[:1] + found[2:] == whole[:1] + whole[2:]


def test_a_full_disk_ends_the_work_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = recipe(trials=4)
    search(tmp_path / "whole", of, Runner())
    replace, append = os.replace, files.append
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

        def append_while_there_is_room(path: Path, content: bytes, *, durable: bool) -> None:
            nonlocal left
            left -= 1
            append(path, content if left >= 0 else content[: len(content) // 2], durable=durable)
            if left < 0:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_while_there_is_room)
            patch.setattr("fmnist.search.journal.append", append_while_there_is_room)
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


def test_what_could_not_be_written_is_written_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chief = Chief(RunDir(tmp_path), recipe(), 0)
    trial = chief.create_trial("w").trial_id
    append = files.append

    def half(path: Path, content: bytes, *, durable: bool) -> None:
        append(path, content[: len(content) // 2], durable=durable)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fmnist.search.journal.append", half)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                chief.update_trial("w", trial, {"val_accuracy": 0.5}, 0)
    chief.update_trial("w", trial, {"val_accuracy": 0.5}, 0)
    chief.end_trial("w", trial, "COMPLETED")
    again = Chief(RunDir(tmp_path), recipe(), 0)
    assert again.rows() == chief.rows()
    assert again.rows()[0]["epochs"] == 1
    assert "is damaged" not in caplog.text
