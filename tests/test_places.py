"""What is no regular file, in a file's place: refused in one line by every reader and writer, and never waited for."""

import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from places import KINDS, at_once, elsewhere, put
from runs import make_run

from fmnist import files
from fmnist.data import idx
from fmnist.errors import BadInput, explain
from fmnist.evaluation import predict
from fmnist.network import inference
from fmnist.recipe import config
from fmnist.report import one as report
from fmnist.report import results
from fmnist.run import folder as rundir
from fmnist.run.folder import RunDir
from fmnist.search import roles
from fmnist.search.project import Project
from fmnist.search.supervise import Ending
from fmnist.training import checkpoint

NOT_TO_READ = [kind for kind in KINDS if kind != "a link to a file"]
NOTHING = ("a dangling link",)


def refusal(act: Callable[[], object]) -> str:
    """The one line in which it ends, which comes at once."""
    with at_once(), pytest.raises((BadInput, OSError)) as raised:
        act()
    line = str(raised.value) if isinstance(raised.value, BadInput) else explain(raised.value)
    assert line
    assert "\n" not in line
    return line


def role(variable: str) -> Callable[[Path], object]:
    return lambda path: roles.from_environment({"KERASTUNER_TUNER_ID": "worker", variable: str(path)})


READERS: dict[str, Callable[[Path], object]] = {
    "file": files.read_json,
    "train.npz": checkpoint.load,
    "trials.csv": rundir.read_trials,
    "model.keras": inference.load,
    "recipe.toml": lambda path: config.load(str(path)),
    "token": role("FMNIST_TOKEN_FILE"),
    "certificate": role("FMNIST_TLS_CERTIFICATE"),
    "oracle.json": lambda path: Project(path.parent).load_oracle(),
    "picture.png": predict._read,
    "images-ubyte": lambda path: idx.read(path, (28, 28)),
}


