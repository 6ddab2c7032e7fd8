"""Bad input ends in one line that names what was wrong, exit 64, and every earlier result as it was."""

import contextlib
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FIXED, Command
from processes import Ended, contents

OWN = ("--recipe", "tiny.toml")


def refused(result: Ended, *parts: str) -> None:
    """Check that a job ended with exit 64, and that its one line holds each of `parts`."""
    assert (result.returncode, result.stdout) == (64, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("fmnist: ")
    for part in parts:
        assert part in line


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder]).returncode:
        pytest.skip("only root can mount a file system here")
    try:
        yield
    finally:
        # Lazily: where a test fails, its processes are still there.
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("where", ["in the place of a file", "read-only"])
def test_a_run_folder_that_cannot_be_written(tmp_path: Path, fmnist: Command, where: str) -> None:
    with contextlib.ExitStack() as stack:
        if where == "read-only":
            stack.enter_context(mounted(tmp_path / "results", "ro"))
        else:
            (tmp_path / "results").write_text("a file")
        refused(fmnist("train", *FIXED, code=64), "the run folder results/baseline-mlp-seed0 cannot be made", "--run")


def test_names_do_not_speak_to_the_terminal(tmp_path: Path, fmnist: Command) -> None:
    refused(fmnist("train", *FIXED, "--data", "red\x1b[31m\nforged: line", code=64), "red\\x1b[31m\\nforged: line")
    refused(fmnist("predict", "red\x1b[31m\n.png", "--run", tmp_path, code=64), str(tmp_path))


def test_finished_results_may_lie_where_nothing_can_be_written(tmp_path: Path, fmnist: Command) -> None:
    archive = tmp_path / "archive"
    train = ("train", *FIXED, "--run", archive / "run")
    with mounted(archive, "size=64m"):
        fmnist(*train)
        fmnist("eval", archive / "run")
        subprocess.run(["mount", "-o", "remount,ro", archive], check=True)
        assert "nothing to do" in fmnist(*train).stderr
        fmnist("eval", archive / "run")
        # What cannot be written is not computed first.
        image = next(Path(__file__).parents[1].glob("docs/*.png"))
        show = ("--show", archive / "seen.png")
        refused(fmnist("predict", image, "--run", archive / "run", *show, code=64), "Read-only file system")
        kept = contents(archive)
        refused(fmnist("report", archive / "run", "-o", archive / "run" / "config.json", code=64), "belongs to the run")
        assert contents(archive) == kept


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, fmnist: Command) -> None:
    """Shells leave the tilde of `--run=~/x`, and a folder of that name is one that people remove the wrong way."""
    home = str(tmp_path / "home")
    refused(fmnist("train", *FIXED, "--run=~/run", "--data=~/none", code=64, HOME=home), f"{home}/none")
    refused(fmnist("report", "~/run", code=64, HOME=home), f"{home}/run")


def test_a_data_file_that_is_damaged(tmp_path: Path, data_dir: Path, fmnist: Command) -> None:
    for path in data_dir.glob("*.gz"):
        shutil.copyfile(path, tmp_path / path.name)
    damaged = tmp_path / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    refused(fmnist("train", *FIXED, "--data", ".", code=64), damaged.name, "put a good copy there")
    damaged.write_bytes(gzip.compress(b"\x00\x00\x08\x03" + bytes(60)))
    refused(fmnist("data", FMNIST_DATA=str(tmp_path), code=64), damaged.name, "magic number")
    assert not (tmp_path / "results" / "baseline-mlp-seed0" / "model.keras").exists()


def test_a_model_too_large_for_the_machine_leaves_nothing(tmp_path: Path, fmnist: Command) -> None:
    done = fmnist("train", "--recipe", "baseline-mlp", "--set", f"model.hidden=[{'1000000, ' * 20}]", code=64)
    refused(done, "model.hidden 1000000-1000000-", "GiB of memory at least", "choose fewer units")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("config.json", "train"),
        ("best.json", "train"),
        ("history.json", "train"),
        ("model.keras", "eval"),
        ("metrics.json", "report"),
    ],
)
def test_a_truncated_result_is_named_and_can_be_made_again(
    run: Path, tmp_path: Path, fmnist: Command, name: str, job: str
) -> None:
    path = tmp_path / run / name
    path.write_bytes(path.read_bytes()[:100])
    before = contents(tmp_path)
    arguments = OWN if job == "train" else [run]
    refused(fmnist(job, *arguments, code=64), str(run / name), "put back" if name == "config.json" else "remove it")
    assert contents(tmp_path) == before
    if name in ("best.json", "history.json"):
        path.unlink()
        maker = "tune" if name == "best.json" else "train"
        fmnist(maker, *OWN)
        json.loads(path.read_text())


def test_a_winner_that_the_recipe_refuses(run: Path, tmp_path: Path, fmnist: Command) -> None:
    path = tmp_path / run / "best.json"
    path.write_text(path.read_text().replace('"training.learning_rate": 0', '"training.learning_rate": -1'))
    before = contents(tmp_path)
    refused(fmnist("train", *OWN, code=64), str(run / "best.json"), "training.learning_rate", "not -1")
    assert contents(tmp_path) == before


def test_a_checkpoint_that_is_damaged_costs_time_alone(tmp_path: Path, fmnist: Command) -> None:
    """From the beginning, the training comes to the same result."""
    checkpoint = tmp_path / "results" / "baseline-mlp-seed0" / "checkpoint" / "train.npz"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"PK\x03\x04 and no more")
    result = fmnist("train", *FIXED)
    assert "checkpoint/train.npz is damaged" in result.stderr
    assert "starts anew" in result.stderr
    assert (checkpoint.parent.parent / "model.keras").exists()


@pytest.mark.parametrize(
    ("job", "kilobytes"),
    [("train", 3200), *(pytest.param(*case, marks=pytest.mark.faults) for case in (("train", 8), ("tune", 80)))],
)
def test_a_full_disk(tiny: Path, fmnist: Command, job: str, kilobytes: int) -> None:
    """It is met by TensorBoard or the checkpoint, by the model, and by the checkpoint of a trial."""
    disk = tiny / "disk"
    command = [job, *(OWN if job == "tune" else FIXED), "--run", "disk/run"]
    with mounted(disk, f"size={kilobytes}k"):
        result = fmnist(*command, code=64)
        line = result.stderr.splitlines()[-1]
        assert line.startswith("fmnist: ")
        assert "No space left on device" in line
        assert "disk/run/" in line
        assert "make room" in line
        assert "Traceback" not in result.stderr
        assert not list(disk.rglob(".*"))
        assert not (disk / "run" / "model.keras").exists()

        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        fmnist(*command)
        if job == "tune":
            assert (disk / "run" / "trials.csv").read_text().count("COMPLETED") == 2
