"""The benchmark: its statistics and table on hand-made numbers, and one short run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT

from benchmarks import speed
from benchmarks.alternation import Alternation
from benchmarks.cases import Run, network
from benchmarks.simulation import simulate, simulated
from benchmarks.table import Figure, cost, render, speedup, to_dict

OURS, THEIRS = (1.0, 2.0, 4.0), (3.0, 5.0, 16.0)
FAST = Figure("images/s", "512, batch 128", ">= 2.6", OURS, THEIRS, speedup(OURS, THEIRS))


def test_ratios_are_of_pairs() -> None:
    assert speedup(OURS, THEIRS) == (3.0, 2.5, 4.0)
    assert cost(THEIRS, OURS) == (3.0, 2.5, 4.0)
    with pytest.raises(ValueError, match="shorter"):
        speedup(OURS, THEIRS[:2])


@pytest.mark.parametrize(
    ("goal", "met"),
    [(">= 3", True), (">= 3.01", False), ("<= 3", True), ("<= 2.99", False), ("", None)],
)
def test_the_median_meets_the_goal_or_not(goal: str, met: bool | None) -> None:
    assert Figure("f", goal=goal, ours=OURS, theirs=THEIRS, values=(9.0, 3.0, 1.0)).met is met


def test_without_samples_no_goal_is_met_or_missed() -> None:
    figure = Figure("f", goal=">= 1", note="not installed")
    assert figure.met is None
    assert to_dict(figure)["n"] == 0


def test_json_holds_the_samples_and_their_statistics() -> None:
    value = json.loads(json.dumps(to_dict(FAST)))
    assert (value["median"], value["min"], value["max"], value["n"], value["met"]) == (3.0, 2.5, 4.0, 3, True)
    assert value["ours"] == list(OURS)
    assert value["theirs"] == list(THEIRS)


def test_the_table_shows_spread_and_amounts_and_why_a_row_is_empty() -> None:
    memory = Figure("memory", "512", "<= 1", (3 * 2**20,), (2 * 2**20,), (1.5,), unit="bytes", note="of the process")
    missing = Figure("PyTorch", goal=">= 1", note="not installed: pip install torch")
    table, _, notes = render([FAST, memory, missing]).partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in table.splitlines()}) == 1
    assert rows[2] == ["images/s", "512, batch 128", ">= 2.6", "3.00", "2.50 to 4.00", "3", "2.00 s", "5.00 s", "yes"]
    assert rows[3][3:] == ["1.50", "1.50 to 1.50", "1", "3 MiB", "2 MiB", "NO"]
    assert rows[4][2:5] == [">= 1", "not installed: pip install torch", ""]
    assert notes == "memory: of the process"


def test_what_cannot_run_becomes_a_row_that_says_why(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_DATA", str(data_dir))
    case = network((8,), 128, train_limit=100)
    with Alternation(pairs=1) as bench:
        figure = bench.epochs("f", speedup, Run("cases:Missing", case), Run("cases:Missing", case))
    assert figure.values == ()
    assert "Missing" in figure.note


@pytest.mark.faults
def test_cases_of_one_network_are_trained_apart(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_DATA", str(data_dir))
    case = network((8,), 128, train_limit=100)
    with Alternation(pairs=1) as bench:
        (figure,) = speed.augment(bench, case)
        assert figure.values
        assert len(bench.first_epoch_seconds) == 2


@pytest.mark.faults
def test_a_short_run_prints_the_table_and_writes_json(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_DATA", str(data_dir))
    options = ["speed", "--only", "fit", "--images", "300", "--pairs", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks", *options]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    fit, epoch = result["figures"]
    assert fit["n"] == 2
    assert fit["values"] == pytest.approx([b / a for a, b in zip(fit["ours"], fit["theirs"], strict=True)])
    assert epoch["values"] == fit["ours"]
    assert len(result["first_epoch_seconds"]) == 2
    assert {"cpu", "cores", "flags", "versions", "revision", "date"} <= result["machine"].keys()
    assert "| images/s over model.fit " in printed


def test_a_simulated_search_keeps_its_workers_busy(tmp_path: Path) -> None:
    outcome = simulate(tmp_path / "new", simulated("asha", 8, 2), workers=4, epoch_seconds=0.1, spread=0.5)
    assert 0 < outcome.busy < 1
    assert outcome.chief > 0
    assert 0 < outcome.end < 10
    assert outcome.calls > 0
    assert outcome.files > 0
    assert outcome.memory > 2**20
    assert outcome.memory > outcome.before > 2**20
    assert outcome.handles > 4
    # Each trial's file and folder.
    assert outcome.volume >= 8 * 2 * 2**12
