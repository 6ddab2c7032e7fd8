"""Values and names of any characters: none is shell, make, a pattern or markup to what they pass through."""

import csv
import functools
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from processes import ROOT, Ended, program
from rich.console import Console

from fmnist import progress
from fmnist.errors import BadInput
from fmnist.run.folder import RunDir
from jobs import containers
from jobs.kubernetes import submitter as kubernetes
from jobs.pipeline import Pipeline, Site
from jobs.slurm import submitter

PUBLIC = re.findall(r"^([A-Z0-9_]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)

HOSTILE = [
    "it's",
    '"quoted"',
    "''",
    "a;touch made",
    "a|touch made&touch made",
    "`touch made`",
    "$(touch made)",
    "$(shell touch made)",
    "$$(touch made) ${HOME} $HOME $",
    "'$(touch made)'",
    "%A %s %% %",
    "a,b:c",
    "[*?]{x,y}~!",
    "#comment",
    "-leading",
    "--run=elsewhere",
    "two words  (and more)",
    "back\\slash\\",
    "<in >made",
    "straße-日本",
    "\x1b[1m",
]

ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"


def make(tmp_path: Path, goal: str, *variables: str) -> Ended:
    """With programs that print their arguments in place of fmnist, of the clusters' commands and of TensorBoard."""
    show = program(tmp_path / "show", f"#!{sys.executable} -IS\n{ARGUMENTS}\n")
    programs = [f"{name}={show}" for name in ("FMNIST", "ON_CLUSTER", "TENSORBOARD")]
    own = ["READY=", "ENVIRONMENT=", "TENSORFLOW=cpu", *programs]
    return processes.make("-f", f"{ROOT}/Makefile", goal, *own, *variables, tree=tmp_path)


def arguments(tmp_path: Path, goal: str, *variables: str) -> list[str]:
    """What the last command of the goal is given."""
    done = make(tmp_path, goal, *variables)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert not (tmp_path / "made").exists()
    return found


@pytest.mark.parametrize("value", HOSTILE)
def test_make_hands_every_value_on_as_it_stands(value: str, tmp_path: Path) -> None:
    names = ["RECIPE", "SEED", "RUN", "RESULTS", "DATA", "TRIALS", "WORKERS", "GPUS_PER_WORKER", "CLUSTER"]
    names += [
        "WORKERS_PER_GPU",
        "IMAGE",
        "TIME",
        "MEMORY",
        "CPUS",
        "RUNTIME",
        "ACCOUNT",
        "PARTITION",
        "REQUEUES",
        "OVERLAY",
        "NAMESPACE",
        "QUEUE",
    ]
    found = arguments(tmp_path, "submit", *(f"{name}={value}" for name in names))
    folder = f"./{value}" if value.startswith("-") else value
    assert found[0] == "submit"
    given = dict(argument.removeprefix("--").split("=", 1) for argument in found[1:])
    assert given.pop("run") == f"{folder}/{value}"
    options = {name.lower().replace("_", "-") for name in names[:10]} - {"run", "results"} | set(names[10:])
    assert given == dict.fromkeys(options, value)
    for goal in ("report", "eval", "tensorboard"):
        words = arguments(tmp_path, goal, f"RESULTS={value}", f"RUN={value}")
        assert words[-1] == (folder if goal == "tensorboard" else f"{folder}/{value}")


@pytest.mark.parametrize("value", [value for value in HOSTILE if "/" not in value])
def test_a_run_is_named_after_its_recipe_whatever_that_is_called(value: str, tmp_path: Path) -> None:
    run = arguments(tmp_path, "train", f"RECIPE=my folder/{value}.toml")[3]
    # For make two spaces are one.
    assert re.sub(" +", " ", run) == re.sub(" +", " ", f"--run=results/{value}-seed0")


@pytest.mark.parametrize("name", PUBLIC)
def test_no_variable_is_a_command(name: str, tmp_path: Path) -> None:
    """All that make would do, by a shell to which every program is `:`."""
    made = tmp_path / "made"
    goals = ["setup", "all", "submit", "image", "tensorboard", "chaos", "tour", "test-it"]
    goals += [] if name == "SET" else ["evidence"]
    for value in (f"';touch {made};`touch {made}`$(touch {made})#", f"$(shell touch {made})"):
        done = processes.make("--dry-run", *goals, "VENV=none", "TENSORFLOW=cpu", f"{name}={value}")
        assert not made.exists()
        if name == "PYTHON3":
            # It is asked what `auto` is.
            asked = processes.make("--dry-run", "all", "ENGINE=auto", f"{name}={value}")
            assert asked.returncode == 2
            assert "no ENGINE was found" in asked.stderr
            assert not made.exists()
        if name == "ENGINE":
            assert done.returncode == 2
            assert re.fullmatch(r".*ENGINE=.* is not known; use auto, docker, podman or local\.  Stop\.\n", done.stderr)
            continue
        assert done.returncode == 0, done.stderr
        lines = done.stdout.replace("\\\n", " ").replace("; exit 1; }", "").splitlines()
        script = "\n".join(": " + re.sub(r"\|\|\s*\{", "; :", line) for line in lines)
        subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True)
        assert not made.exists(), script


