"""What a site, a login or other work has set in the environment, where fmnist is started from: make, git, Slurm."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
from processes import ROOT, program, python

from fmnist import revision
from fmnist.errors import BadInput
from fmnist.run.folder import RunDir
from jobs.pipeline import Pipeline, Site
from jobs.slurm import submitter
from jobs.slurm.environment import inherited

MAKEFILE = (ROOT / "Makefile").read_text()
NAMES = sorted({*re.findall(r"^([A-Z][A-Z0-9_]*) [:?]?=", MAKEFILE, re.MULTILINE), "VPATH"} - {"MAKEFLAGS"})


def make(*args: str | Path, **environment: Any) -> str:
    """Return what make prints."""
    done = processes.make(*args, **environment)
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


def plan(*flags: str, **environment: str) -> str:
    """Return all that make would do."""
    goals = ["all", "submit", "evidence", "image", "tensorboard", "lint", "chaos", "tour", "clean"]
    return make("--dry-run", *flags, *goals, **environment)


def test_a_fixed_recipe_has_no_trials_on_a_cluster_either(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="recipe quick-mlp is fixed"):
        _ = Pipeline(RunDir(tmp_path / "run"), "quick-mlp", 0, trials=5).resolved


def test_an_environment_with_cuda_serves_a_machine_without_a_gpu(tmp_path: Path) -> None:
    """To make another one in its place would end the jobs that run from it."""
    for stamp in "cuda", "dev", "export":
        (tmp_path / f"{stamp}.stamp").touch()
    assert "making" not in make("--dry-run", "status", "setup", f"VENV={tmp_path}")


def test_a_machine_with_a_gpu_leaves_an_environment_without_cuda_alone(tmp_path: Path) -> None:
    """Others share the checkout: their jobs run from it."""
    tools = tmp_path / "tools"
    program(tools / "nvidia-smi", "#!/bin/sh\necho GPU 0\n")
    path = f"{tools}:{os.environ['PATH']}"
    assert "from requirements/cuda.txt" in make("--dry-run", "setup", f"VENV={tmp_path}", PATH=path)
    (tmp_path / "cpu.stamp").touch()
    for goal in ("setup", "report", "devices", "submit", "train"):
        assert "making" not in make("--dry-run", goal, f"VENV={tmp_path}", PATH=path)
    said = make("--dry-run", "train", f"VENV={tmp_path}", "ACCELERATOR=cuda", PATH=path)
    assert "from requirements/cuda.txt" in said


@pytest.mark.parametrize("flags", [[], ["-e"], ["MAKEFLAGS=e"]], ids=["as it is", "-e", "-e of the site"])
def test_the_command_line_alone_sets_the_variables_of_make(flags: list[str]) -> None:
    assert {"DATA", "RECIPE", "TIME", "ENGINE", "FMNIST", "BIN", "ENVIRONMENT", "PIP_INSTALL"} <= set(NAMES)
    site = {name: f"of-the-site-{name}" for name in NAMES}
    site |= dict(flag.split("=") for flag in flags if "=" in flag)
    assert plan(*(flag for flag in flags if "=" not in flag), **site) == plan()


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


def test_a_variable_set_to_nothing_keeps_its_default() -> None:
    names = re.findall(r"^([A-Z0-9_]+) \?=", MAKEFILE, re.MULTILINE)
    assert {"RUN", "RESULTS", "ENGINE", "SET"} <= set(names)
    assert plan(*(f"{name}=" for name in names)) == plan()


def test_what_runs_is_not_changed_by_settings_of_other_programs(tmp_path: Path) -> None:
    switches = "PYTHONOPTIMIZE PYTHONSAFEPATH PYTHONWARNINGS POSIXLY_CORRECT PIP_USER PIP_REQUIRE_HASHES"
    paths = "PYTHONHOME PYTHONPATH BASH_ENV CDPATH ENV GIT_DIR GIT_WORK_TREE PIP_TARGET PIP_REQUIREMENT TMPDIR DATA"
    foreign = dict.fromkeys(switches.split(), "1") | dict.fromkeys(paths.split(), "/nowhere")
    pip = "PIP_INDEX_URL PIP_FIND_LINKS PIP_CACHE_DIR PIP_CERT PIP_PROXY"
    kept = dict.fromkeys([*pip.split(), "http_proxy", "FMNIST_DATA", "PYTHONDONTWRITEBYTECODE"], "1") | {"LC_ALL": "C"}
    found = shown(tmp_path, "TRIALS=5", "PYTHONPATH=here", **foreign, **kept)
    assert foreign.keys() & found.keys() == set()
    assert "TRIALS" not in found
    assert kept.items() <= found.items()


def test_tensorflow_keeps_quiet_in_tensorboard() -> None:
    command = make("--dry-run", "tensorboard", "READY=").replace("\\\n", " ").split()
    assert command[:3] == ["CUDA_VISIBLE_DEVICES=-1", "TF_CPP_MIN_LOG_LEVEL=2", "TF_ENABLE_ONEDNN_OPTS=0"]


def test_a_port_that_is_taken_is_said_with_what_to_do(tmp_path: Path) -> None:
    program(tmp_path / "docker", "#!/bin/sh\ncase $1 in info) echo '{}';; image) echo there;; esac\n")
    path = f"{tmp_path}:{os.environ['PATH']}"

    def show(port: object, *module: str) -> str:
        command = [sys.executable, "-m", *module, f"--port={port}", str(tmp_path)]
        ended = subprocess.run(
            command, cwd=ROOT, env=processes.clean(PATH=path), capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 64, ended.stderr
        return ended.stderr.splitlines()[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for module in (["jobs.tensorboard"], ["jobs.containers", "--engine", "docker", "tensorboard"]):
            said = f"fmnist: port {port} is not free (Address already in use); name another: make tensorboard PORT=..."
            assert show(port, *module) == said
    for no_port in ("0", "65536", "http", "-1", ""):
        assert show(no_port, "jobs.tensorboard") == f"fmnist: PORT={no_port} is no port; name one from 1024 to 65535"


def test_make_hands_the_port_on() -> None:
    assert "--port='6007' 'results'" in make("--dry-run", "tensorboard", "READY=", "PORT=6007")
    assert "tensorboard --port='6007' 'results'" in make("--dry-run", "tensorboard", "ENGINE=podman", "PORT=6007")


def test_a_folder_for_temporary_files_is_kept(tmp_path: Path) -> None:
    assert shown(tmp_path, TMPDIR=str(tmp_path))["TMPDIR"] == str(tmp_path)


def test_make_looks_for_an_environment_here_alone(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "dev.stamp").touch()
    (tmp_path / "none" / "cpu.stamp").touch()
    # Neither is there, and so it would be made.
    assert "making none" in make("--dry-run", "setup", "VENV=none", "TENSORFLOW=cpu", VPATH=str(tmp_path))


@pytest.mark.parametrize("goal", ["status", "logs", "cancel"])
def test_to_look_at_jobs_makes_no_environment_anew(goal: str, tmp_path: Path) -> None:
    """It would take theirs from those that run."""
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "cuda.stamp").touch()
    os.utime(venv / "cuda.stamp", (0, 0))
    assert "making" not in make("--dry-run", goal, f"VENV={venv}")
    assert "making" in make("--dry-run", "devices", f"VENV={venv}")


def test_an_environment_with_cuda_can_be_made_anywhere(tmp_path: Path) -> None:
    said = make("--dry-run", "setup", f"VENV={tmp_path / 'none'}", "ACCELERATOR=cuda")
    assert "from requirements/cuda.txt" in said


def test_none_of_the_jobs_runs_after_one_that_failed(tmp_path: Path) -> None:
    fmnist = program(tmp_path / "fmnist", f'#!/bin/sh\necho $1 >>"{tmp_path}/log"\n[ $1 != train ]\n')
    for flags in ("", "k", "kj8"):
        (tmp_path / "log").unlink(missing_ok=True)
        assert processes.make("all", "READY=", f"FMNIST={fmnist}", MAKEFLAGS=flags).returncode == 2
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "FMNIST_"))}
    ended = python("import revision; print(revision.revision())", cwd=package, env=environment)
    assert ended.stdout == "None\n", ended.stderr


def repository(path: Path) -> Path:
    """One with a commit of nothing."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "--quiet"], [*who, "commit", "--quiet", "--allow-empty", "--message=x"]):
        path.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        subprocess.run(["git", *command], cwd=path, env=environment, check=True)
    return path