@pytest.mark.parametrize("kind", NOT_TO_READ)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_it(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    put(kind, path)
    if kind in NOTHING and name in ("train.npz", "trials.csv", "oracle.json"):
        # As without the link.
        assert READERS[name](path) in (None, [])
        return
    line = refusal(lambda: READERS[name](path))
    assert name in line
    assert "damaged" not in line


@pytest.mark.parametrize("kind", NOT_TO_READ)
def test_no_notice_is_waited_for(tmp_path: Path, kind: str) -> None:
    run = RunDir(tmp_path)
    put(kind, run.chief)
    with at_once():
        assert roles.read_notice(run) is None
        assert not Ending(run.chief)()


@pytest.mark.parametrize("kind", NOT_TO_READ)
@pytest.mark.parametrize("name", ["config", "history", "metrics", "averaged_metrics", "predictions", "best", "trials"])
def test_no_report_waits_for_it(tmp_path: Path, name: str, kind: str) -> None:
    run = make_run(tmp_path / "run")
    path: Path = getattr(run, name)
    put(kind, path)
    if kind in NOTHING if name == "trials" else name in ("averaged_metrics", "best") and "link" in kind:
        # As if none had been made.
        with at_once():
            results.read(run)
        return
    refusal(lambda: report.write(run))


def test_links_to_files_and_folders_are_read(tmp_path: Path) -> None:
    """A run, or a large file of it, may lie on another disk."""
    run = make_run(tmp_path / "run")
    for path in (run.config, run.metrics, run.predictions, run.history, run.trials):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    (tmp_path / "link").symlink_to("run")
    assert results.read(RunDir(tmp_path / "link")).seed == 7


def test_what_is_too_large_to_be_such_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "it is larger than" in refusal(lambda: files.read_json(path))
    assert "it is larger than" in refusal(lambda: READERS["token"](path))


@pytest.mark.parametrize("kind", KINDS)
def test_no_writer_replaces_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "best.json"
    put(kind, path)
    before = path.lstat()
    assert str(path) in refusal(lambda: files.write_json(path, {}))
    assert os.path.samestat(before, path.lstat())
    assert [found.name for found in tmp_path.iterdir() if found.name.startswith(".")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_lock_is_taken_on_it(tmp_path: Path, kind: str) -> None:
    run = RunDir(tmp_path)
    path = run.checkpoint / "train.lock"
    put(kind, path)

    def hold() -> None:
        with run.lock("train"):
            pass

    assert str(path) in refusal(hold)
    if kind == "a link to a file":
        assert elsewhere(path).read_text() == "precious"
    else:
        assert not (run.checkpoint / "nowhere").exists()


def test_a_lock_leaves_what_the_file_holds(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.checkpoint.mkdir()
    (run.checkpoint / "train.lock").write_text("precious")
    with run.lock("train"):
        pass
    assert (run.checkpoint / "train.lock").read_text() == "precious"


@pytest.mark.parametrize("kind", NOT_TO_READ)
def test_a_folder_that_cannot_hold_its_results_is_not_claimed(tmp_path: Path, kind: str) -> None:
    """Or the training would end without its model."""
    run = RunDir(tmp_path)
    put(kind, run.model)
    assert str(run.model) in refusal(lambda: run.claim(config.load("smoke"), 0))
    assert not run.config.exists()


def test_an_output_goes_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("page.html")
    for text in ("one", "another"):
        files.write_output(link, text)
        assert link.is_symlink()
        assert (tmp_path / "page.html").read_text() == text


def test_an_output_goes_into_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "nobody reads it" in refusal(lambda: files.write_output(pipe, "text"))
    text = "text" * 50_000  # more than a pipe holds
    # Both ends, so that there is a reader before anybody writes.
    with open(pipe, "r+b", buffering=0) as ends:
        write = threading.Thread(target=files.write_output, args=(pipe, text))
        write.start()
        read = b""
        while len(read) < len(text):
            read += ends.read(2**20)
        write.join()
    assert read.decode() == text
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("kind", ["a folder", "a socket", "a looping link"])
def test_an_output_that_cannot_be(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "page.html"
    put(kind, path)
    before = path.lstat()
    assert str(path) in refusal(lambda: files.write_output(path, "text"))
    assert os.path.samestat(before, path.lstat())


def test_an_output_goes_to_a_device(tmp_path: Path) -> None:
    files.write_output(Path("/dev/null"), "text")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_predictions_are_arrays_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with np.load(run.predictions) as arrays:
        np.savez(run.predictions, **arrays, model=np.array("ef" * 32))
    assert "is not of the model that metrics.json judges" in refusal(lambda: results.read(run))


def test_an_output_goes_to_stdout_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`report -o /dev/stdout > FILE`: neither a new file in its place, nor written over from its beginning."""
    path = tmp_path / "file"
    with path.open("w", encoding="latin-1") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print("before")
        named = Path(f"/proc/self/fd/{stdout.fileno()}")
        assert files.is_stream(named)
        files.write_output(named, "93% ± 1%\n")
        print("after")
        monkeypatch.undo()
    assert path.read_text("utf-8") == "before\n93% ± 1%\nafter\n"


def test_a_page_can_be_sent_through_a_pipe(tmp_path: Path, fmnist: Command) -> None:
    run = make_run(tmp_path / "run")
    done = fmnist("report", run.path, "-o", "/dev/stdout")
    assert done.stderr == ""
    page, _, summary = done.stdout.partition("</html>")
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
    assert "test images are classified correctly" in summary


@pytest.mark.parametrize("kind", KINDS)
def test_no_copy_is_written_through_it(tmp_path: Path, kind: str) -> None:
    """Such as of a recipe, beside the run."""
    (tmp_path / "recipe.toml").write_text("text")
    path = tmp_path / "jobs" / "recipe.toml"
    put(kind, path)
    assert str(path) in refusal(lambda: files.copy(tmp_path / "recipe.toml", path))
    if kind == "a link to a file":
        assert elsewhere(path).read_text() == "precious"
