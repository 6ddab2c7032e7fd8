"""What the tests of the clusters share: the front door, the image that runs there, and Podman."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
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


def make(
    verb: str, results: Path, *variables: str, become: Sequence[str] = (), tree: Path = ROOT, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """`make VERB` for the run `run` in `results`, with the environment that the tests run in.

    Args:
        become: a command that runs make as somebody else, or somewhere else.
        tree: the work tree.
        environment: further variables of it.
    """
    here = [f"BIN={Path(sys.executable).parent}", "ENVIRONMENT=", f"RESULTS={results}", "RECIPE=smoke", "RUN=run"]
    command = [*become, "make", verb, *here, *variables]
    # Not the variables of a make that runs the tests.
    whole = {**os.environ, "MAKELEVEL": "", "MAKEFLAGS": "", **environment}
    return subprocess.run(
        command, cwd=tree, env=whole, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180
    )
