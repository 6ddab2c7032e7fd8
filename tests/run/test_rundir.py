"""The run folder: whole files, one owner, and a record of what made it."""

import dataclasses
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from processes import python

import fmnist.files
from fmnist.errors import BadInput, Busy
from fmnist.files import atomic_write, read_json, write_json
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe, SearchConfig, SpaceConfig
from fmnist.run.folder import RunDir

SEARCH = SearchConfig(space={"model.l2": SpaceConfig(min=0, max=1)}, trials=3)
RECIPE = Recipe(name="mine", description="a search", search=SEARCH)
DATA = {"train-images-idx3-ubyte": "ab", "train-labels-idx1-ubyte": "cd"}


def with_trials(trials: int) -> Recipe:
    return dataclasses.replace(RECIPE, search=dataclasses.replace(SEARCH, trials=trials))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _write_half(file: IO[bytes]) -> None:
    file.write(b"half of the n")
    raise ZeroDivisionError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "result.txt"
    with atomic_write(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        _write_half(file)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["made", "made/result.txt"]


def test_a_result_is_as_public_as_the_umask_says(tmp_path: Path) -> None:
    code = "from pathlib import Path; from fmnist.files import write_json; write_json(Path('result.json'), {})"
    python(code, cwd=tmp_path, umask=0o027, check=True)
    assert (tmp_path / "result.json").stat().st_mode & 0o777 == 0o640


def test_json_refuses_what_no_other_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"score": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"score": float("nan")})
    assert read_json(path, ("score",)) == {"score": 1.0}