@pytest.mark.parametrize("name", PUBLIC)
def test_a_line_break_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    done = make(tmp_path, "train", f"{name}=a\ntouch made")
    assert done.returncode == 2
    assert f"{name} has a line break in it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        ("training.epochs=5 training.batch_size=256", ["training.epochs=5", "training.batch_size=256"]),
        ("model.hidden=[1, 2]", ["model.hidden=[1, 2]"]),
        ("model.hidden=[1, 2]  training.epochs=5", ["model.hidden=[1, 2]", "training.epochs=5"]),
        ("model.hidden = [1, 2]", ["model.hidden = [1, 2]"]),
        (
            'search.space."training.learning_rate"={ min=1e-4, max = 1e-2 } training.epochs=1',
            ['search.space."training.learning_rate"={ min=1e-4, max = 1e-2 }', "training.epochs=1"],
        ),
        ('description="it\'s $(x); y = 1.5" data.x=1', ['description="it\'s $(x); y = 1.5"', "data.x=1"]),
        ("=1.5", ["=1.5"]),
        ("-x", ["-x"]),
    ],
)  # fmt: skip
def test_an_override_begins_with_a_key(given: str, overrides: list[str], tmp_path: Path) -> None:
    found = arguments(tmp_path, "train", f"SET={given}")
    assert [word.removeprefix("--set=") for word in found if word.startswith("--set=")] == overrides
    assert len(found) == 4 + len(overrides)


