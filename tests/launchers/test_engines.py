"""Which engine and which GPUs: with commands that stand for engines and hardware which are not here."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import ROOT, Ended, program

from fmnist.errors import BadInput
from jobs import containers, engines

Tool = Callable[[str, str], Path]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Make a command of a shell script; there are no others but the shell's."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda name, script: program(tmp_path / "bin" / name, f"#!/bin/sh\n{script}\n")


def call(module: str, *args: str | Path) -> Ended:
    """Without what is installed: the standard library has to do."""
    command = [sys.executable, "-S", "-m", f"jobs.{module}", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("docker", "podman", "expected", "reason"),
    [
        ("exit 0", "exit 0", "docker", ""),
        ("echo no daemon >&2; exit 1", "exit 0", "podman", " (docker does not answer: no daemon)"),
        ("echo no daemon >&2; exit 1", "", "local", " (docker does not answer: no daemon; podman is not installed)"),
    ],
)
def test_auto_is_what_answers_first(tool: Tool, docker: str, podman: str, expected: str, reason: str) -> None:
    for name, script in (("docker", docker), ("podman", podman)):
        if script:
            tool(name, script)
    result = call("engines")
    assert result.stdout == f"{expected}\n"
    assert result.stderr == f"ENGINE=auto: {expected}{reason}\n"


def test_an_engine_that_does_not_answer(tool: Tool, tmp_path: Path) -> None:
    tool("docker", "echo warning >&2; echo no daemon >&2; exit 1")
    for arguments in (("containers", "--engine", "docker", "devices"), ("image", "--engine", "docker")):
        result = call(*arguments)
        assert result.returncode == 64
        assert result.stderr.endswith(": docker does not answer: no daemon\n")
        assert len(result.stderr.splitlines()) == 1


def test_each_worker_has_its_gpus(tool: Tool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    tool("nvidia-smi", "echo GPU 0; echo GPU 1")
    tool("docker", f'case $1 in info) echo \'{{"nvidia": {{}}}}\';; image) echo there;; run) echo "$@" >>{log};; esac')
    run = tmp_path / "results" / "run"
    result = call("containers", "--engine", "docker", "tune", "--recipe", "smoke", "--run", run)
    assert result.returncode == 0, result.stderr
    assert "docker, image fmnist:cuda, 2 GPU(s)" in result.stderr
    runs = {line.split("KERASTUNER_TUNER_ID=")[1].split()[0]: line for line in log.read_text().splitlines()}
    assert set(runs) == {"chief", "worker-0", "worker-1"}
    for name, devices in (("chief", "-1"), ("worker-0", "0"), ("worker-1", "1")):
        assert f"--env=CUDA_VISIBLE_DEVICES={devices} " in runs[name]
        assert ("--gpus all" in runs[name]) == (name != "chief")
        assert runs[name].endswith(" --workers=1")


def test_a_container_gets_nothing_of_the_site(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    tool("docker", f"case $1 in info) echo '{{}}';; image) echo there;; run) echo \"$@\" >>{log};; esac")
    for name in ("http_proxy", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "XLA_FLAGS", "KERASTUNER_TUNER_ID"):
        monkeypatch.setenv(name, "0")
    # But for what changes numbers on purpose, here as without containers.
    for name in ("TF_ENABLE_ONEDNN_OPTS", "FMNIST_XLA_FLAGS"):
        monkeypatch.setenv(name, "0")
    results = tmp_path / "results"
    for job in (["train", "--run", f"{results}/run"], ["tensorboard", "--port=16006", f"{results}"]):
        assert call("containers", "--engine", "docker", *job).returncode == 0
    train, tensorboard = (set(re.findall("--env=(\\S+)", line)) for line in log.read_text().splitlines())
    proxies = {f"{name}_proxy=" for name in ("http", "https", "ftp", "all")}
    proxies |= {f"{name.removesuffix('=').upper()}=" for name in proxies}
    assert train >= {"TF_ENABLE_ONEDNN_OPTS", "FMNIST_XLA_FLAGS"} | proxies
    assert {"XLA_FLAGS", "PYTHONPATH", "KERASTUNER_TUNER_ID", "CUDA_VISIBLE_DEVICES"} & train == set()
    assert tensorboard == proxies | {"TF_CPP_MIN_LOG_LEVEL=2", "TF_ENABLE_ONEDNN_OPTS=0"}


def test_gpus_that_cannot_be_given_are_said_aloud(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("nvidia-smi", "echo GPU 0")
    tool("docker", "echo '{}'")
    docker = engines.Engine("docker")
    assert docker.gpus == []
    assert docker.gpus_line == "1 GPU(s) that docker cannot give without the NVIDIA container toolkit: on the CPU"
    tool("podman", "exit 0")
    monkeypatch.setattr(engines, "_CDI", (f"{tmp_path}/*.yaml",))
    assert engines.Engine("podman").gpus_line.endswith("a CDI file (nvidia-ctk cdi generate): on the CPU")
    (tmp_path / "nvidia.yaml").write_text("kind: nvidia.com/gpu\n")
    assert engines.Engine("podman").gpus == ["--device", "nvidia.com/gpu=all"]


def test_root_inside_is_the_caller_where_docker_is_rootless(tool: Tool) -> None:
    tool("docker", "echo '[name=seccomp name=rootless]'")
    assert engines.Engine("docker").user == ["--user=0:0"]
    tool("podman", "echo true")
    assert engines.Engine("podman").user == [f"--user={os.getuid()}:{os.getgid()}", "--userns=keep-id"]


def test_a_container_has_all_groups_of_its_caller(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the daemon gives its containers other users."""
    monkeypatch.setattr(os, "getgroups", lambda: [7, 12345])
    caller = [f"--user={os.getuid()}:{os.getgid()}", "--group-add=7", "--group-add=12345"]
    tool("podman", "echo false")
    assert engines.Engine("podman").user == caller
    tool("docker", "echo '[name=seccomp]'")
    assert engines.Engine("docker").user == caller
    tool("docker", "echo '[name=seccomp name=userns]'")
    assert engines.Engine("docker").user == [*caller, "--userns=host"]


