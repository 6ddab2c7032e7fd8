"""What needs no TensorFlow is answered without importing it: what is done already, and what cannot be obeyed."""

from pathlib import Path

import pytest
from conftest import TINY, Command
from processes import Ended, contents, python
from test_bad_input import refused

SLOW = {"tensorflow", "keras", "keras_tuner"}
# As `python -m fmnist`; at the end stderr names what it imported.
CODE = """
import atexit, sys
from fmnist.__main__ import main
atexit.register(lambda: print("imported:", *{name.split(".")[0] for name in sys.modules}, file=sys.stderr))
main()
"""


def answer(folder: Path, *arguments: str) -> Ended:
    """Return what a command answers, on stderr without the last line, which holds nothing slow."""
    ended = python(CODE, *arguments, cwd=folder)
    *lines, imported = ended.stderr.splitlines()
    assert SLOW & set(imported.split()) == set(), ended.stderr
    ended.stderr = "\n".join(lines)
    return ended


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tune --recipe tiny.toml", "the search in results/tiny-seed0 is finished; nothing to do"),
        ("tune --recipe tiny.toml --workers 2", "the search in results/tiny-seed0 is finished; nothing to do"),
        ("tune --recipe baseline-mlp", "recipe baseline-mlp is fixed: there is nothing to search"),
        ("train --recipe tiny.toml", "model.keras is finished; nothing to do"),
        ("eval results/tiny-seed0", "metrics.json is finished; nothing to do"),
    ],
)
def test_what_is_done(run: Path, tmp_path: Path, arguments: str, said: str) -> None:
    ended = answer(tmp_path, *arguments.split())
    assert ended.returncode == 0
    assert said in ended.stderr


@pytest.mark.faults
def test_the_evidence_that_is_there(tmp_path: Path, fmnist: Command) -> None:
    (tmp_path / "fixed.toml").write_text(TINY.partition("[search]")[0])
    words = ("evidence", "--recipe", "fixed.toml", "--seeds", "5", "--reference-seeds", "0")
    first = fmnist(*words)
    assert answer(tmp_path, *words).stdout == first.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("tain", ["No such command 'tain'", "train"]),
        ("train --recipes smoke", ["No such option: --recipes", "--recipe"]),
        ("train --seed one", ["'--seed'", "valid integer"]),
        ("train --seed -1", ["'--seed'"]),
        (f"train --seed {2**32}", ["less than or equal to 4294967295"]),
        ("tune --trials 0", ["'--trials'"]),
        ("eval", ["RUN"]),
        ("tune --json", ["--json goes with --status"]),
        ("runs nowhere", ["nowhere is no folder of runs"]),
        ("train --recipe smoke --set lr=1 --set epochs=0", ["2 errors: (1) unknown key 'lr'; did you mean", "(2) "]),
        ("train --recipe none.toml", ["none.toml", "No such file"]),
        ("train --recipe broken.toml", ["broken.toml is not valid TOML"]),
        ("tune --recipe typo.toml", ["typo.toml", "'training.epoch'; did you mean 'training.epochs'?"]),
        ("train --set training.batchsize=2", ["'training.batchsize'; did you mean 'training.batch_size'?"]),
        ("train --set training.epochs=0", ["training.epochs", "greater than 0, not 0"]),
        (
            "train --recipe tiny.toml --seed 1 --run results/tiny-seed0",
            ["tiny-seed0 holds another run (recipe tiny, seed 0; it differs in seed); choose another with --run"],
        ),
        ("tune --recipe tiny.toml --set training.batch_size=64", ["it differs in training.batch_size"]),
        ("tune --status nowhere", ["nowhere holds no run"]),
        ("train --recipe tiny.toml --run new", ["best.json is missing"]),
        ("train --recipe baseline-mlp --data nowhere", ["nowhere"]),
        ("train --recipe baseline-mlp --devices gpus", ["--devices gpus: write auto, cpu, gpu"]),
        ("train --recipe baseline-mlp --precision half", ["--precision half: choose one of", "mixed_bfloat16"]),
        ("tune --recipe tiny.toml --run new --data nowhere", ["nowhere"]),
        ("tune --recipe tiny.toml --run new --set search.space.x.values=[1]", ["x"]),
        ("tune --recipe baseline-mlp --trials 3", ["recipe baseline-mlp is fixed: it has no [search]"]),
        ("data --data nowhere", ["no train-images-idx3-ubyte.gz in nowhere", "--data"]),
        ("eval nowhere", ["nowhere holds no run; start one with `fmnist tune` or `fmnist train`"]),
        ("eval results/tiny-seed0 --data nowhere", ["nowhere"]),
        ("eval results/tiny-seed0 results/tiny-seed0 --ensemble", ["is named twice"]),
        ("eval results/tiny-seed0 other", ["several runs: add --ensemble"]),
        ("eval results/tiny-seed0 --output here.json", ["--output goes with --ensemble"]),
        ("report nowhere", ["nowhere holds no run; start one with `fmnist tune` or `fmnist train`"]),
        ("report results", ["results holds no run; start one with `fmnist tune` or `fmnist train`"]),
        (f"report {'a' * 300}", ["File name too long"]),
        ("predict none.png --run results/tiny-seed0", ["none.png"]),
        ("predict none.png --run nowhere", ["nowhere holds no trained model; run `fmnist train` first"]),
        ("export results/tiny-seed0 --format torch", ["--format torch: choose one of"]),
        ("export nowhere --format onnx", ["nowhere holds no run"]),
        ("evidence --recipe tuned_mlp", ["unknown recipe 'tuned_mlp'; did you mean 'tuned-mlp'?"]),
        ("evidence --devices gpus", ["--devices gpus"]),
        ("devices --devices cpu:0", ["--devices cpu:0: write auto"]),
        ("devices --precision float8", ["--precision float8: choose one of"]),
    ],
)
def test_what_cannot_be_obeyed(run: Path, tmp_path: Path, arguments: str, parts: list[str]) -> None:
    (tmp_path / "broken.toml").write_text("[training")
    (tmp_path / "typo.toml").write_text('description = "typo"\ntraining.epoch = 3')
    before = contents(tmp_path)
    refused(answer(tmp_path, *arguments.split()), *parts)
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()
