"""What a site, a login or other work has set in the environment, where fmnist is started from: make, git, Slurm."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fmnist import revision
from fmnist.run.folder import RunDir
from jobs.pipeline import Pipeline
from jobs.slurm.environment import inherited

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
NAMES = sorted({*re.findall(r"^([A-Z][A-Z0-9_]*) [:?]?=", MAKEFILE, re.MULTILINE), "VPATH"} - {"MAKEFLAGS"})
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def make(*args: str | Path, **environment: str) -> str:
    """What make prints."""
    done = subprocess.run(["make", *args], cwd=ROOT, env={**CLEAN, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def makefile(folder: Path, recipe: str, name: str = "makefile") -> Path:
    """One with a target `show` of this recipe beside those of the Makefile."""
    path = folder / name
    path.write_text(f"include Makefile\nshow:\n\t@{recipe}\n")
    return path


def shown(folder: Path, *args: str, **environment: str) -> dict[str, str]:
    """What the commands of a recipe have in their environment."""
    lines = make("-f", makefile(folder, "env -0"), "show", *args, **environment).split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="module")
def plan() -> str:
    """All that make would do, with nothing of the kind in the environment."""
    return plans()


def plans(*flags: str, **environment: str) -> str:
    goals = ["all", "submit", "evidence", "image", "tensorboard", "lint", "chaos", "tour", "clean"]
    return make("--dry-run", *flags, *goals, **environment)


@pytest.mark.parametrize("flags", [[], ["-e"], ["MAKEFLAGS=e"]], ids=["as it is", "-e", "-e of the site"])
def test_the_command_line_alone_sets_the_variables_of_make(plan: str, flags: list[str]) -> None:
    assert {"DATA", "RECIPE", "TIME", "ENGINE", "FMNIST", "BIN", "ENVIRONMENT", "PIP_INSTALL"} <= set(NAMES)
    site = {name: f"of-the-site-{name}" for name in NAMES}
    site |= dict(flag.split("=") for flag in flags if "=" in flag)
    assert plans(*(flag for flag in flags if "=" not in flag), **site) == plan


@pytest.mark.parametrize("name", re.findall(r"^([A-Z0-9_]+) \?=", MAKEFILE, re.MULTILINE))
def test_each_public_variable_is_the_command_lines(name: str, tmp_path: Path) -> None:
    value = {"ENGINE": "podman", "TTA": "1"}.get(name, "7")
    inner = makefile(tmp_path, f"echo '$({name})'")
    assert make("-f", inner, "show", **{name: value}).strip() != value
    assert make("-f", inner, "show", f"{name}={value}", **{name: "other"}).strip() == value
    # A make that calls this one hands its own command line on.
    outer = tmp_path / "outer"
    outer.write_text(f"show:\n\t@$(MAKE) --no-print-directory -f {inner} show\n")
    assert make("-f", outer, "show", f"{name}={value}").strip() == value


def test_what_runs_is_not_changed_by_settings_of_other_programs(tmp_path: Path) -> None:
    foreign = {
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "PYTHONOPTIMIZE": "2",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "error",
        "BASH_ENV": "/nowhere",
        "CDPATH": "/",
        "ENV": "/nowhere",
        "POSIXLY_CORRECT": "1",
        "GIT_DIR": "/nowhere",
        "GIT_WORK_TREE": "/nowhere",
        "PIP_USER": "1",
        "PIP_TARGET": "/nowhere",
        "PIP_REQUIREMENT": "/nowhere",
        "PIP_REQUIRE_HASHES": "1",
        "TMPDIR": "/nowhere",
        "DATA": "/nowhere",
    }
    kept = {"PIP_INDEX_URL": "x", "PIP_FIND_LINKS": "x", "PIP_CACHE_DIR": "x", "PIP_CERT": "x", "PIP_PROXY": "x"}
    kept |= {"http_proxy": "x", "FMNIST_DATA": "x", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C"}
    found = shown(tmp_path, "TRIALS=5", "PYTHONPATH=here", **foreign, **kept)
    assert foreign.keys() & found.keys() == set()
    assert "TRIALS" not in found
    assert kept.items() <= found.items()


def test_tensorflow_keeps_quiet_in_tensorboard() -> None:
    command = make("--dry-run", "tensorboard", "READY=").replace("\\\n", " ").split()
    assert command[:3] == ["CUDA_VISIBLE_DEVICES=-1", "TF_CPP_MIN_LOG_LEVEL=2", "TF_ENABLE_ONEDNN_OPTS=0"]


def test_a_folder_for_temporary_files_is_kept(tmp_path: Path) -> None:
    assert shown(tmp_path, TMPDIR=str(tmp_path))["TMPDIR"] == str(tmp_path)


def test_make_looks_for_an_environment_here_alone(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "dev.stamp").touch()
    (tmp_path / "none" / "cpu.stamp").touch()
    # Neither is there, and so it would be made.
    assert "making none" in make("--dry-run", "setup", "VENV=none", "TENSORFLOW=cpu", VPATH=str(tmp_path))


def test_none_of_the_jobs_runs_after_one_that_failed(tmp_path: Path) -> None:
    program = tmp_path / "fmnist"
    program.write_text(f'#!/bin/sh\necho $1 >>"{tmp_path}/log"\n[ $1 != train ]\n')
    program.chmod(0o755)
    command = ["make", "all", "READY=", f"FMNIST={program}"]
    for flags in ("", "k", "kj8"):
        (tmp_path / "log").unlink(missing_ok=True)
        done = subprocess.run(command, cwd=ROOT, env={**CLEAN, "MAKEFLAGS": flags}, capture_output=True)
        assert done.returncode == 2
        assert (tmp_path / "log").read_text().split() == ["data", "tune", "train"]


def test_the_revision_is_of_this_code_whatever_a_hook_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FMNIST_REVISION", raising=False)
    here = revision.revision()
    other = repository(tmp_path / "other")
    for name, value in {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / "index"}.items():
        monkeypatch.setenv(name, str(value))
        assert revision.revision() == here
    monkeypatch.setenv("GIT_DIR", ".git")
    assert revision.revision() == here


def test_installed_below_another_work_tree_the_code_has_no_revision(tmp_path: Path) -> None:
    package = repository(tmp_path / "project") / "venv" / "fmnist"
    package.mkdir(parents=True)
    shutil.copy(revision.__file__, package)
    command = [sys.executable, "-c", "import revision; print(revision.revision())"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "FMNIST_"))}
    assert subprocess.check_output(command, cwd=package, env=environment, text=True) == "None\n"


def repository(path: Path) -> Path:
    """One with a commit of nothing."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "--quiet"], [*who, "commit", "--quiet", "--allow-empty", "--message=x"]):
        path.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        subprocess.run(["git", *command], cwd=path, env=environment, check=True)
    return path


