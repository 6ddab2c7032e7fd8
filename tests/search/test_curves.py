"""The learning curves of trials, from the project of Keras Tuner."""

import json
import math
import shutil
from pathlib import Path

from fmnist.run.folder import RunDir
from fmnist.search import curves, journal
from fmnist.search.record import Record, lines

EARLIER = Path(__file__).parent / "earlier"


def test_an_epoch_of_zero_is_no_gap(tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(EARLIER, tmp_path / "run"))
    file = run.search / "trial_0" / "trial.json"
    trial = json.loads(file.read_text())
    (history,) = (one for name, one in trial["metrics"]["metrics"].items() if name == "val_accuracy")
    history["observations"] = [{"value": [value], "step": step} for step, value in ((0, 0.0), (2, 0.5), (3, math.nan))]
    file.write_text(json.dumps(trial))
    assert curves.read(run, "val_accuracy")["0"] == [0.0, None, 0.5, None]


def test_the_last_epochs_before_a_kill_of_the_chief_are_those_of_the_journal(tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(EARLIER, tmp_path / "run"))
    before = curves.read(run, "val_accuracy")
    further = Record("0", "RUNNING", None, {}, None, None, "worker-0", reports={0: {"val_accuracy": 0.25}})
    new = Record("9", "RUNNING", None, {}, None, None, "worker-1", reports={1: {"val_accuracy": 0.5}})
    begun = Record("1", "RUNNING", None, {}, None, None, "worker-1")
    file = journal.Journal(run.search / journal.NAME)
    file.replace(line for record in (further, new, begun) for line in lines(record))
    found = curves.read(run, "val_accuracy")
    assert (found["0"], found["9"]) == ([0.25], [None, 0.5])
    assert found.keys() == before.keys() - {"1"} | {"9"}
