"""One run folder and several jobs at once; and what is no file in each file's place, for each job."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import FIXED, RUN, TINY, Start, end
from images import PLAIN, lay
from places import KINDS, at_once, put

from fmnist import files
from fmnist.cli import app as cli
from fmnist.errors import BadInput, Failed, explain
from fmnist.run.folder import RunDir

# The files of a run that jobs read or write, and what is beside them.
PLACES = [
    "config.json", "best.json", "trials.csv", "history.json", "model.keras", "metrics.json", "metrics-tta.json",
    "predictions.npz", "report.html", "search/chief.json", "search/used-up.json", "search/oracle.json",
    "search/journal", "checkpoint/train.lock", "checkpoint/tune.lock", "checkpoint/config.lock", "checkpoint/train.npz",
    "search", "checkpoint", "tb", "export",
]  # fmt: skip
JOBS = {
    "tune": "tune --recipe tiny.toml",
    "status": f"tune --status {RUN}",
    "train": "train --recipe tiny.toml",
    "eval": f"eval {RUN}",
    "eval --tta": f"eval {RUN} --tta",
    "ensemble": f"eval --ensemble {RUN} other",
    "report": f"report {RUN}",
    "comparison": f"report {RUN} other -o comparison.html",
    "predict": f"predict shoe.npy --run {RUN}",
    "export": f"export {RUN} --format savedmodel",
    # Last: it may find what is better.
    "tune more": "tune --recipe tiny.toml --trials 3",
}
RESULTS = ("best.json", "trials.csv", "history.json", "model.keras", "metrics.json", "predictions.npz")


def model_of(start: Start, folder: Path, seed: int) -> list[np.ndarray]:
    """What `train` makes of a seed, undisturbed."""
    end(start(folder, "train", *FIXED, "--seed", str(seed)), 0)
    return keras.saving.load_model(folder / f"results/baseline-mlp-seed{seed}" / "model.keras").get_weights()


@pytest.mark.faults
def test_two_trainings_in_one_new_folder(tmp_path: Path, start: Start, rounds: int) -> None:
    """The folder is that one's whose weights it holds; the other says whose it is."""
    expected = [model_of(start, tmp_path, seed) for seed in (0, 1)]
    for number in range(rounds):
        run = RunDir(tmp_path / f"run{number}")
        jobs = [start(tmp_path, "train", *FIXED, "--seed", str(seed), "--run", run.path) for seed in (0, 1)]
        ended = list(map(end, jobs))
        _, seed = run.recipe()
        assert (ended[seed].returncode, ended[1 - seed].returncode) == (0, 64), ended
        assert f"holds another run (recipe baseline-mlp, seed {seed}" in ended[1 - seed].stderr
        weights = keras.saving.load_model(run.model).get_weights()
        assert all(np.array_equal(one, other) for one, other in zip(weights, expected[seed], strict=True))


@pytest.mark.faults
def test_two_evaluations_of_one_run(finished: Path, tmp_path: Path, start: Start, rounds: int) -> None:
    for number in range(rounds):
        folder = shutil.copytree(finished, tmp_path / str(number))
        run = RunDir(folder / RUN)
        run.metrics.unlink()
        recorded = files.read_json(run.config)
        del recorded["jobs"]["eval"]
        files.write_json(run.config, recorded)
        for job in [start(folder, "eval", RUN), start(folder, "eval", RUN, "--tta")]:
            end(job, 0)
        assert {"train", "tune", "eval", "eval-tta"} <= files.read_json(run.config)["jobs"].keys()


@pytest.mark.faults
def test_a_training_anew_while_the_model_before_is_judged(
    finished: Path, tmp_path: Path, start: Start, rounds: int
) -> None:
    """The search has found better since: whatever comes first, no figures are beside another model's curves."""
    ends = set()
    for number in range(rounds):
        folder = shutil.copytree(finished, tmp_path / str(number))
        run = RunDir(folder / RUN)
        run.metrics.unlink()
        best = files.read_json(run.best)
        files.write_json(run.best, best | {"values": best["values"] | {"training.learning_rate": 0.004}})
        training, judging = start(folder, "train", "--recipe", "tiny.toml"), start(folder, "eval", RUN)
        end(training, 0)
        judged = end(judging)
        assert judged.returncode == 0 or "replaced meanwhile" in judged.stderr
        ends.add(judged.returncode)
        trained = files.read_json(run.history)["model"]["sha256"]
        assert trained == files.sha256(run.model)
        assert not run.metrics.exists() or files.read_json(run.metrics)["model"]["sha256"] == trained
    assert ends <= {0, 64}


def made(folder: Path) -> dict[str, bytes]:
    """What the results hold."""
    paths = [folder / RUN / name for name in RESULTS]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def end_of(command: str) -> str | None:
    """The line in which a job ends that does not end well; what it raises as a fault of ours is raised."""
    # A job that is not concerned has its work to do.
    with at_once(60):
        try:
            cli.app(command.split(), standalone_mode=False)
        except (BadInput, Failed) as error:
            return str(error)
        except OSError as error:
            if line := explain(error):
                return line
            raise
    return None


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small data set, and a copy of it, with the figures of every `eval`."""
    folder = tmp_path_factory.mktemp("judged")
    lay(folder / "data", PLAIN, train=7000, t10k=100)
    np.save(folder / "shoe.npy", np.eye(28, dtype=np.uint8) * 255)
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FMNIST_DATA", "data")
        for name in ("tune", "train", "eval", "eval --tta"):
            assert end_of(JOBS[name]) is None
        shutil.copytree(RUN, "other")
        assert end_of(JOBS["ensemble"]) is None
    return folder


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_in_a_file_s_place(
    judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    """Each job ends in one line at once, or as if nothing were wrong; and what is there stays what it is."""
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_DATA", "data")
    path = tmp_path / RUN / place
    put(kind, path)
    kept = path.lstat()
    for name, command in JOBS.items():
        before = made(tmp_path)
        line = end_of(command)
        assert line is None or ("\n" not in line and line), name
        after = made(tmp_path)
        if name == "tune more" and line is None:
            for searched in (before, after):
                searched.pop("trials.csv", None), searched.pop("best.json", None)
        assert before.items() <= after.items(), name
        if kind != "a folder":
            assert (path.lstat().st_ino, path.lstat().st_mode) == (kept.st_ino, kept.st_mode), name