@pytest.mark.parametrize("value", HOSTILE)
def test_an_engine_mounts_the_folder_of_that_name(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / value
    (folder / "data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    given = ["--engine=docker", "train", f"--run=./{value}/run", "--data=data"]
    *mounts, workdir = containers._mounts(containers._parse(given))
    # As Docker and Podman read it.
    read = [next(csv.reader([option.removeprefix("--mount=")])) for option in mounts]
    assert read == [
        ["type=bind", f"source={folder}/data", f"target={folder}/data", "readonly"],
        ["type=bind", f"source={folder}/{value}", f"target={folder}/{value}"],
        ["type=tmpfs", f"target={folder}", "tmpfs-mode=0555"],
    ]
    assert workdir == f"--workdir={folder}"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm, and what it starts jobs with, of which each command only writes down its arguments and the mounts."""
    log = tmp_path / "log"
    folder = tmp_path / "bin"
    code = "import json, os, sys; print(json.dumps([*sys.argv, os.environ.get('FMNIST_MOUNTS')]), file=open(%r, 'a'))"
    for name, output in {"sbatch": "7", "squeue": "", "scancel": "", "srun": "", "podman": "0"}.items():
        program(folder / name, f"#!{sys.executable} -IS\n{code % str(log)}\nprint({output!r})\n")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return log


def written(log: Path, command: str) -> list[list[str]]:
    """The arguments of each call of a command."""
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    return [call[1:] for call in calls if Path(call[0]).name == command]


@pytest.mark.parametrize("value", HOSTILE)
def test_slurm_s_jobs_log_and_mount_where_they_are_told(value: str, tmp_path: Path, slurm: Path) -> None:
    data = tmp_path / value / "data"
    pipeline = Pipeline(RunDir(tmp_path / value / "run"), "smoke", 0, data=data)
    submit = functools.partial(submitter._submit, pipeline)
    pipeline.state.mkdir(parents=True)
    folders = [str(pipeline.run.path), str(data)]
    for runtime, start in {"podman": "podman", "apptainer": "srun"}.items():
        submit(Site(image="image", runtime=runtime), {})
        calls = written(slurm, "sbatch")
        outputs = [word for call in calls for word in call if word.startswith("--output=/") and "null" not in word]
        assert "--output=" + str(pipeline.logs).replace("%", "%%") + "/worker-%a.log" in outputs
        assert {output.replace("%%", "")[9:].count("%") for output in outputs} == {0, 1}
        job = {"FMNIST_RUNTIME": runtime, "FMNIST_MOUNTS": calls[0][-1], "FMNIST_IMAGE": "image", "SLURM_JOB_ID": "7"}
        job |= {"FMNIST_VARIABLES": "", "SLURM_JOB_NAME": "x", "SLURMD_NODENAME": "n", "SLURM_CPUS_ON_NODE": "1"}
        script = f"set -eu; source {ROOT}/jobs/slurm/common.sh; run train"
        subprocess.run(["bash", "-c", script], env={**os.environ, **job}, check=True, capture_output=True)
        found = next(call for call in written(slurm, start) if "fmnist" in call)
        mounts = [next(csv.reader([word.removeprefix("--mount=")])) for word in found if word.startswith("--mount=")]
        assert mounts == [["type=bind", f"source={folder}", f"target={folder}"] for folder in folders]
    pyxis = Site(image="image", runtime="pyxis")
    if re.search("[,: ]", value):
        with pytest.raises(BadInput, match="pyxis cannot mount"):
            submit(pyxis, {})
    else:
        submit(pyxis, {})
        assert written(slurm, "sbatch")[0][-1] == ",".join(f"{folder}:{folder}" for folder in folders)


def test_slurm_is_given_no_log_that_it_would_not_number(tmp_path: Path, slurm: Path) -> None:
    with pytest.raises(BadInput, match="in a path with a backslash"):
        submitter.submit(Pipeline(RunDir(tmp_path / "a\\b" / "run"), "smoke", 0), Site())


def test_kubernetes_is_given_no_variables_and_no_recipe_that_it_cannot_hold(tmp_path: Path) -> None:
    site = Site(image="image")
    (tmp_path / "a=b.toml").touch()
    with pytest.raises(BadInput, match="in the file's name"):
        kubernetes.render(Pipeline(RunDir(tmp_path / "run"), str(tmp_path / "a=b.toml"), 0), site, tmp_path / "k")
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", 0, overrides=['description="$(FMNIST_TOKEN)"'])
    values = kubernetes._values("train", pipeline, site)
    assert 'description="$$(FMNIST_TOKEN)"' in values["/template/spec/containers/0/args"]


@pytest.mark.parametrize("name", ["[/x]", "[bold]", "[link=x]y[/link]", ":smile:", *HOSTILE[:-1]])
def test_a_table_shows_a_name_as_it_is(name: str) -> None:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as shown:
        console.print(progress.table([progress.Column("run", [name])], 200))
    assert shown.get().splitlines()[1].startswith(name)