OUTER: Mapping[str, str] = {
    "SLURM_JOB_ID": "7",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURMD_NODENAME": "n1",
    "_SLURM_SPANK_OPTION_pyxis_container_image": "other",
    "SRUN_CPUS_PER_TASK": "1",
    "PMIX_RANK": "0",
    "PMI_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4",
    "CUDA_VISIBLE_DEVICES": "3",
    "ROCR_VISIBLE_DEVICES": "3",
    "GPU_DEVICE_ORDINAL": "3",
    "KERASTUNER_TUNER_ID": "worker-5",
    "KERASTUNER_ORACLE_IP": "elsewhere",
    "FMNIST_TOKEN": "secret",
    "FMNIST_REVISION": "of an image",
}
"""Of a job that `make submit` may run in."""
CONTRADICTING: Mapping[str, str] = {
    "SBATCH_WAIT": "1",
    "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_MEM_PER_CPU": "100",
    "SBATCH_GRES": "gpu:1",
    "SBATCH_EXPORT": "NONE",
    "SQUEUE_STATES": "PENDING",
    "SQUEUE_FORMAT2": "jobid",
    "SCANCEL_INTERACTIVE": "1",
    "SCANCEL_STATE": "PENDING",
    "PYTHONPATH": "/nowhere",
    "BASH_ENV": "/nowhere",
    "BASH_FUNC_srun%%": "() { false; }",
    "CDPATH": "/",
}
KEPT: Mapping[str, str] = {
    "PATH": "/bin",
    "HOME": "/home",
    "SLURM_CONF": "/etc/slurm.conf",
    "SLURM_JWT": "token",
    "SLURM_CLUSTERS": "c",
    "SBATCH_ACCOUNT": "a",
    "SBATCH_PARTITION": "p",
    "SBATCH_QOS": "q",
    "LD_LIBRARY_PATH": "/lib",
    "FMNIST_TLS_CERTIFICATE": "/c.pem",
    "FMNIST_XLA_FLAGS": "--xla",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


def test_slurms_jobs_see_nothing_of_the_job_around_them() -> None:
    assert inherited({**OUTER, **CONTRADICTING, **KEPT}) == KEPT


def test_the_jobs_of_a_cluster_are_told_the_data_by_an_option(tmp_path: Path) -> None:
    """An image has set FMNIST_DATA, and some runtimes do not let the host set it otherwise."""
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", seed=0, data=Path("own"))
    for job in ("tune", "train", "eval"):
        assert pipeline.arguments(job, "smoke", "run")[-2:] == ["--data", str(Path("own").absolute())]
    assert pipeline.arguments("report", "smoke", "run") == ["report", "run"]
