"""Find a container engine that answers, and what it can give to a container. Standard library only.

usage: python3 -m jobs.engines     print the first of docker and podman that answers, else local; explain on stderr
"""

import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fmnist import environment
from fmnist.errors import BadInput

NAMES = ("docker", "podman")

_LABELS = ("fmnist.accelerator", "org.opencontainers.image.revision")
_ANSWER_SECONDS = 20
_CDI = ("/etc/cdi/*", "/var/run/cdi/*")


@dataclass(frozen=True)
class Image:
    """An image; another one may be given its name at any time, so what runs is named by its id.

    accelerator: cuda or cpu; empty for an image of an earlier version.
    revision: of the code; empty if it is not known.
    """

    name: str
    id: str
    accelerator: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Engine:
    """Docker or Podman, whose command lines differ only in what is here."""

    name: str

    def __call__(self, *args: str, check: bool = True) -> str:
        """Run a command of the engine, and return its output.

        Raises:
            BadInput: the command failed, and `check` is true.
        """
        done = subprocess.run(
            [self.name, *args], capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise BadInput(f"{self.name} {args[0]} failed: {_last_line(done.stderr)}")
        return done.stdout.strip()

    @cached_property
    def problem(self) -> str | None:
        """Why the engine does not answer; None if it does. An installed command need not have a running daemon."""
        try:
            done = subprocess.run(
                [self.name, "info"],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_ANSWER_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            return f"{self.name} is not installed"
        except subprocess.TimeoutExpired:
            return f"{self.name} did not answer within {_ANSWER_SECONDS} s"
        if done.returncode:
            return f"{self.name} does not answer: {_last_line(done.stderr)}"
        if self.name == "docker" and "podman" in self("--version").lower():
            return "docker is a name of Podman's here"
        return None

    @property
    def user(self) -> list[str]:
        """The options that make a container read and write as its caller; a rootless one lacks further groups."""
        caller = [f"--user={os.getuid()}:{os.getgid()}"]
        groups = [f"--group-add={group}" for group in os.getgroups()]
        if self.name == "podman":
            is_rootless = self("info", "--format", "{{.Host.Security.Rootless}}") == "true"
            return [*caller, "--userns=keep-id"] if is_rootless else [*caller, *groups]
        security = self("info", "--format", "{{.SecurityOptions}}")
        if "name=rootless" in security:
            # In such a container, root is the caller, and every other user a stranger.
            return ["--user=0:0"]
        # A daemon may map all users to others.
        return [*caller, *groups, *(["--userns=host"] if "name=userns" in security else [])]

    @cached_property
    def gpus(self) -> list[str]:
        """The options that give a container the GPUs; none if the machine has none or the engine cannot give them."""
        if not environment.gpus():
            return []
        if self.name == "docker" and _has_toolkit(self("info", "--format", "{{json .Runtimes}}")):
            return ["--gpus", "all"]
        if self.name == "podman" and any("nvidia.com/gpu" in _text(path) for path in _files(_CDI)):
            return ["--device", "nvidia.com/gpu=all"]
        return []

    @property
    def gpus_line(self) -> str:
        """What `gpus` found, as text for people."""
        found = len(environment.gpus())
        if self.gpus:
            return f"{found} GPU(s)"
        if not found:
            return "no GPU: on the CPU"
        missing = "the NVIDIA container toolkit" if self.name == "docker" else "a CDI file (nvidia-ctk cdi generate)"
        return f"{found} GPU(s) that {self.name} cannot give without {missing}: on the CPU"

    def image(self, name: str) -> Image | None:
        """Return the image that has this name now; None if there is none."""
        labels = [f'{{{{printf "%q" (index .Config.Labels "{label}")}}}}' for label in _LABELS]
        found = self("image", "inspect", "--format", " ".join(["{{.Id}}", *labels]), name, check=False)
        return Image(name, *(word.strip('"') for word in found.split())) if found else None


def choose(name: str) -> Engine:
    """Return the engine `name`, or for `auto` the first one that answers.

    Raises:
        BadInput: the engine does not answer, or none does.
    """
    engines = [Engine(name) for name in (NAMES if name == "auto" else [name])]
    for engine in engines:
        if engine.problem is None:
            return engine
    raise BadInput("; ".join(engine.problem or "" for engine in engines))


def _has_toolkit(runtimes: str) -> bool:
    return "nvidia" in json.loads(runtimes) or shutil.which("nvidia-container-runtime-hook") is not None


def _files(patterns: Iterable[str]) -> list[str]:
    return [path for pattern in patterns for path in glob.glob(pattern)]


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def main() -> None:
    engines = [Engine(name) for name in NAMES]
    problems = [engine.problem for engine in engines]
    name = next((engine.name for engine, problem in zip(engines, problems, strict=True) if problem is None), "local")
    reasons = "; ".join(problem for problem in problems if problem)
    print(f"ENGINE=auto: {name}{f' ({reasons})' if reasons else ''}", file=sys.stderr)
    print(name)


if __name__ == "__main__":
    main()
