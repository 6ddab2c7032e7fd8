"""What needs no TensorFlow is answered without importing it: what is done already, and what cannot be obeyed."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command

SLOW = {"tensorflow", "keras", "keras_tuner"}
# As `python -m fmnist`; at the end stderr names what it imported.
CODE = """
import atexit, sys
from fmnist.__main__ import main
atexit.register(lambda: print("imported:", *{name.split(".")[0] for name in sys.modules}, file=sys.stderr))
main()
"""


def answer(folder: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """What a command answers, on stderr without the last line, which holds nothing slow."""
    ended = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    *lines, imported = ended.stderr.splitlines()
    assert SLOW & set(imported.split()) == set(), ended.stderr
    ended.stderr = "\n".join(lines)
    return ended


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tune --recipe tiny.toml", "the search in results/tiny-seed0 is finished; best of 2 trials: "),
        ("tune --recipe tiny.toml --workers 2", "the search in results/tiny-seed0 is finished; best of 2 trials: "),
        ("tune --recipe baseline-mlp", "recipe baseline-mlp is fixed: there is nothing to search"),
        ("train --recipe tiny.toml", "model.keras is finished; nothing to do"),
        ("eval results/tiny-seed0", "metrics.json is finished; nothing to do"),
    ],
)
def test_what_is_done(run: Path, tmp_path: Path, arguments: str, said: str) -> None:
    ended = answer(tmp_path, *arguments.split())
    assert ended.returncode == 0
    assert said in ended.stderr


def test_the_evidence_that_is_there(run: Path, tmp_path: Path, fmnist: Command) -> None:
    words = ("evidence", "--recipe", "tiny.toml", "--seeds", "1", "--reference-seeds", "0")
    first = fmnist(*words)
    assert first.returncode == 0, first.stderr
    assert answer(tmp_path, *words).stdout == first.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --recipe baseline-mlp --set training.epoch=3", "unknown key 'training.epoch'"),
        ("train --recipe tiny.toml --seed 1 --run results/tiny-seed0", "holds another run"),
        ("train --recipe tiny.toml --run new", "best.json is missing"),
        ("train --recipe baseline-mlp --data nowhere", "nowhere"),
        ("train --recipe baseline-mlp --devices gpus", "--devices gpus: write auto, cpu"),
        ("train --recipe baseline-mlp --precision half", "--precision half: choose one of"),
        ("tune --recipe tiny.toml --run new --data nowhere", "nowhere"),
        ("tune --recipe tiny.toml --run new --set search.space.x.values=[1]", "x"),
        ("tune --recipe baseline-mlp --trials 3", "is fixed"),
        ("eval nowhere", "nowhere holds no run"),
        ("eval results/tiny-seed0 --data nowhere", "nowhere"),
        ("eval results/tiny-seed0 results/tiny-seed0 --ensemble", "is named twice"),
        ("report nowhere", "nowhere holds no run"),
        ("predict none.png --run results/tiny-seed0", "none.png"),
        ("predict none.png --run nowhere", "holds no trained model"),
        ("export results/tiny-seed0 --format torch", "--format torch: choose one of"),
        ("export nowhere --format onnx", "nowhere holds no run"),
        ("evidence --recipe tuned_mlp", "did you mean 'tuned-mlp'"),
        ("evidence --devices gpus", "--devices gpus"),
        ("devices --devices gpus", "--devices gpus"),
    ],
)
def test_what_cannot_be_obeyed(run: Path, tmp_path: Path, arguments: str, said: str) -> None:
    ended = answer(tmp_path, *arguments.split())
    assert ended.returncode == 64
    assert ended.stderr.startswith("fmnist: ")
    assert said in ended.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("job", ["tune --recipe tiny.toml", "train --recipe baseline-mlp"])
def test_devices_that_are_not_there_leave_no_folder(fmnist: Command, tmp_path: Path, run: Path, job: str) -> None:
    ended = fmnist(*job.split(), "--run", "new", "--devices", "gpu")
    assert ended.returncode == 64
    assert "--devices gpu: this machine shows 0 GPU(s)" in ended.stderr
    assert not (tmp_path / "new").exists()