# Of a job that `make submit` may run in, and what contradicts what is submitted.
OUTER = """
    SLURM_JOB_ID SLURM_MEM_PER_CPU SLURM_CPU_BIND SLURM_EXPORT_ENV SLURMD_NODENAME SRUN_CPUS_PER_TASK
    _SLURM_SPANK_OPTION_pyxis_container_image PMIX_RANK PMI_RANK OMPI_COMM_WORLD_SIZE CUDA_VISIBLE_DEVICES
    ROCR_VISIBLE_DEVICES GPU_DEVICE_ORDINAL KERASTUNER_TUNER_ID KERASTUNER_ORACLE_IP FMNIST_TOKEN FMNIST_REVISION
    SBATCH_WAIT SBATCH_ARRAY_INX SBATCH_MEM_PER_CPU SBATCH_GRES SBATCH_EXPORT SQUEUE_STATES SQUEUE_FORMAT2
    SCANCEL_INTERACTIVE SCANCEL_STATE PYTHONPATH BASH_ENV BASH_FUNC_srun%% CDPATH
"""
KEPT = """
    PATH HOME SLURM_CONF SLURM_JWT SLURM_CLUSTERS SBATCH_ACCOUNT SBATCH_PARTITION SBATCH_QOS LD_LIBRARY_PATH
    FMNIST_TLS_CERTIFICATE FMNIST_XLA_FLAGS TF_ENABLE_ONEDNN_OPTS
"""


