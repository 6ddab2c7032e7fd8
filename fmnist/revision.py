"""Find the git revision of this code. Standard library only: builds of container images call it for their labels."""

import os
import subprocess
from pathlib import Path

_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
"""Variables by which git names the repository of a hook; they would hide the repository of this code."""


def revision() -> str | None:
    """Return the git revision of this code, with `+changes` if the work tree differs; None if there is none.

    FMNIST_REVISION, which container images set, takes precedence.
    """
    if given := os.environ.get("FMNIST_REVISION"):
        return given
    # A package that is installed inside another project's work tree is not part of that repository.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return git("describe", "--always", "--abbrev=40", "--dirty=+changes")


def git(*arguments: str) -> str | None:
    """Return git's output for the repository of this code; None if git fails or is missing."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _HOOK}
    try:
        asked = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=True
        )
        return asked.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
