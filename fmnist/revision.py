"""The git revision of this code. Standard library only: container images are labelled with it."""

import os
import subprocess
from pathlib import Path


def revision() -> str | None:
    """The git revision of this code, with `+changes` if the work tree differs; an image brings FMNIST_REVISION."""
    if given := os.environ.get("FMNIST_REVISION"):
        return given
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
