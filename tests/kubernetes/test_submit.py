"""`make submit|status|logs|cancel CLUSTER=kubernetes`: what is refused, and what kubectl is called for.

There is no API server here. A stand-in for kubectl notes its calls, and renders what it is to apply.
"""

import os
import shutil
import sys
from pathlib import Path

import clusters
import pytest
from processes import Ended, program

pytestmark = pytest.mark.kubernetes

IMAGE = "IMAGE=registry.example/fmnist:1"
KUBECTL = """#!{python}
import os, subprocess, sys
with open({calls!r}, "a") as file:
    print(*sys.argv[1:], file=file)
if "jobset/run-jobs" in sys.argv and "get" in sys.argv:
    print(end=os.environ.get("STATE_OF_JOBSET", ""))
if "apply" in sys.argv:
    subprocess.run([{kubectl!r}, "kustomize", sys.argv[-1]], check=True, stdout=subprocess.DEVNULL)
"""


def make(verb: str, results: Path, *variables: str) -> Ended:
    return clusters.make(verb, results, "CLUSTER=kubernetes", "FMNIST_DATA=", *variables)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in first in PATH; return the file of the calls that it gets."""
    calls = tmp_path / "calls"
    text = KUBECTL.format(python=sys.executable, calls=str(calls), kubectl=shutil.which("kubectl"))
    program(tmp_path / "kubectl", text)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return calls


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ([IMAGE, "RECIPE=smok"], "did you mean 'smoke'?"),
        ([IMAGE, "WORKERS=two"], "--workers: invalid int value: 'two'"),
        ([IMAGE, "RUN=My_Run"], "lower-case letters"),
        ([IMAGE, "OVERLAY=plain"], "OVERLAY=plain is not known; use one of jobset, kueue\n"),
        ([IMAGE, "QUEUE=team"], "needs OVERLAY=kueue"),
        ([IMAGE, "RUN=1st"], "the first a letter"),
        ([IMAGE, "DATA=elsewhere"], "the data set in IMAGE"),
        ([], "needs IMAGE"),
        ([IMAGE, "KUBECONFIG=/dev/null"], "kubectl version: "),
    ],
)
def test_what_is_wrong_here_is_not_submitted(variables: list[str], reason: str, tmp_path: Path) -> None:
    result = make("submit", tmp_path, *variables)
    assert "Error 64" in result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_submit_asks_the_cluster_before_it_applies_anything(calls: Path, tmp_path: Path) -> None:
    result = make("submit", tmp_path / "results", IMAGE)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "results" / "run" / "jobs" / "kubernetes"
    assert calls.read_text().splitlines() == [
        "get persistentvolumeclaim/fmnist-results",
        "get jobset/run-jobs --output=jsonpath={.status.terminalState}",
        f"apply --dry-run=server --kustomize {folder}",
        f"apply --kustomize {folder}/tensorboard",
        f"apply --kustomize {folder}",
    ]


def test_what_has_ended_makes_room_for_what_is_submitted_again(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_OF_JOBSET", "Completed")
    assert make("submit", tmp_path / "results", IMAGE).returncode == 0
    verbs = [line.split()[0] for line in calls.read_text().splitlines()]
    assert verbs == ["get", "get", "delete", "apply", "apply", "apply"]
    assert "delete jobset/run-jobs --cascade=foreground" in calls.read_text()


def test_status_logs_and_cancel_are_of_this_run(calls: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert make("cancel", results).returncode == 2
    assert make("submit", results, IMAGE, "NAMESPACE=team-a").returncode == 0
    for verb in ("status", "logs", "cancel"):
        before = len(calls.read_text().splitlines())
        assert make(verb, results, IMAGE, "NAMESPACE=team-a").returncode == 0
        made = calls.read_text().splitlines()[before:]
        assert made
        assert all(line.endswith(f"{results}/run/jobs/kubernetes") or "instance=run" in line for line in made)
        assert all("--namespace team-a" in line for line in made)
