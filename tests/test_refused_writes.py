"""Whatever the system answers to a write: one line with the path, the file as it was, and nothing left beside it."""

import errno
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import damaging
import pytest
import refusing
from images import images
from processes import contents
from searching import Runner, recipe, search

from fmnist import errors, files
from fmnist.errors import BadInput
from fmnist.evaluation import averaging
from fmnist.evaluation import job as evaluate
from fmnist.network.build import build
from fmnist.recipe import config
from fmnist.report import one as report
from fmnist.report import several as report_several
from fmnist.run.folder import RunDir
from fmnist.search import roles
from fmnist.training import checkpoint
from fmnist.training import job as train
from fmnist.training.trainer import FitResult

pytestmark = pytest.mark.usefixtures("seccomp")

CODES = (
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ESTALE, errno.EBUSY,
    errno.ENXIO, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM,
)  # fmt: skip
CALLS = {
    "write": refusing.WRITE,
    "make": ("openat",),
    "rename": refusing.RENAME,
    "fsync": ("fsync", "fdatasync"),
    "mkdir": refusing.MKDIR,
}
BEFORE = (CALLS["write"], CALLS["make"], CALLS["mkdir"])


def writers(run: RunDir) -> dict[str, Callable[[], object]]:
    """All that writes into a run folder, by what it writes."""
    claimed, seed = run.recipe()
    shown = images(20)
    network = build(claimed.model)
    said = averaging.probabilities([network], shown.images)
    history = {"loss": [1.0], "accuracy": [0.5], "learning_rate": [0.1], "val_accuracy": [0.5]}
    more = config.replace(claimed, {"search.trials": 99})
    state = {"weights": network.get_weights(), "seconds": [1.0]}
    sha256 = files.read_json(run.metrics)["model"]["sha256"]
    other = RunDir(run.path.parent / "other")
    return {
        "config.json": lambda: run.record("eval", devices="CPU", data={}),
        "config.json, claimed": lambda: run.claim(more, seed),
        "another config.json": lambda: RunDir(run.path / "new").claim(claimed, seed),
        "checkpoint": lambda: checkpoint.save(run.checkpoint / "train.npz", state),
        "report.html": lambda: report.write(run),
        "comparison.html": lambda: report_several.write([run, other], run.path / "comparison.html"),
        "chief.json": lambda: roles.Notice(None, 5).write(run),
        "metrics.json": lambda: files.write_json(run.metrics, {}),
        "evidence.md": lambda: files.write_text(run.path / "evidence.md", "# evidence"),
        "predictions.npz": lambda: evaluate._write_predictions(
            evaluate._Member(run, claimed, seed, sha256), shown, said
        ),
        # The last one: with the new model the figures of the old one go.
        "model.keras": lambda: train.save(run, claimed, FitResult(network, history, [1.0], 20)),
        "search": lambda: search(run.path / "search of its own", recipe(trials=1), Runner()),
    }


def refuse(run: RunDir, writer: Callable[[], object], calls: tuple[str, ...], code: int) -> str:
    """What became of it: "written", or "refused" in one line."""
    before = contents(run.path)
    try:
        refusing.refusing(dict.fromkeys(calls, code), writer)
        return "written"
    except Exception as error:
        line = str(error) if isinstance(error, BadInput) else errors.explain(error) or f"unexplained:\n{error!r}"
    assert "\n" not in line
    # Keras writes a model into a folder for what is temporary first.
    assert str(run.path) in line or f"{tempfile.gettempdir()}/tmp" in line
    assert os.strerror(code) in line
    assert "Traceback" not in line
    after = contents(run.path)
    # What is said of a model goes in the moment before another takes its place.
    figures = {path.name for path in (run.metrics, run.averaged_metrics, run.history)}
    going = figures if "model.keras" in line and calls not in BEFORE else set()
    assert {name for name, content in before.items() if after.get(name) != content} <= going
    assert not [path for path in run.path.rglob(".*") if path.is_file()]
    return "refused"


@pytest.mark.parametrize(
    "codes", [(errno.EIO, errno.ENXIO), pytest.param(CODES, marks=pytest.mark.faults)], ids=["two codes", "all codes"]
)
def test_a_write_that_the_system_refuses(tmp_path: Path, codes: tuple[int, ...]) -> None:
    counts: Counter[str] = Counter()
    for name, calls in CALLS.items():
        for code in codes:
            run = damaging.make(tmp_path / f"{name} {code}")
            for file, writer in writers(run).items():
                try:
                    counts[f"{name}: {refuse(run, writer, calls, code)}"] += 1
                except AssertionError as error:
                    raise AssertionError(f"{file}, {name}, {errno.errorcode[code]}: {error}") from error
    print(dict(sorted(counts.items())), file=sys.stderr)
    assert counts["write: refused"] >= 10 * len(codes)
