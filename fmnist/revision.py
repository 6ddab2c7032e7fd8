"""The git revision of this code. Standard library only: container images are labelled with it."""

import os
import subprocess
from pathlib import Path

_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
"""By these git tells a hook about its repository, and would be told of another one here."""


def revision() -> str | None:
    """The git revision of this code, with `+changes` if the work tree differs; an image brings FMNIST_REVISION."""
    if given := os.environ.get("FMNIST_REVISION"):
        return given
    # Installed below some other project's work tree, the package is nothing of that repository's.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return git("describe", "--always", "--abbrev=40", "--dirty=+changes")


def git(*arguments: str) -> str | None:
    """What git prints of the repository of this code; None if it fails, or is not there."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _HOOK}
    try:
        asked = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=True
        )
        return asked.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
