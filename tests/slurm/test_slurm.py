"""`make submit CLUSTER=slurm` on a real cluster of two nodes, from the submission to the report."""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clusters
import numpy as np
import pytest
import searching
from clusters import IMAGE, need_image, podman
from conftest import COMPLETE
from processes import ROOT, program

pytestmark = pytest.mark.slurm

SHORT = "data.train_limit=2000 search.epochs=1 training.epochs=1"
ENDLESS = "data.train_limit=2000 search.epochs=100000 training.early_stopping.patience=100000"
until = functools.partial(searching.until, seconds=120, pause=0.1)
TRAINED = COMPLETE - {"trials.csv", "best.json"}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # Not pytest's folder, which is root's alone: the nodes' users read the configuration.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        script = [Path(__file__).parent / "cluster.sh"]
        os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
        try:
            subprocess.run([*script, "start", folder], check=True)
            yield
        finally:
            subprocess.run([*script, "stop", folder], check=True)
            del os.environ["SLURM_CONF"]


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for run in tmp_path.glob("*/jobs/slurm.json"):
        subprocess.run(["scancel", "--quiet", *json.loads(run.read_bytes()).values()], check=True)
    until_idle()


def make(verb: str, results: Path, *variables: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return clusters.make(verb, results, "CLUSTER=slurm", *variables, **options)


def submit(results: Path, *variables: str, **options: Any) -> dict[str, str]:
    """Submit, and return the jobs' ids."""
    result = make("submit", results, *variables, **options)
    assert result.returncode == 0, result.stderr
    ids: dict[str, str] = json.loads((results / "run" / "jobs" / "slurm.json").read_bytes())
    assert all(number in result.stdout for name, number in ids.items() if name != "end")
    return ids


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def facts(job: str) -> str:
    return slurm("scontrol", "show", "job", "--oneliner", job)


def state(job: str) -> str:
    """Of a job, or of all the elements of an array."""
    return " ".join(sorted(set(re.findall(r" JobState=(\w+)", facts(job)))))


def start_soon(job: str, *changes: str) -> None:
    """A job that went back into the queue, which Slurm would let wait for two minutes."""
    until(lambda: state(job) == "PENDING")
    # Not within the second of its end: slurmd has revoked the credentials up to then, and would kill it.
    slurm("scontrol", "update", f"JobId={job}", *changes, "StartTime=now+3")


def until_idle(seconds: float = 120) -> None:
    until(lambda: not slurm("squeue", "--noheader"), seconds=seconds)


def log(results: Path, name: str) -> str:
    path = results / "run" / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""


def logs(results: Path) -> str:
    return "".join(path.read_text() for path in results.glob("run/logs/*"))


def processes(results: Path) -> list[str]:
    """What still runs on behalf of a run in `results`, in a container or not."""
    found = subprocess.run(["pgrep", "--full", "--list-full", f"fmnist .*{results}"], capture_output=True, text=True)
    containers = (
        podman("ps", "--all", "--filter=name=^fmnist-[0-9]+$", "--format={{.Names}}") if shutil.which("podman") else ""
    )
    return found.stdout.splitlines() + containers.splitlines()


def environments(results: Path) -> dict[str, dict[str, str]]:
    """Of the processes of the run in `results`, without a container, by role or job."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text().split("\0")
            if command[1:3] == ["-m", "fmnist"] and str(results / "run") in command:
                variables = dict(line.split("=", 1) for line in (folder / "environ").read_text().split("\0")[:-1])
                found[variables.get("KERASTUNER_TUNER_ID", command[3])] = variables
    return found


def assert_complete(results: Path, files: set[str] = COMPLETE) -> None:
    until_idle(300)
    ids = json.loads((results / "run" / "jobs" / "slurm.json").read_bytes())
    assert {path.name for path in (results / "run").iterdir()} >= files, "\n".join(map(facts, ids.values()))
    assert processes(results) == []


@pytest.fixture(params=["none", "podman"])
def runtime(request: pytest.FixtureRequest) -> list[str]:
    """The variables that name it."""
    if request.param == "none":
        return []
    need_image()
    return [f"RUNTIME={request.param}", f"IMAGE={IMAGE}"]


def test_the_pipeline_ends_in_a_complete_run_folder(results: Path, runtime: list[str]) -> None:
    ids = submit(results, "WORKERS=3", f"SET={SHORT}", "TIME=10", "MEMORY=1G", "PARTITION=debug", *runtime)
    assert re.search(rf"{ids['train']} +train +PENDING .*Dependency", make("status", results).stdout)
    assert "afterok" in facts(ids["train"])
    assert_complete(results)
    assert {state(job) for job in ids.values()} == {"COMPLETED"}
    workers = [re.findall(r" on (n\d), GPUs (\d): ", log(results, f"worker-{number}"))[0] for number in range(3)]
    # Each worker has a GPU that no other has.
    assert len(set(workers)) == 3
    assert {node for node, _ in workers} == {"n1", "n2"}
    assert "TimeLimit=00:10:00" in facts(ids["workers"])
    assert "worker-0.log" in make("logs", results).stdout
    status = make("status", results).stdout
    assert re.search(rf"{ids['report']} +report +COMPLETED", status)
    assert "3 of 3 trials done" in status
    token = results / "run" / "jobs" / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() not in logs(results)


def test_a_worker_that_is_cancelled_in_mid_trial_leaves_it_to_the_others(results: Path) -> None:
    long = "data.train_limit=2000 search.epochs=150 training.epochs=1 training.early_stopping.patience=1000"
    ids = submit(results, "WORKERS=2", "TRIALS=2", f"SET={long}")
    until(lambda: "epoch   3/" in log(results, "worker-0"))
    slurm("scancel", f"{ids['workers']}_0")
    assert_complete(results)
    assert state(ids["chief"]) == "COMPLETED"
    # It ended at once, and has not come back.
    assert "SIGTERM: stopping" in log(results, "worker-0")
    assert "back into the queue" not in log(results, "worker-0")
    assert "goes to the next worker" in log(results, "chief")


def test_without_its_chief_the_pipeline_ends(results: Path) -> None:
    ids = submit(results, "WORKERS=2", f"SET={ENDLESS}")
    until(lambda: all("epoch      3/" in log(results, f"worker-{number}") for number in range(2)))
    workers = [environments(results)[f"worker-{number}"] for number in range(2)]
    assert len({(worker["SLURMD_NODENAME"], worker["CUDA_VISIBLE_DEVICES"]) for worker in workers}) == 2
    assert {worker["CUDA_VISIBLE_DEVICES"] for worker in workers} <= {"0", "1"}
    slurm("scancel", ids["chief"])
    until_idle()
    assert state(ids["workers"]) == "CANCELLED"
    assert state(ids["train"]) == state(ids["eval"]) == "CANCELLED"
    assert processes(results) == []
    assert "back into the queue" not in logs(results)


def test_workers_of_one_job_share_its_gpu(results: Path) -> None:
    program(results / "tools" / "nvidia-smi", "#!/bin/sh\necho GPU 0; echo GPU 1\n")
    path = f"{results / 'tools'}:{os.environ['PATH']}"
    ids = submit(results, "WORKERS=4", "WORKERS_PER_GPU=2", f"SET={ENDLESS}", PATH=path)
    four = [f"worker-{job}-{number}" for job in range(2) for number in range(2)]
    until(lambda: environments(results).keys() >= {"chief", *four})
    until(lambda: all("epoch      3/" in log(results, f"worker-{job}") for job in range(2)))
    found = environments(results)
    gpus = [(found[name]["SLURMD_NODENAME"], found[name]["CUDA_VISIBLE_DEVICES"]) for name in four]
    assert gpus[0] == gpus[1] != gpus[2] == gpus[3]
    assert {gpu for _, gpu in gpus} <= {"0", "1"}
    for job in range(2):
        slurm("scancel", "--batch", "--signal=USR2", f"{ids['workers']}_{job}")
    until(lambda: all("interrupted; back into the queue" in log(results, f"worker-{job}") for job in range(2)))
    assert all("SIGUSR2: stopping" in log(results, f"worker-{job}") for job in range(2))
    assert make("cancel", results, f"SET={ENDLESS}").returncode == 0
    assert processes(results) == []


def test_cancel_leaves_nothing(results: Path, runtime: list[str]) -> None:
    submit(results, "WORKERS=2", f"SET={ENDLESS}", *runtime)
    until(lambda: "epoch      3/" in log(results, "worker-1"))
    again = make("submit", results, f"SET={ENDLESS}")
    assert again.returncode == 2
    assert "is in the queue already, as jobs" in again.stderr
    result = make("cancel", results, f"SET={ENDLESS}")
    assert result.returncode == 0, result.stderr
    assert slurm("squeue", "--noheader") == ""
    assert processes(results) == []
    assert "back into the queue" not in logs(results)


OTHERS = {
    "KERASTUNER_TUNER_ID": "worker-7",
    "KERASTUNER_ORACLE_IP": "192.0.2.1",
    "FMNIST_TOKEN": "another",
    "PMIX_RANK": "0",
    "SBATCH_WAIT": "1",
    "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_ERROR": "elsewhere",
    "SBATCH_PARTITION": "debug",
    "SQUEUE_STATES": "SUSPENDED",
    "SCANCEL_STATE": "SUSPENDED",
    "BASH_ENV": "no-such-file",
    "PYTHONPATH": "no-such-folder",
    "XDG_RUNTIME_DIR": "no-such-folder",
}
"""Of a search that the submission is part of, of a user of Slurm's commands, and of a site."""


def test_a_job_submits(results: Path) -> None:
    """Its variables would have `srun` refuse to start: by SLURM_MEM_PER_CPU and SLURM_CPU_BIND, for two."""
    job = ["srun", "--mem-per-cpu=200M", "--cpus-per-task=2", "--gres=gpu:1", "--cpu-bind=none"]
    ids = submit(results, "WORKERS=2", "MEMORY=1G", f"SET={ENDLESS}", become=job, **OTHERS)
    until(lambda: all("epoch      3/" in log(results, f"worker-{number}") for number in range(2)))
    found = environments(results)
    assert found.keys() == {"chief", "worker-0", "worker-1"}
    for name, variables in found.items():
        assert variables["SLURM_JOB_NAME"] == ("chief" if name == "chief" else "workers")
        assert "SLURM_MEM_PER_CPU" not in variables
        assert {"FMNIST_TOKEN", "PMIX_RANK", "PYTHONPATH", "XDG_RUNTIME_DIR"} & variables.keys() == set()
    assert found["chief"]["CUDA_VISIBLE_DEVICES"] == "-1"
    result = make("submit", results, f"SET={ENDLESS}", **OTHERS)
    assert f"in the queue already, as jobs {ids['chief']}" in result.stderr
    assert make("cancel", results, f"SET={ENDLESS}", become=job, **OTHERS).returncode == 0
    assert {state(number) for number in ids.values()} <= {"CANCELLED", "COMPLETED"}
    assert processes(results) == []


# A training of a minute.
FIXED = ("RECIPE=baseline-mlp", "SET=data.train_limit=2000 training.epochs=600")


def test_a_training_that_its_time_limit_ends_goes_on_to_the_same_weights(results: Path, tmp_path: Path) -> None:
    import keras

    # Slurm looks at the limits twice a minute, so the training takes longer on a fast machine, too.
    of = ("data.train_limit=2000", "training.epochs=1500")
    ids = submit(results, "RECIPE=baseline-mlp", f"SET={' '.join(of)}", "TIME=30")
    until(lambda: re.search(r"epoch +20/", log(results, "train")))
    # The signal comes two minutes before the limit: soon, if less is left.
    minutes = int(re.findall(r" RunTime=00:(\d\d)", facts(ids["train"]))[0]) + 2
    slurm("scontrol", "update", f"JobId={ids['train']}", f"TimeLimit={minutes}")
    until(lambda: "SIGUSR2: stopping" in log(results, "train"))
    until(lambda: "Restarts=1" in facts(ids["train"]))
    start_soon(ids["train"], "TimeLimit=30")
    assert_complete(results, TRAINED)
    assert state(ids["train"]) == "COMPLETED"
    text = log(results, "train")
    assert text.count("interrupted; back into the queue") == 1
    options = ["--recipe=baseline-mlp", *(f"--set={one}" for one in of)]
    command = [sys.executable, "-m", "fmnist", "train", *options, f"--run={tmp_path}/whole"]
    subprocess.run(command, check=True, capture_output=True)
    weights, whole = (keras.models.load_model(tmp_path / run / "model.keras").get_weights() for run in ("run", "whole"))
    assert all(np.array_equal(one, other) for one, other in zip(weights, whole, strict=True))


def test_a_training_that_is_preempted_goes_on_later(results: Path) -> None:
    ids = submit(results, *FIXED, "SET=data.train_limit=2000 training.epochs=600", "PARTITION=debug")
    until(lambda: re.search(r"epoch +20/", log(results, "train")))
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    preemptor = slurm("sbatch", "--parsable", *urgent)
    until(lambda: state(preemptor) == "COMPLETED")
    start_soon(ids["train"])
    assert_complete(results, TRAINED)
    assert "Restarts=1" in facts(ids["train"])
    assert "SIGTERM: stopping" in log(results, "train")


def test_a_worker_waits_in_the_queue_for_its_chief(results: Path) -> None:
    """Else it would use up its ways back into the queue while the chief is there: ten minutes of patience each."""
    long = "data.train_limit=2000 search.epochs=600 training.epochs=1 training.early_stopping.patience=1000"
    ids = submit(results, "WORKERS=1", "TRIALS=1", f"SET={long}")
    until(lambda: "epoch   3/" in log(results, "worker-0"))
    slurm("scontrol", "requeuehold", ids["chief"])
    until(lambda: "PENDING" in state(ids["chief"]) and "SIGTERM: stopping" in log(results, "chief"))
    slurm("scancel", "--batch", "--signal=USR2", f"{ids['workers']}_0")
    until(lambda: "Reason=Dependency" in facts(ids["workers"]))
    slurm("scontrol", "release", ids["chief"])
    start_soon(ids["chief"])
    start_soon(ids["workers"])
    assert_complete(results)
    assert "Restarts=1" in facts(ids["workers"])


def test_the_way_back_into_the_queue_is_bounded(results: Path) -> None:
    ids = submit(results, *FIXED, "REQUEUES=0")
    until(lambda: re.search(r"epoch +20/", log(results, "train")))
    # All GPUs of its node, though it asks for a node with one.
    assert environments(results)["train"]["CUDA_VISIBLE_DEVICES"] == "0,1"
    slurm("scancel", "--batch", "--signal=USR2", ids["train"])
    until(lambda: state(ids["train"]) == "FAILED")
    assert "ExitCode=75:0" in facts(ids["train"])
    until(lambda: state(ids["eval"]) == "CANCELLED")


def test_an_impossible_request_is_refused_with_the_reason(results: Path) -> None:
    result = make("submit", results, "GPUS_PER_WORKER=8")
    assert result.returncode == 2
    assert "Slurm refuses the job workers: Batch job submission failed: Requested node conf" in result.stderr
    assert "Traceback" not in result.stderr
    assert slurm("squeue", "--noheader") == ""
    assert not (results / "run").exists()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (["RECIPE=smok"], "did you mean 'smoke'?"),
        (["SET=training.epoch=3"], "did you mean 'training.epochs'?"),
        (["RUN=my run"], "RUN=my run"),
        (["TIME=2"], "give 5 at least"),
        (["WORKERS=two"], "--workers: invalid int value: 'two'"),
        (["WORKERS=3", "WORKERS_PER_GPU=2"], "WORKERS=3 is no multiple of WORKERS_PER_GPU=2"),
        (["WORKERS=2", "WORKERS_PER_GPU=2", "GPUS_PER_WORKER=2"], "workers that have several GPUs share none"),
        (["RUNTIME=docker"], "use one of none, podman, apptainer, pyxis"),
        (["RUNTIME=podman"], "needs IMAGE"),
        (["DATA=no-such-folder"], "no-such-folder"),
    ],
)
def test_what_is_wrong_here_is_not_submitted(variables: list[str], reason: str, results: Path) -> None:
    before = slurm("scontrol", "show", "jobs", "--oneliner")
    result = make("submit", results, *variables)
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert slurm("scontrol", "show", "jobs", "--oneliner") == before
    assert list(results.iterdir()) == []


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, with this work tree and an environment as `tree`, `venv`.

    The genuine ones may be below a home that is root's alone.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as mounted:
        folder = Path(name)
        folder.chmod(0o755)
        for link, source in {"tree": ROOT, "base": sys.base_prefix, "packages": sysconfig.get_path("purelib")}.items():
            (folder / link).mkdir()
            subprocess.run(["mount", "--bind", str(source), str(folder / link)], check=True)
            mounted.callback(subprocess.run, ["umount", str(folder / link)], check=True)
        base = folder / "base" / "bin" / Path(sys.executable).resolve().name
        subprocess.run([base, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        (packages,) = folder.glob("venv/lib/python*/site-packages")
        (packages / "these.pth").write_text(f"{folder}/packages\n")
        yield folder


def test_an_ordinary_user_submits(public: Path, data_dir: Path) -> None:
    results = public / "results"
    results.mkdir()
    shutil.chown(results, "nobody")
    here = [f"BIN={public}/venv/bin"]
    data = f"DATA={shutil.copytree(data_dir, public / 'data')}"
    # Python itself may name its library by the place that this user cannot see, and find the system's instead.
    become = ["runuser", "-u", "nobody", "--", "env", f"LD_LIBRARY_PATH={public}/base/lib"]
    ids = submit(results, "TRIALS=1", f"SET={SHORT}", data, *here, become=become, tree=public / "tree")
    assert "UserId=nobody" in facts(ids["chief"])
    assert_complete(results)
    assert {path.owner() for path in results.rglob("*")} == {"nobody"}


def test_a_search_that_fails_stops_the_pipeline(results: Path) -> None:
    ids = submit(results, 'SET=search.trials=1 search.space={"training.learning_rate"={values=[1e30]}}')
    until_idle()
    assert "ExitCode=1:0" in facts(ids["chief"])
    assert [state(ids[name]) for name in ("train", "eval", "report")] == ["CANCELLED"] * 3
    assert not (results / "run" / "model.keras").exists()


def test_workers_with_bad_input_are_not_requeued_and_end_the_search(
    results: Path, tmp_path: Path, data_dir: Path
) -> None:
    shutil.copytree(data_dir, tmp_path / "data")
    ids = submit(results, "WORKERS=2", f"SET={SHORT}", f"DATA={tmp_path}/data")
    # Long before a worker has imported what it reads the data with.
    shutil.rmtree(tmp_path / "data")
    until_idle()
    assert set(re.findall(r"ExitCode=(\S+)", facts(ids["workers"]))) == {"64:0"}, logs(results)
    assert set(re.findall(r"Restarts=(\d)", facts(ids["workers"]))) == {"0"}
    assert state(ids["chief"]) == state(ids["train"]) == "CANCELLED"
