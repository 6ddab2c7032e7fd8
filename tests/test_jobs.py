"""The jobs as real processes on the real data, from the search to the report."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import COMPLETE, FIXED, RUN, Command
from processes import contents

from fmnist.run.folder import read_trials
from fmnist.search import trial
from fmnist.training import epoch as program

TINY = ("--recipe", "tiny.toml")


def results(run: Path) -> dict[str, bytes]:
    """What every file holds, but for those of `search`, which are the jobs' own business."""
    return {name: content for name, content in contents(run).items() if not name.startswith("search/")}


def test_the_run_folder_holds_what_the_design_lists(finished: Path) -> None:
    run = finished / RUN
    others = {"search", "tb", "checkpoint", "novelty.npz", "predictions.npz"}
    assert {path.name for path in run.iterdir()} == COMPLETE | others
    trials = read_trials(run / "trials.csv")
    assert [trial["status"] for trial in trials] == ["COMPLETED"] * 2
    assert max(float(trial["score"]) for trial in trials) == json.loads((run / "best.json").read_text())["score"]
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] > 0.6
    config = json.loads((run / "config.json").read_text())
    assert config["jobs"].keys() == {"tune", "train", "eval"}
    for job, count in {"tune": 2, "train": 2, "eval": 4}.items():
        assert len(config["jobs"][job]["data"]) == count
    assert not [path for path in run.rglob(".*") if path.is_file()]


def test_finished_jobs_say_so_and_change_nothing(run: Path, tmp_path: Path, fmnist: Command) -> None:
    before = results(tmp_path / run)
    for job in (["tune", *TINY], ["train", *TINY], ["eval", run]):
        assert "finished" in fmnist(*job).stderr
    result = fmnist("report", run)
    assert "test images are classified correctly" in result.stdout
    assert "tiny, seed 0" in result.stdout
    assert results(tmp_path / run) == before


def test_more_trials_go_on_with_the_search(run: Path, tmp_path: Path, fmnist: Command) -> None:
    before = read_trials(tmp_path / run / "trials.csv")
    fmnist("tune", *TINY, "--trials", 3)
    after = read_trials(tmp_path / run / "trials.csv")
    assert after[:2] == before
    assert len(after) == 3
    # A new model makes the figures of the one before it void.
    (tmp_path / run / "model.keras").unlink()
    (tmp_path / run / "metrics-tta.json").touch()
    fmnist("train", *TINY)
    assert not list((tmp_path / run).glob("metrics*.json"))
    # It was asked for without the number of trials; the record still tells how many were searched.
    assert json.loads((tmp_path / run / "config.json").read_text())["recipe"]["search"]["trials"] == 3


def test_the_model_loads_with_stock_keras_alone(finished: Path) -> None:
    script = (
        "import sys; sys.modules['fmnist'] = None\n"
        "import keras, numpy\n"
        "logits = keras.models.load_model(sys.argv[1])(numpy.zeros((3, 28, 28), numpy.uint8))\n"
        "print(logits.shape, logits.dtype.name)"
    )
    model = finished / RUN / "model.keras"
    command = [sys.executable, "-I", "-c", script, str(model)]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert result.stdout == "(3, 10) float32\n", result.stderr


def test_eval_alone_reads_the_test_set(run: Path, tmp_path: Path, train_files: Path, fmnist: Command) -> None:
    """The fixture `finished` has searched and trained without it."""
    (tmp_path / run / "metrics.json").unlink()
    before = results(tmp_path / run)
    result = fmnist("eval", run, "--data", train_files, code=64)
    assert f"no t10k-images-idx3-ubyte.gz in {train_files}" in result.stderr
    assert results(tmp_path / run) == before


def test_a_fixed_recipe_and_another_data_set_which_is_told_apart(
    tmp_path: Path, other_data: Path, fmnist: Command
) -> None:
    own = (*FIXED, "--run", "own")
    assert fmnist("tune", *own).stderr == "recipe baseline-mlp is fixed: there is nothing to search\n"
    fmnist("train", *own, FMNIST_DATA=str(other_data))
    fmnist("eval", "own", "--data", other_data)
    report = fmnist("report", "own").stdout
    assert report.startswith("*** NOT FASHION-MNIST")
    assert "0.8100" not in report

    before = results(tmp_path / "own")
    result = fmnist("eval", "own", code=64)
    assert "train-images-idx3-ubyte is not the file that `train` of the run in own read" in result.stderr
    assert results(tmp_path / "own") == before


def test_a_training_takes_the_data_of_its_search(run: Path, tmp_path: Path, other_data: Path, fmnist: Command) -> None:
    (tmp_path / run / "model.keras").unlink()
    before = results(tmp_path / run)
    result = fmnist("train", *TINY, "--data", other_data, code=64)
    assert "train-images-idx3-ubyte is not the file that `tune`" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert results(tmp_path / run) == before