def test_slurms_jobs_see_nothing_of_the_job_around_them() -> None:
    kept = {name: f"of {name}" for name in KEPT.split()}
    assert inherited(dict.fromkeys(OUTER.split(), "1") | kept) == kept


def test_a_container_of_slurm_sees_the_files_of_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY"):
        monkeypatch.setenv(name, "both.pem")
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", seed=0)
    with pytest.raises(BadInput, match=r"both\.pem is no file"):
        submitter._environment(pipeline, Site(runtime="podman", image="fmnist"))
    both = tmp_path / "both.pem"
    both.touch()
    environment = submitter._environment(pipeline, Site(runtime="podman", image="fmnist"))
    assert environment["FMNIST_TLS_CERTIFICATE"] == environment["FMNIST_TLS_KEY"] == str(both)
    assert environment["FMNIST_MOUNTS"].count(f"source={both},target={both},ro") == 1


def test_a_seed_that_is_too_large_is_not_submitted(tmp_path: Path) -> None:
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", 2**32)
    with pytest.raises(BadInput, match="SEED from 0 to 4294967295"), pipeline.prepared():
        pass


def test_a_token_that_was_not_written_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", 0)
    pipeline.run.claim(pipeline.resolved, 0)

    def full(path: Path, secret: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("jobs.pipeline.write_secret", full)
        with pytest.raises(OSError, match="No space"), pipeline.prepared():
            pass
    with pipeline.prepared():
        assert len(pipeline.token.read_text()) > 20
    assert [path.name for path in pipeline.state.iterdir()] == ["token"]


def test_jobs_of_a_submission_that_was_killed_can_be_cancelled(tmp_path: Path, data_dir: Path) -> None:
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    # The third job is one too many for this session, whose end kills `make submit`.
    count = f"echo x >>{slurm}/jobs; number=$(wc -l <{slurm}/jobs)"
    program(slurm / "sbatch", f"#!/bin/sh\n{count}; [ $number = 3 ] && kill -KILL $PPID; echo $number\n")
    program(slurm / "squeue", "#!/bin/sh\n")
    program(slurm / "scancel", f'#!/bin/sh\necho "$@" >>{slurm}/cancelled\n')
    path = f"{slurm}{os.pathsep}{os.environ['PATH']}"
    options = ["--cluster=slurm", f"--run={tmp_path / 'run'}", "--recipe=smoke", f"--data={data_dir}"]
    for verb, code in ("submit", -signal.SIGKILL), ("cancel", 0):
        command = [sys.executable, "-m", "jobs.cluster", verb, *options]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr
    assert {"1", "2"} <= set((slurm / "cancelled").read_text().split())


def test_the_jobs_of_a_cluster_are_told_the_data_by_an_option(tmp_path: Path) -> None:
    """An image has set FMNIST_DATA, and some runtimes do not let the host set it otherwise."""
    pipeline = Pipeline(RunDir(tmp_path / "run"), "smoke", seed=0, data=Path("own"))
    for job in ("tune", "train", "eval"):
        assert pipeline.arguments(job, "smoke", "run")[-2:] == ["--data", str(Path("own").absolute())]
    assert pipeline.arguments("report", "smoke", "run") == ["report", "run"]
