"""Files on file systems that lack something: the kernel refuses the calls, as a parallel or network mount would."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import refusing
import tensorflow as tf
from conftest import FIXED, TINY, Command
from runs import make_run
from searching import Runner, recipe, search

from fmnist import errors, files
from fmnist.errors import BadInput
from fmnist.evaluation import predict
from fmnist.run.folder import RunDir
from fmnist.search.worker import Report, TrialRequest
from fmnist.training import checkpoint
from jobs.pipeline import Pipeline
from jobs.slurm import submitter

pytestmark = pytest.mark.usefixtures("seccomp")

ALL = {"flock": errno.ENOLCK, "fsync": errno.EINVAL, **dict.fromkeys(refusing.CHMOD, errno.EPERM)}
LOSSES = ("no locks (No locks available): nothing keeps a second job out", "no fsync (Invalid argument): a power cut")


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_warned", set())


def write_twice(run: RunDir) -> None:
    files.write_json(run.best, {"made": 1})
    files.write_json(run.best, {"made": 2})


def hold_twice(run: RunDir) -> None:
    for job in ("train", "tune"):
        with run.lock(job):
            assert (run.checkpoint / f"{job}.lock").exists()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize(
    ("call", "use", "loss"),
    [
        ("flock", hold_twice, "no locks .*: nothing keeps a second job out of a run folder; start each job once"),
        ("fsync", write_twice, "no fsync .*: a power cut may cost the newest results"),
    ],
)
def test_a_comfort_that_is_lost_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, use: Callable[[RunDir], None], loss: str, code: int
) -> None:
    run = RunDir(tmp_path / "run")
    refusing.refusing({call: code}, lambda: use(run))
    (line,) = caplog.messages
    assert str(tmp_path / "run") in line
    assert os.strerror(code) in line
    assert re.search(loss, line)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_nothing_needs_chmod(tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int) -> None:
    """Not the run folder's files, nor what a submission copies beside them."""
    (tmp_path / "tiny.toml").write_text(TINY)
    run = RunDir(tmp_path / "run")
    pipeline = Pipeline(run, str(tmp_path / "tiny.toml"), seed=0)

    def work() -> None:
        with pipeline.prepared():
            submitter._recipe(pipeline)
        run.record("tune", devices="1 CPU", data={})
        checkpoint.save(run.checkpoint / "train.npz", {"weights": [np.zeros(3)]})

    refusing.refusing(dict.fromkeys(refusing.CHMOD, code), work)
    assert (run.path / "jobs" / "tiny.toml").read_text() == TINY
    assert pipeline.token.stat().st_mode & 0o077 == 0
    assert checkpoint.load(run.checkpoint / "train.npz") is not None
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("calls", "code"),
    [
        (["fsync"], errno.EIO),
        (["fsync"], errno.ENOSPC),
        (["fsync"], errno.EDQUOT),
        (refusing.RENAME, errno.ENOSYS),
        (refusing.RENAME, errno.EPERM),
    ],
)
def test_a_write_that_fails_costs_a_result_and_leaves_the_one_before(
    tmp_path: Path, calls: Sequence[str], code: int
) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"made": 1})
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        refusing.refusing(dict.fromkeys(calls, code), lambda: files.write_json(path, {"made": 2}))
    assert files.read_json(path) == {"made": 1}
    assert list(tmp_path.iterdir()) == [path]
    line = errors.explain(raised.value)
    assert line is not None
    assert line.startswith(f"{path}: {os.strerror(code)}; ")
    assert ("make room" in line) == (code in errors.FULL)


def test_a_search_needs_none_of_it(tmp_path: Path) -> None:
    chief = refusing.refusing(ALL, lambda: search(tmp_path, recipe(), Runner()))
    assert chief.finished
    assert len(files.read_json(RunDir(tmp_path).best)) == 5


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EROFS, errno.ESTALE])
def test_a_trial_is_not_failed_by_the_file_system(tmp_path: Path, code: int) -> None:
    class Refused(Runner):
        def __call__(self, trial: TrialRequest, report: Report) -> None:
            raise OSError(code, os.strerror(code), "checkpoint/trial_0_0.npz")

    with pytest.raises(OSError, match=os.strerror(code)):
        search(tmp_path, recipe(trials=2), Refused())
    chief = search(tmp_path, recipe(trials=2), Runner())
    assert [row["status"] for row in chief.rows()] == ["COMPLETED"] * 2


def test_a_claim_finds_out_by_writing(tmp_path: Path) -> None:
    """What `access` says is no matter: on some mounts it says no, on others yes to a root who may do nothing."""
    run = RunDir(tmp_path / "run")
    denied = dict.fromkeys(refusing.ACCESS, errno.EACCES)
    refusing.refusing(denied, lambda: run.claim(recipe(), 0))
    before = run.config.read_bytes()
    for code in (errno.EACCES, errno.EROFS):
        with pytest.raises(
            BadInput, match=rf"run cannot be written \({os.strerror(code)}\); choose another with --run"
        ):
            refusing.refusing({"openat": code}, lambda: run.claim(recipe(), 0))
    with pytest.raises(BadInput, match="No space left on device.; make room, or choose another"):
        refusing.refusing({"openat": errno.ENOSPC}, lambda: run.claim(recipe(), 0))
    assert run.config.read_bytes() == before


