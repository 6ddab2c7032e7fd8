"""What the tests of the clusters share: the front door, the image that runs there, and Podman."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
from processes import Ended

IMAGE = os.environ.get("FMNIST_TEST_IMAGE", "localhost/fmnist:cpu")


def podman(*arguments: str) -> str:
    """What a command of Podman's prints."""
    result = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def need_image() -> None:
    """Make Podman ready for this process and its children.

    Raises:
        AssertionError: there is no image.
    """
    os.environ.setdefault("CONTAINERS_CONF", str(Path(__file__).parent / "containers" / "containers.conf"))
    exists = subprocess.run(["podman", "image", "exists", IMAGE]).returncode == 0
    assert exists, f"there is no image {IMAGE}; `make image ACCELERATOR=cpu` builds it"


def make(verb: str, results: Path, *variables: str, **options: Any) -> Ended:
    """`make VERB` for the run `run` in `results`, with the environment that the tests run in."""
    here = [f"BIN={Path(sys.executable).parent}", "ENVIRONMENT=", f"RESULTS={results}", "RECIPE=smoke", "RUN=run"]
    return processes.make(verb, *here, *variables, **options)