def test_an_image_for_processors_has_no_gpus(tool: Tool, tmp_path: Path) -> None:
    """What runs is an image, not what is given its name while the search runs."""
    log = tmp_path / "log"
    tool("nvidia-smi", "echo GPU 0; echo GPU 1")
    image = """[ "$5" = fmnist:cpu ] && echo 'sha256:12 "cpu" "34"'"""
    tool("docker", f'case $1 in info) echo \'{{"nvidia": {{}}}}\';; image) {image};; run) echo "$@" >>{log};; esac')
    result = call(
        "containers", "--engine", "docker", "tune", "--recipe", "smoke", "--run", tmp_path / "results" / "run"
    )
    assert result.returncode == 0, result.stderr
    assert (
        "image fmnist:cpu, 2 GPU(s) that this image cannot use: on the CPU; `make image ENGINE=docker" in result.stderr
    )
    (line,) = log.read_text().splitlines()
    assert " sha256:12 fmnist tune " in line
    assert "--gpus" not in line.split(" sha256:12 ")[0]


def test_a_build_goes_through_the_sites_proxy(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://site:3128")
    for name in ("docker", "podman"):
        log = tmp_path / name
        tool(name, f'case $1 in build) echo "$@" >>{log};; image) echo 7;; esac')
        call("image", "--engine", name, "--accelerator", "cpu")
        assert "--build-arg=https_proxy " in log.read_text()
        assert ("--security-opt=label=disable" in log.read_text()) == (name == "podman")


def test_a_python_that_is_too_old_is_said_in_one_line() -> None:
    """It is `python3` of some long-lived systems, and would end in a traceback of the first module."""
    for module in ("containers", "engines", "image"):
        older = f"import runpy, sys; sys.version_info = (3, 9, 18); runpy.run_module('jobs.{module}')"
        ended = subprocess.run([sys.executable, "-c", older], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 64
        assert ended.stderr == "fmnist: jobs need Python 3.10 or newer; name one: make PYTHON3=python3.12\n"


def mounted(*arguments: str | Path) -> dict[str, str]:
    """How each path is mounted for a job, by that very path; the job works where its caller does."""
    *mounts, workdir = containers._mounts(containers._parse(["--engine=podman", *map(str, arguments)]))
    found = {}
    for option in mounts:
        kind, *fields = option.removeprefix("--mount=").split(",")
        path = next(field for field in fields if field.startswith("target=")).removeprefix("target=")
        assert kind == "type=tmpfs" or f"source={path}" in fields
        found[path] = "empty" if kind == "type=tmpfs" else "read" if "readonly" in fields else "written"
    assert workdir == f"--workdir={os.getcwd()}"
    return found


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that make is called in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("FMNIST_DATA", raising=False)
    return folder


def test_a_container_sees_what_the_command_line_names_and_an_empty_folder_to_work_in(work: Path) -> None:
    (work / "own.toml").touch()
    (work / "images").mkdir()
    train = ["train", "--recipe", "own.toml", "--run=results/new", "--seed", "3", "--data=images", "--quiet"]
    expected = {f"{work}/own.toml": "read", f"{work}/images": "read", f"{work}/results": "written", str(work): "empty"}
    assert mounted(*train) == expected
    assert mounted("tune", "--recipe", "smoke", "--run", work / "run") == {str(work): "written"}
    # The data among the runs.
    assert mounted("train", "--run=results/new", "--data=results") == {f"{work}/results": "written", str(work): "empty"}
    assert mounted("devices", "--precision", "float32") == {str(work): "empty"}
    assert mounted("tensorboard", "results") == {f"{work}/results": "read", str(work): "empty"}


def test_runs_of_several_folders_and_linked_ones(work: Path, tmp_path: Path) -> None:
    for folder in ("results", "others/one", "elsewhere"):
        (work / folder).mkdir(parents=True)
    (work / "results" / "linked").symlink_to(work / "elsewhere")
    (tmp_path / "link").symlink_to(work / "others")
    expected = {f"{work}/results": "written", f"{tmp_path}/link": "written", f"{work}/results/linked": "written"}
    assert mounted("report", "results/linked", "../link/one", "results/two") == expected | {str(work): "empty"}
    # What follows an option is no run.
    assert mounted("export", "results/one", "--format", "onnx") == {f"{work}/results": "written", str(work): "empty"}
    averaged = ["eval", "--ensemble", "results/one", "-o", "others/it.json", "results/two"]
    expected = {f"{work}/results": "written", f"{work}/others": "written", str(work): "empty"}
    assert mounted(*averaged) == expected


def test_data_that_the_environment_names(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_DATA", "images")
    assert mounted("report", "../work/run") == {str(work): "written"}
    with pytest.raises(BadInput, match=f"{work}/images is missing"):
        mounted("data")
    (work / "images").mkdir()
    assert mounted("data") == {f"{work}/images": "read", str(work): "empty"}


@pytest.mark.parametrize(
    "arguments", ["train --run=/run", "eval /tmp/run", "data --data=/tmp", "data --data=/usr/lib/.."]
)
def test_what_a_container_has_of_its_own_is_not_hidden(work: Path, arguments: str) -> None:
    with pytest.raises(BadInput, match="^a container has a /(tmp|usr|) of its own"):
        mounted(*arguments.split())


@pytest.mark.parametrize("here", ["/", "/tmp", "/usr/lib"])
def test_a_caller_who_works_in_a_folder_of_the_system(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    assert mounted("devices") == {}


def test_the_job_gets_its_command_line_as_it_stands(tool: Tool, tmp_path: Path) -> None:
    note = f"printf '%s\\0' \"$@\" >>{tmp_path}/log"
    tool("podman", f"case $1 in info) echo false;; image) echo there;; run) {note};; esac")
    given = ["tune", f"--run={tmp_path}/a run", "--recipe=smoke", "--set", 'description="it\'s"', "--workers=1", "-q"]
    assert call("containers", "--engine", "podman", "--image", "eval", *given).returncode == 0
    words = (tmp_path / "log").read_text().split("\0")
    assert words[words.index("there") + 1 :] == ["fmnist", *given, ""]


def test_a_name_that_an_engine_would_change_is_refused(tool: Tool, tmp_path: Path) -> None:
    tool("podman", "case $1 in info) echo false;; image) echo there;; run) exit 9;; esac")
    result = call("containers", "--engine", "podman", "train", f"--run={tmp_path}/caf\udce9")
    assert result.returncode == 64
    assert result.stderr.endswith(f"\nfmnist: podman takes names in UTF-8 alone, unlike --run={tmp_path}/caf\\xe9\n")
