"""The learning curves of trials, from the project of Keras Tuner."""

import json
import math
import shutil
from pathlib import Path

from fmnist.run.folder import RunDir
from fmnist.search import curves

EARLIER = Path(__file__).parent / "earlier"


def test_an_epoch_of_zero_is_no_gap(tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(EARLIER, tmp_path / "run"))
    file = run.search / "trial_0" / "trial.json"
    trial = json.loads(file.read_text())
    (history,) = (one for name, one in trial["metrics"]["metrics"].items() if name == "val_accuracy")
    history["observations"] = [{"value": [value], "step": step} for step, value in ((0, 0.0), (2, 0.5), (3, math.nan))]
    file.write_text(json.dumps(trial))
    assert curves.read(run, "val_accuracy")["0"] == [0.0, None, 0.5, None]
