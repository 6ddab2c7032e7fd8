"""Real container engines, each with an image that `make image` built: Podman, and a Docker started by hand."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conftest import end
from processes import ROOT, Ended, clean
from searching import until

STRANGER = 12345
"""The id of a user whom nobody knows."""

_BASE = "localhost/debian:bookworm-slim"


@dataclass(frozen=True)
class Host:
    """An engine, the user who calls it, and the checkout to call make in."""

    name: str
    user: int
    checkout: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, *args: str | Path, **environment: str) -> "subprocess.Popen[str]":
        """Start make with ENGINE, as the user, in a process group of its own: a terminal's Ctrl-C is for a group."""
        become = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"] if self.user else []
        return subprocess.Popen(
            ["setpriv", *become, "make", f"ENGINE={self.name}", *map(str, args)],
            cwd=self.checkout,
            env=clean(**self.environment, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, *args: str | Path, **environment: str) -> Ended:
        return end(self.start(*args, **environment))

    def __call__(self, *args: str | Path) -> str:
        """What a command of the engine prints."""
        return run([self.name, *args], self.environment)

    def left(self, results: Path) -> list[str]:
        """The labels of the containers and networks that there are of jobs in `results`."""
        mine = ("--filter", "label=fmnist.job", "--format", "{{.Labels}}")
        labels = [*self("ps", "--all", *mine).splitlines(), *self("network", "ls", *mine).splitlines()]
        return [line for line in labels if f"{results}/" in line]

    def running(self, results: Path, member: str) -> str | None:
        """The running container of a member of the search of recipe smoke in `results`."""
        mine = ("--filter", f"label=fmnist.job=tune {results}/smoke-seed0", "--format", "{{.Names}}")
        return next((name for name in self("ps", *mine).split() if name.endswith(f"-{member}")), None)


@contextlib.contextmanager
def public_folder(owner: int) -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="fmnist-"))
    os.chown(folder, owner, owner)
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def checkout() -> Iterator[Path]:
    """What the jobs need of a checkout: no virtual environment."""
    with public_folder(0) as folder:
        shutil.copy(ROOT / "Makefile", folder)
        for package in ("fmnist", "jobs"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        # Whatever the umask was of who cloned this one.
        run(["chmod", "--recursive", "a+rX", folder], {})
        yield folder


def podman(checkout: Path) -> Host:
    """Podman, called by root."""
    environment = {}
    if not Path("/run/systemd/system").exists():
        environment["CONTAINERS_CONF"] = str(Path(__file__).parent / "containers.conf")
    host = Host("podman", 0, checkout, environment)
    if _BASE not in host("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        run([Path(__file__).parent / "base_image.sh", _BASE], environment)
    _make_image(host)
    return host


@contextlib.contextmanager
def docker(checkout: Path, podman: Host) -> Iterator[Host]:
    """A Docker of its own, called by an ordinary user."""
    with public_folder(STRANGER) as home, public_folder(0) as folder, (folder / "log").open("w") as log:
        socket = folder / "docker.sock"
        daemon = subprocess.Popen(
            ["dockerd", f"--host=unix://{socket}", f"--pidfile={folder}/pid", f"--data-root={folder}/data"]
            + [f"--exec-root={folder}/exec", "--storage-driver=overlay2", "--default-ulimit=nofile=20000:20000"],
            stdout=log,
            stderr=log,
        )
        try:
            until(socket.exists, 60)
            socket.chmod(0o666)
            # Debian's client comes with BuildKit; for a newer one of elsewhere that is a plug-in.
            path = f"/usr/bin:{os.environ['PATH']}"
            host = Host(
                "docker", STRANGER, checkout, {"DOCKER_HOST": f"unix://{socket}", "HOME": str(home), "PATH": path}
            )
            podman("save", "--output", folder / "base.tar", _BASE)
            host("load", "--input", folder / "base.tar")
            _make_image(host)
            # What root's client has put there.
            run(["chown", "--recursive", f"{STRANGER}:{STRANGER}", home], {})
            yield host
        finally:
            daemon.terminate()
            daemon.wait()


def _make_image(host: Host) -> None:
    command = ["make", "image", "ACCELERATOR=cpu", f"BASE_IMAGE={_BASE}", f"ENGINE={host.name}"]
    run(command, host.environment)


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    """What `command` prints; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()