COMMANDS = ["data", "tune", "train", "eval", "report", "runs", "predict", "export", "evidence", "devices"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen(command: str, fmnist: Command) -> None:
    result = fmnist(*filter(None, [command]), "--help", COLUMNS="80", TERM="dumb")
    lines = result.stdout.splitlines()
    assert 5 < len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith(f"  Example: fmnist {command}")
    if not command:
        assert re.findall(r"^  ([a-z]+)  ", result.stdout[result.stdout.index("Commands:") :], re.MULTILINE) == COMMANDS


def test_alone_it_prints_its_help(fmnist: Command) -> None:
    assert fmnist().stdout == fmnist("--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_recipes(shell: str, fmnist: Command) -> None:
    def complete(line: str) -> str:
        # Each shell tells the words, and which of them it completes, by variables of its own.
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        words |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        # The variable's name is the program's, here `python -m fmnist`.
        return fmnist(**words, **{"_PYTHON _M FMNIST_COMPLETE": f"complete_{shell}"}).stdout

    commands = complete("fmnist pre")
    assert "predict" in commands
    assert "train" not in commands
    recipes = complete("fmnist train --recipe reg")
    assert "regularized-mlp" in recipes
    assert "baseline-mlp" not in recipes


def test_the_version_is_the_packages(fmnist: Command) -> None:
    import fmnist as package

    assert fmnist("--version").stdout == f"{package.__version__}\n"


def test_a_trial_whose_loss_is_no_number_has_failed_and_the_search_goes_on(tiny: Path, fmnist: Command) -> None:
    space = 'search.space={"training.learning_rate"={values=[0.01, 1e30]}}'
    fmnist("tune", *TINY, "--set", "training.optimizer=sgd", "--set", space, "--run", "run")
    outcome = {float(trial["training.learning_rate"]): trial for trial in read_trials(tiny / "run" / "trials.csv")}
    assert outcome[0.01]["status"] == "COMPLETED"
    assert outcome[1e30]["status"] == "FAILED"
    assert outcome[1e30]["score"] == ""
    assert "a lower learning rate may help" in outcome[1e30]["message"]


def few_programs() -> None:
    """This process, and those that it starts itself anew as, compile one program each."""
    code = (
        "from fmnist import __main__; from fmnist.search import trial; trial._PROGRAMS_A_PROCESS = 1; __main__.main()"
    )
    sys.orig_argv = [sys.executable, "-c", code, *sys.argv[1:]]
    trial._PROGRAMS_A_PROCESS = 1


LITTLE_ROOM = """
from fmnist.training import epoch

begin, made = epoch.Program.__init__, []

def begin_alone(self, *args):
    if made:
        raise MemoryError
    made.append(self)
    begin(self, *args)

epoch.Program.__init__ = begin_alone
"""


def little_room() -> None:
    """For this process, and those that it starts itself anew as, a device has room for one network."""
    code = f"{LITTLE_ROOM}\nfrom fmnist import __main__; __main__.main()"
    sys.orig_argv = [sys.executable, "-c", code, *sys.argv[1:]]
    exec(LITTLE_ROOM, {})


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.faults)])
def test_a_long_search_starts_its_process_anew_and_loses_nothing(count: int, tiny: Path, fmnist: Command) -> None:
    tables = []
    for prepare, anew in ((None, 0), (few_programs, count - 1)):
        run = f"anew-{anew}"
        ended = fmnist("tune", *TINY, "--trials", count, "--run", run, prepare=prepare)
        assert ended.stderr.count("starting this process anew") == anew
        tables.append([{**trial, "seconds": ""} for trial in read_trials(tiny / run / "trials.csv")])
    assert tables[0] == tables[1]


@pytest.mark.faults
def test_networks_of_earlier_trials_take_no_room_from_later_ones(tiny: Path, fmnist: Command) -> None:
    ended = fmnist("tune", *TINY, "--trials", "4", "--run", "run", prepare=little_room)
    assert "starting this process anew" in ended.stderr
    assert {trial["status"] for trial in read_trials(tiny / "run" / "trials.csv")} == {"COMPLETED"}


def die_in_trial_0(since: str) -> None:
    """Once there is the file `since`, as compiled code does that finds a fault: no exception."""
    train = program.Program.train

    def train_or_die(*args: Any, **kwargs: Any) -> dict[str, float]:
        if os.path.exists(since) and b'"trial_id":"1"' not in Path("run/search/journal").read_bytes():
            os.abort()
        return train(*args, **kwargs)

    program.Program.train = train_or_die  # type: ignore[method-assign]


@pytest.mark.parametrize("since", ["run/search/journal", "run/checkpoint/trial_0_0.npz"])
def test_a_trial_that_takes_its_process_with_it_fails_in_the_end(since: str, tiny: Path, fmnist: Command) -> None:
    """In its first epoch or in a later one."""
    for code in [-signal.SIGABRT] * 3 + [0]:
        fmnist("tune", *TINY, "--run", "run", prepare=functools.partial(die_in_trial_0, since), code=code)
    first, second = read_trials(tiny / "run" / "trials.csv")
    assert first["status"] == "FAILED"
    assert "its process died 3 times" in first["message"]
    assert second["status"] == "COMPLETED"
