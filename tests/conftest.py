"""What the tests share: the genuine data set, and the command line as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything imports TensorFlow. CUDA_VISIBLE_DEVICES=0 in the environment puts the tests on a GPU.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory of the four genuine Fashion-MNIST files, found or fetched as the jobs do it."""
    from fmnist import data

    return data.fetch(None).directory


@pytest.fixture
def fmnist(tmp_path: Path, data_dir: Path) -> Command:
    """Run `fmnist ARGS` in `tmp_path`, with further environment variables given by keyword; does not check the exit."""

    def run(*args: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "fmnist", *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "FMNIST_DATA": str(data_dir), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
