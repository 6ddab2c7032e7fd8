"""Processes that the tests start: Python's, make's, and programs that stand for others."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Ended = subprocess.CompletedProcess[str]


def clean(**more: str) -> dict[str, str]:
    """Return the environment without the variables of a make that runs the tests, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))} | more


def python(code: str, *arguments: object, timeout: float = 120, **options: Any) -> Ended:
    """Run Python code in an interpreter of its own; `options` are those of `subprocess.run`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=timeout, **options)


def make(*arguments: str | Path, tree: Path = ROOT, become: Sequence[str] = (), **environment: str) -> Ended:
    """Run make in a work tree.

    Args:
        become: a command that runs make as somebody else, or somewhere else.
        environment: further variables of it.
    """
    return subprocess.run(
        [*become, "make", *arguments],
        cwd=tree,
        env=clean(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )


def program(path: Path, text: str) -> Path:
    """Write a file that can be run."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return what each file below holds, by its path from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_gone(pid: int) -> bool:
    """Tell whether the process has ended, also where nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
