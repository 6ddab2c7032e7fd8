"""`make submit CLUSTER=kubernetes`: what is refused before anything is applied, and the order of plain Jobs.

There is no API server here. For the order, a stand-in for kubectl plays one whose jobs end as soon as they may run.
"""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import clusters
import pytest

pytestmark = pytest.mark.kubernetes

IMAGE = "IMAGE=registry.example/fmnist:1"
SERVER = """#!{python}
import json, pathlib, subprocess, sys
folder = pathlib.Path({folder!r})
arguments = sys.argv[1:]
with (folder / "calls").open("a") as file:
    print(*arguments, file=file)
running = folder / "running"
if arguments[0] == "apply":
    subprocess.run([{kubectl!r}, "kustomize", arguments[-1]], check=True, stdout=subprocess.DEVNULL)
    if "--dry-run=server" not in arguments:
        running.write_text("run-chief run-workers")
elif arguments[0] == "patch" and json.loads(arguments[-1]) == {{"spec": {{"suspend": False}}}}:
    running.write_text(running.read_text() + " " + arguments[1].removeprefix("job/"))
elif arguments[:2] == ["get", "jobs"]:
    items = []
    for name in running.read_text().split() if running.exists() else []:
        end = "Failed" if name == {failing!r} else "Complete"
        if (name, {failing!r}) == ("run-chief", "run-workers"):
            continue  # without workers it waits
        conditions = [{{"type": end, "status": "True", "message": "by design"}}]
        items.append({{"metadata": {{"name": name}}, "status": {{"conditions": conditions}}}})
    print(json.dumps({{"items": items}}))
"""


def make(verb: str, results: Path, *variables: str) -> "subprocess.CompletedProcess[str]":
    return clusters.make(verb, results, "CLUSTER=kubernetes", "FMNIST_DATA=", *variables)


def server(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Path:
    """Put the stand-in first in PATH; return the file of the calls that it gets."""
    program = folder / "kubectl"
    text = SERVER.format(python=sys.executable, folder=str(folder), kubectl=shutil.which("kubectl"), failing=failing)
    program.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "calls"


def changes(calls: Path) -> list[str]:
    return [line for line in calls.read_text().splitlines() if line.startswith("patch")]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ([IMAGE, "RECIPE=smok"], "did you mean 'smoke'?"),
        ([IMAGE, "RUN=My_Run"], "lower-case letters"),
        ([IMAGE, "OVERLAY=helm"], "use one of jobset, kueue, plain"),
        ([IMAGE, "QUEUE=team"], "needs OVERLAY=kueue"),
        ([IMAGE, "RUN=1st"], "the first a letter"),
        ([IMAGE, "DATA=elsewhere"], "the data set in IMAGE"),
        ([], "needs IMAGE"),
        ([IMAGE, "KUBECONFIG=/dev/null"], "kubectl version: "),
    ],
)
def test_what_is_wrong_here_is_not_submitted(variables: list[str], reason: str, tmp_path: Path) -> None:
    result = make("submit", tmp_path, *variables)
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_each_plain_job_starts_when_the_one_before_has_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = server(tmp_path, monkeypatch)
    result = make("submit", tmp_path / "results", IMAGE, "OVERLAY=plain")
    assert result.returncode == 0, result.stderr
    resume = '--patch {"spec": {"suspend": false}}'
    order = [f"patch job/run-{job} {resume}" for job in ("train", "eval", "report")]
    assert changes(calls) == order
    # To apply them again would suspend what runs.
    assert make("submit", tmp_path / "results", IMAGE, "OVERLAY=plain").returncode == 0
    assert changes(calls) == order * 2
    applied = [line for line in calls.read_text().splitlines() if line.startswith("apply --kustomize")]
    assert len(applied) == 2


@pytest.mark.parametrize("failing", ["chief", "workers"])
def test_a_search_that_fails_stops_the_plain_jobs(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = server(tmp_path, monkeypatch, failing=f"run-{failing}")
    result = make("submit", tmp_path / "results", IMAGE, "OVERLAY=plain")
    assert result.returncode == 2
    assert f"the job {failing} failed: by design" in result.stderr
    assert [line for line in changes(calls) if "false" in line] == []
    stopped = {"train", "eval", "report"} | ({"chief"} if failing == "workers" else set())
    assert {line.split()[1] for line in changes(calls)} == {f"job/run-{job}" for job in stopped}


def test_status_logs_and_cancel_are_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = server(tmp_path, monkeypatch)
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