def test_a_file_that_cannot_be_mapped_is_read(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((2, 28, 28), np.uint8))
    images = refusing.refusing({"mmap": errno.ENODEV}, lambda: predict._read_npy(file))
    assert images.shape == (2, 28, 28)


@pytest.mark.parametrize("read", [files.read_json, checkpoint.load])
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """Its owner would remove it; the training would start anew."""
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises((BadInput, OSError)) as raised:
        read(path)
    assert "damaged" not in str(raised.value)
    assert os.strerror(errno.EISDIR) in str(raised.value)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "make room, or choose another place"),
        (errno.EDQUOT, "make room, or choose another place"),
        (errno.EFBIG, "make room, or choose another place"),
        (errno.EACCES, "see to its permissions, or choose another place"),
        (errno.EROFS, "choose another place"),
        (errno.ENOTDIR, "remove what has its name, or choose another place"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EIO, "its file system fails: try again when that works"),
        (errno.ESTALE, "its file system fails: try again when that works"),
    ],
)
def test_each_error_has_its_own_advice(code: int, advice: str) -> None:
    assert errors.explain(OSError(code, os.strerror(code), "a/b")) == f"a/b: {os.strerror(code)}; {advice}"


def fail_to_write() -> None:
    from fmnist.report import one

    def write_output(path: Path, text: str) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    one.write_output = write_output  # type: ignore[attr-defined]


def test_a_job_whose_file_system_fails_may_be_tried_again(tmp_path: Path, fmnist: Command) -> None:
    run = make_run(tmp_path / "run")
    ended = fmnist("report", run.path, prepare=fail_to_write, code=75)
    assert (
        ended.stderr == f"fmnist: {run.report}: Stale file handle; its file system fails: try again when that works\n"
    )


def test_what_passes_and_what_does_not() -> None:
    assert errors.may_pass(errors.Contended("held"))
    assert not errors.may_pass(errors.Busy("at work"))
    assert not errors.may_pass(OSError(errno.ENOSPC, "full"))
    wrapped = BadInput("cannot be read")
    wrapped.__cause__ = OSError(errno.EIO, "error")
    assert errors.may_pass(wrapped)


def test_what_is_no_refusal_is_a_bug() -> None:
    assert errors.explain(OSError(errno.EBADF, "Bad file descriptor")) is None
    assert errors.explain(ValueError("Permission denied")) is None


def test_tensorflow_s_refusals_are_explained_too(tmp_path: Path) -> None:
    (tmp_path / "tb").touch()
    with pytest.raises(tf.errors.OpError) as raised:
        tf.summary.create_file_writer(str(tmp_path / "tb" / "final")).init()
    line = errors.explain(raised.value)
    assert line == f"{tmp_path / 'tb'} is not a directory; remove what has its name, or choose another place"


# One process, for one import of TensorFlow.
JOBS = f"""
from fmnist.cli.app import app, logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
for job in ({("train", *FIXED)}, ("eval", "results/baseline-mlp-seed0"), ("report", "results/baseline-mlp-seed0")):
    app(job, standalone_mode=False)
"""


@pytest.mark.parametrize(
    ("arguments", "made", "processes"),
    [
        (["-c", JOBS], "baseline-mlp-seed0/report.html", 1),
        # The launcher, the chief and two workers.
        (["-m", "fmnist", "tune", "--recipe", "tiny.toml", "--workers", "2"], "tiny-seed0/best.json", 4),
    ],
    ids=["train, eval, report", "tune with workers"],
)
def test_the_jobs_go_on_without_any_of_it(
    tmp_path: Path, data_dir: Path, arguments: list[str], made: str, processes: int
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    refused = ",".join(f"{call}={errno.errorcode[code]}" for call, code in ALL.items())
    done = subprocess.run(
        [sys.executable, refusing.__file__, refused, sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "FMNIST_DATA": str(data_dir)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / made).exists()
    for loss in LOSSES:
        assert 1 <= done.stderr.count(loss) <= processes


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = tmp_path / ".config.0123456789abcdef.json"
    dead.write_text("half")
    (tmp_path / ".hidden").touch()
    (tmp_path / "config.json").touch()
    with files.atomic_write(tmp_path / "living.json") as living:
        files.sweep(tmp_path)
        living.write(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "config.json", "living.json"]
    assert (tmp_path / "living.json").read_bytes() == b"whole"


def test_what_a_killed_writer_has_left_goes_with_the_next_lock(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    for folder in (run.path, run.checkpoint, run.exports, run.search, run.search / "trial_0"):
        folder.mkdir(parents=True)
        (folder / ".train.0123456789abcdef.npz").touch()
    with run.lock("train"):
        assert [path for path in run.path.rglob(".*") if path.name != "train.lock"] == []


@pytest.mark.parametrize("lacks_exchange", [False, True])
def test_a_folder_replaces_another_and_one_put_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks_exchange: bool
) -> None:
    path, made = tmp_path / "saved", tmp_path / "made"
    for folder in (path, made):
        folder.mkdir()
        (folder / folder.name).touch()
    if lacks_exchange:
        monkeypatch.setattr(files, "_RENAME_EXCHANGE", -1)
    files.replace_folder(str(made), path)
    assert [file.name for file in path.iterdir()] == ["made"]
    assert not list(tmp_path.glob(".*"))
    # A kill between its two renames.
    path.rename(tmp_path / ".saved.old")
    files.recover_folder(path)
    assert [file.name for file in path.iterdir()] == ["made"]