@pytest.mark.parametrize("text", ["", '{"score": 1', "[1]", '"score"', "7", "null", "\x00", '{"other": 1}'])
def test_damaged_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="result.json is damaged .*; remove it and run"):
        read_json(path, ("score",))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Claimed for RECIPE and seed 0."""
    claimed = RunDir(tmp_path / "run")
    claimed.claim(RECIPE, 0)
    return claimed


def test_a_claim_holds_the_folder_for_its_recipe_and_seed(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.claim(RECIPE, 1)
    before = run.config.read_bytes()
    run.claim(RECIPE, 1)
    assert run.config.read_bytes() == before
    assert run.recipe() == (RECIPE, 1)
    with pytest.raises(BadInput, match=r"recipe mine, seed 1; it differs in seed\); choose another with --run"):
        run.claim(RECIPE, 2)
    with pytest.raises(BadInput, match="it differs in training.batch_size, search.epochs"):
        run.claim(config.replace(RECIPE, {"training.batch_size": 64, "search.epochs": 3}), 1)
    with pytest.raises(BadInput, match="it differs in search"):
        run.claim(dataclasses.replace(RECIPE, search=None), 1)
    assert run.config.read_bytes() == before


def test_what_lies_beside_a_run_lies_beside_the_working_folder_if_that_is_the_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path)
    assert RunDir(Path()).parent == run.parent == run.path.parent


def test_another_description_is_the_same_run(run: RunDir) -> None:
    run.claim(dataclasses.replace(RECIPE, description="without a mistake"), 0)


def test_a_folder_whose_config_is_gone_is_nobody_elses(run: RunDir) -> None:
    run.history.write_text("{}")
    run.config.unlink()
    for claim in run.claim, run.check:
        with pytest.raises(BadInput, match=r"config.json is missing, though other files of a run are there"):
            claim(RECIPE, 1)
    assert not run.config.exists()


def test_more_trials_are_the_same_run_and_fewer_change_nothing(run: RunDir) -> None:
    run.record("tune", devices="1 CPU", data=DATA)
    run.claim(with_trials(9), 0)
    assert run.recipe() == (with_trials(9), 0)
    run.claim(RECIPE, 0)
    assert run.recipe() == (with_trials(9), 0)
    assert read_json(run.config)["jobs"].keys() == {"tune"}


def test_a_claim_takes_a_key_that_is_newer_than_the_run_for_its_default(run: RunDir) -> None:
    recorded = json.loads(run.config.read_bytes())
    del recorded["recipe"]["training"]["ema_momentum"]
    run.config.write_text(json.dumps(recorded))
    run.claim(RECIPE, 0)


@pytest.mark.parametrize("damage", [{"recipe": "mine"}, {"recipe": {"name": 1}}, {"recipe": {"modle": {}}}])
def test_a_claim_names_a_damaged_config_and_leaves_it(run: RunDir, damage: dict[str, object]) -> None:
    run.config.write_text(json.dumps({"seed": 0, "jobs": {}, **damage}))
    before = run.config.read_bytes()
    with pytest.raises(BadInput, match="config.json"):
        run.claim(RECIPE, 0)
    assert run.config.read_bytes() == before


def test_a_record_tells_what_the_job_ran_with(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_REVISION", "abc123")
    monkeypatch.setenv("FMNIST_IMAGE", "fmnist:cpu")
    run.record("train", devices="1 CPU (of the test)", data=DATA)
    record = read_json(run.config)["jobs"]["train"]
    assert record["devices"] == "1 CPU (of the test)"
    assert record["data"] == DATA
    assert (record["revision"], record["image"]) == ("abc123", "fmnist:cpu")
    assert {"fmnist", "python", "keras", "numpy"} < record["versions"].keys()


def test_a_job_that_goes_on_at_another_commit_records_both(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for revision in "ab":
        monkeypatch.setenv("FMNIST_REVISION", revision)
        run.record("train", devices="1 CPU", data=DATA, goes_on=revision == "b")
    record = read_json(run.config)["jobs"]["train"]
    assert (record["revision"], [before["revision"] for before in record["went_on_from"]]) == ("b", ["a"])


def test_all_jobs_of_a_run_read_the_same_data(run: RunDir) -> None:
    run.record("tune", devices="1 CPU", data=DATA)
    run.record("eval", devices="1 CPU", data=DATA | {"t10k-images-idx3-ubyte": "ef"})
    before = run.config.read_bytes()
    with pytest.raises(BadInput, match="train-labels-idx1-ubyte is not the file that `tune` of the run .* --data"):
        run.record("train", devices="1 CPU", data=DATA | {"train-labels-idx1-ubyte": "00"})
    assert run.config.read_bytes() == before


def test_a_lock_keeps_others_out_for_as_long_as_its_process_lives(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    script = (
        "import sys; from fmnist.run.folder import RunDir\n"
        "with RunDir(sys.argv[1]).lock('train'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match="another `train` is at work in"), run.lock("train"):
            pass
        with run.lock("tune"):
            pass
        holder.kill()
    with run.lock("train"):
        pass


def at_once(*acts: Callable[[], object]) -> list[BaseException | None]:
    """Call them side by side, and tell what each raised."""
    barrier = threading.Barrier(len(acts))

    def call(act: Callable[[], object]) -> BaseException | None:
        barrier.wait()
        try:
            act()
        except BadInput as error:
            return error
        return None

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(call, acts))


@pytest.mark.parametrize("number", range(20))
def test_of_two_claims_at_once_one_is_granted(tmp_path: Path, number: int) -> None:
    run = RunDir(tmp_path / str(number))
    raised = at_once(lambda: run.claim(RECIPE, 0), lambda: run.claim(RECIPE, 1))
    (granted,) = (seed for seed, error in enumerate(raised) if error is None)
    assert run.recipe() == (RECIPE, granted)
    assert f"holds another run (recipe mine, seed {granted}" in str(raised[1 - granted])


def test_no_record_is_lost_that_others_make_at_once(run: RunDir) -> None:
    jobs = [f"job-{number}" for number in range(20)]
    records = [functools.partial(run.record, job, devices="1 CPU", data=DATA) for job in jobs]
    assert at_once(*records, lambda: run.claim(with_trials(9), 0)) == [None] * 21
    assert read_json(run.config)["jobs"].keys() == set(jobs)
    assert run.recipe() == (with_trials(9), 0)


def test_a_folder_that_is_held_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)
    with run.changing():
        held = threading.Thread(target=run.claim, args=(RECIPE, 0))
        held.start()
        assert not run.config.exists()
    held.join()
    assert run.config.exists()
    monkeypatch.setattr(fmnist.files, "_LOCK_SECONDS", 0.05)
    with run.changing(), pytest.raises(Busy, match="another process has held .* stop it, and try again"):
        run.claim(RECIPE, 0)


def test_workers_of_several_machines_are_all_recorded_each_once(run: RunDir) -> None:
    for machine in ["one", "other", "one", "other", "third", "third"]:
        run.record("tune", devices="1 CPU", data=DATA, numerics={"processor": machine}, goes_on=True)
    record = read_json(run.config)["jobs"]["tune"]
    assert record["processor"] == "third"
    assert [before["processor"] for before in record["went_on_from"]] == ["one", "other"]
