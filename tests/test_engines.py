"""Which engine and which GPUs: with commands that stand for engines and hardware which are not here."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fmnist.errors import BadInput
from jobs import containers, engines

ROOT = Path(__file__).parent.parent
Tool = Callable[[str, str], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Make a command of a shell script; there are no others but the shell's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def call(module: str, *args: str | Path) -> "subprocess.CompletedProcess[str]":
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


def test_a_container_gets_nothing_of_the_site(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    tool("docker", f"case $1 in info) echo '{{}}';; image) echo there;; run) echo \"$@\" >>{log};; esac")
    for name in ("http_proxy", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "XLA_FLAGS", "KERASTUNER_TUNER_ID"):
        monkeypatch.setenv(name, "0")
    # But for what changes numbers on purpose, here as without containers.
    for name in ("TF_ENABLE_ONEDNN_OPTS", "FMNIST_XLA_FLAGS"):
        monkeypatch.setenv(name, "0")
    results = tmp_path / "results"
    for job in (["train", "--run", f"{results}/run"], ["tensorboard", f"{results}"]):
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
    assert engines.Engine("docker").user == ["--user", "0:0"]
    tool("podman", "echo true")
    assert engines.Engine("podman").user == ["--user", f"{os.getuid()}:{os.getgid()}", "--userns", "keep-id"]


def test_a_training_sees_its_teachers_where_the_container_has_them(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("student", "one", "two")]
    teachers = ["--teacher", str(runs[1]), "--teacher", str(runs[2])]
    options, rest = containers._parse(["--engine", "podman", "train", "--run", str(runs[0]), *teachers, "--seed", "3"])
    mounts, command = containers._translate(options, rest)
    assert mounts == [f"--mount=type=bind,source={tmp_path},target=/results"]
    assert [word for word in command if "/results" in word] == [
        "/results/student",
        "--teacher=/results/one",
        "--teacher=/results/two",
    ]
    assert command[-2:] == ["--seed", "3"]
    options, rest = containers._parse(["--engine", "podman", "train", "--run", "a/student", "--teacher", "b/teacher"])
    with pytest.raises(BadInput, match="not of several"):
        containers._translate(options, rest)
