"""`fmnist`'s jobs in containers: one container a job, or one for the chief of a search and one for each of its workers.

usage: python3 -m jobs.containers --engine ENGINE [--image IMAGE] [--memory LIMIT] JOB [what `fmnist JOB` takes]

Of the host a container sees the folder of the run folders, as /results, and to read from: a folder of data, a recipe's
file. Standard library only: whoever has a container engine needs no virtual environment.
"""

import argparse
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmnist import environment
from fmnist.errors import EXIT_BAD_INPUT, BadInput
from fmnist.files import check_writable
from fmnist.revision import revision
from fmnist.search import deaths
from fmnist.search.supervise import Ending, Member, Share, shares, supervise
from fmnist.signals import Stop, stop_on_signals
from jobs import engines, single
from jobs.engines import Engine
from jobs.mounts import mount

logger = logging.getLogger(__name__)

_LABEL = "fmnist.job"
_CONFINED = (
    "--pull=never", "--read-only", "--tmpfs=/tmp:rw,nosuid,nodev,noexec,mode=1777",
    "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=2048",
    # Otherwise SELinux would want the user's own files relabelled.
    "--security-opt=label=disable",
)  # fmt: skip
_ALONE = ("--network=none",)
_TENSORBOARD = (
    "--publish=127.0.0.1:6006:6006",
    # It computes nothing, so TensorFlow has nothing to say in it.
    "--env=TF_CPP_MIN_LOG_LEVEL=2", "--env=TF_ENABLE_ONEDNN_OPTS=0",
)  # fmt: skip
# Engines hand on the site's proxies of their own accord; a container has nobody to reach by them.
_NO_PROXIES = tuple(
    f"--env={name}="
    for scheme in ("http", "https", "ftp", "all")
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
)


def main() -> None:
    """Run the job of the command line and end with its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options, rest = _parse(sys.argv[1:])
        identity = _identity(options)
        with single.only(identity):
            _run(options, rest, identity)
    except BadInput as error:
        print(f"fmnist: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What concerns the containers; the rest is for the job alone."""
    parser = argparse.ArgumentParser(prog="jobs.containers", allow_abbrev=False)
    parser.add_argument("--engine", choices=engines.NAMES, required=True)
    parser.add_argument("--image", help="[fmnist:cuda with a GPU, else fmnist:cpu; the other one where it is missing]")
    parser.add_argument("--memory", default="8g", help="the limit of each container [%(default)s]")
    parser.set_defaults(runs=[], teachers=[], recipe=None, data=None, devices="auto")
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    jobs.add_parser("devices", add_help=False)
    jobs.add_parser("tensorboard", add_help=False).add_argument("results", type=Path)
    for name in ("data", "tune", "train", "eval", "report", "export"):
        job = jobs.add_parser(name, add_help=False, allow_abbrev=False)
        if name in ("tune", "train"):
            job.add_argument("--run", type=Path, nargs=1, required=True, dest="runs")
            job.add_argument("--recipe", default="tuned-mlp")
            job.add_argument("--devices", default="auto")
        elif name != "data":
            job.add_argument("runs", type=Path, nargs="+")
        if name == "train":
            job.add_argument("--teacher", type=Path, action="append", default=[], dest="teachers")
        if name == "tune":
            job.add_argument("--workers", type=int)
            job.add_argument("--gpus-per-worker", type=int, default=1)
        if name != "report":
            job.add_argument("--data", type=Path, default=os.environ.get("FMNIST_DATA") or None)
    return parser.parse_known_args(arguments)


def _identity(options: argparse.Namespace) -> str:
    """The job on its run, which nobody else on this machine is to do meanwhile."""
    folders = [*options.runs, *([options.results] if options.job == "tensorboard" else [])]
    names = [str(folder.resolve()) for folder in folders] or [f"process {os.getpid()}"]
    return " ".join([options.job, *names])


def _run(options: argparse.Namespace, rest: Sequence[str], identity: str) -> None:
    engine = engines.choose(options.engine)
    image = _image(engine, options.image)
    mounts, command = _translate(options, rest)
    numbers = [] if options.job == "tensorboard" else [f"--env={name}" for name in environment.recorded()]
    containers = _Containers(engine, image, identity, [f"--memory={options.memory}", *numbers, *mounts])
    stop = stop_on_signals(containers.remove)
    with stop.in_order(), contextlib.ExitStack() as last:
        # What a launcher that was killed has left.
        containers.remove()
        last.callback(containers.remove)
        if options.job == "tune":
            visible = environment.gpus() if engine.gpus and options.devices in ("auto", "gpu") else []
            divided = shares(options.workers, options.gpus_per_worker, visible)
            if len(divided) > 1:
                containers.search(command, divided, options.runs[0], stop)
                return
            command += ["--workers", "1", "--gpus-per-worker", str(options.gpus_per_worker)]
        network = _TENSORBOARD if options.job == "tensorboard" else _ALONE
        sys.exit(containers.one(command, network, stop))


def _image(engine: Engine, wanted: str | None) -> str:
    """The image to run, said in a line with what it computes on."""
    names = [wanted] if wanted else ["fmnist:cuda", "fmnist:cpu"] if engine.gpus else ["fmnist:cpu", "fmnist:cuda"]
    found = engine.images(names)
    image = next((name for name in names if name in found), None)
    if image is None:
        build = f"make image ENGINE={engine.name} ACCELERATOR={'cuda' if engine.gpus else 'cpu'}"
        raise BadInput(f"{engine.name} has no image {' or '.join(names)}; `{build}` builds one")
    line = f"{engine.name}, image {image}, {engine.gpus_line}"
    if (here := revision()) not in (None, found[image]):
        line += f"; the image is of revision {found[image][:12]}, not of this checkout's ({here}): see `make image`"
    logger.info(line)
    return image


def _translate(options: argparse.Namespace, rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """The mounts, and the job's command line with the paths of the container."""
    if options.job == "tensorboard":
        command = ["tensorboard", "--logdir", "/results", "--host", "0.0.0.0", "--port", "6006"]
        return [_mount(options.results, "/results", read_only=True)], command
    mounts = []
    command = ["fmnist", options.job]
    inside = [f"/results/{run.resolve().name}" for run in options.runs]
    if options.runs:
        mounts.append(_mount(_results([*options.runs, *options.teachers], make=options.recipe is not None), "/results"))
    if options.recipe is None:
        command += inside
    else:
        recipe = options.recipe
        if recipe.endswith(".toml"):
            recipe = f"/recipes/{Path(recipe).name}"
            mounts.append(_mount(Path(options.recipe), recipe, read_only=True))
        command += ["--run", *inside, "--recipe", recipe, "--devices", options.devices]
        command += [f"--teacher=/results/{teacher.resolve().name}" for teacher in options.teachers]
    if options.data:
        mounts.append(_mount(Path(options.data), "/data", read_only=True))
        command += ["--data", "/data"]
    return mounts, [*command, *rest]


def _results(runs: Sequence[Path], *, make: bool) -> Path:
    """The folder of the run folders, which is the caller's."""
    folder, *others = {run.resolve().parent for run in runs}
    if others:
        raise BadInput(f"{' '.join(map(str, runs))}: runs of one folder belong together, not of several")
    if make:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"the folder {folder} cannot be made ({error.strerror}); choose another RESULTS") from error
    try:
        check_writable(folder)
    except OSError as error:
        raise BadInput(f"the folder {folder} cannot be written ({error.strerror}); choose another RESULTS") from error
    return folder


def _mount(source: Path, target: str, *, read_only: bool = False) -> str:
    if not source.exists():
        raise BadInput(f"{source} is missing")
    return f"--mount={mount(str(source.resolve()), target, *(['readonly'] if read_only else []))}"


class _Containers:
    """The containers of one job."""

    def __init__(self, engine: Engine, image: str, identity: str, options: Sequence[str]) -> None:
        self._engine = engine
        self._image = image
        self._label = f"{_LABEL}={identity}"
        self._name = f"fmnist-{single.digest(identity)}"
        self._options = [*_CONFINED, *_NO_PROXIES, *engine.user, *options]

    def one(self, command: Sequence[str], options: Sequence[str], stop: Stop) -> int:
        """Run `command` in a container; the exit code."""
        terminal = ["--tty", "--env=TERM"] if sys.stdout.isatty() and sys.stderr.isatty() else []
        # TensorBoard needs none. Without any, what the host says of them would be wrong inside.
        gpus = [] if command[0] == "tensorboard" else self._engine.gpus
        visible = ["--env=CUDA_VISIBLE_DEVICES"] if gpus and "CUDA_VISIBLE_DEVICES" in os.environ else []
        options = [*options, *terminal, *visible, *gpus]
        container = self._container("job", command, options, dict(os.environ))
        container.start()
        while container.code is None:
            if stop.wait(0.1):
                container.terminate()
                container.wait()
        return container.code if container.code >= 0 else 128 - container.code

    def search(self, command: Sequence[str], shares: Sequence[Share], run: Path, stop: Stop) -> None:
        """Run the search in `run` by containers for the chief and for one worker a share.

        Raises:
            Interrupted, SystemExit: as `supervise` does.
        """
        environment = {**os.environ, "FMNIST_TOKEN": secrets.token_urlsafe()}
        common = [f"--network={self._name}", "--env=FMNIST_TOKEN", f"--env={deaths.LAST_END}"]
        self._engine("network", "create", f"--label={self._label}", self._name)

        def member(name: str, share: Share, *options: str) -> Member:
            its_options = [f"--env=KERASTUNER_TUNER_ID={name}", f"--env=CUDA_VISIBLE_DEVICES={share.visible_devices}"]
            return self._container(name, [*share.taskset, *command], [*common, *its_options, *options], environment)

        # The chief tells its host's name in the run folder, where the workers look for it.
        address = ("--hostname=chief", "--network-alias=chief", "--env=KERASTUNER_ORACLE_IP=0.0.0.0")
        chief = member("chief", Share(), *address)
        workers = [member(f"worker-{n}", share, *self._engine.gpus) for n, share in enumerate(shares)]
        supervise(chief, workers, Ending(run / "search" / "chief.json"), stop)

    def remove(self) -> None:
        """Remove every container and network of this job."""
        # Not by the label: of a path with a comma some engines make two filters.
        mine = ("--quiet", "--filter", f"name={self._name}")
        if containers := self._engine("ps", "--all", *mine, check=False).split():
            self._engine("rm", "--force", *containers, check=False)
        if networks := self._engine("network", "ls", *mine, check=False).split():
            self._engine("network", "rm", *networks, check=False)

    def _container(
        self, name: str, command: Sequence[str], options: Sequence[str], environment: dict[str, str]
    ) -> "_Container":
        full_name = f"{self._name}-{name}"
        run = [self._engine.name, "run", "--rm", f"--name={full_name}", f"--label={self._label}", *self._options]
        return _Container(self._engine, full_name, name, [*run, *options, self._image, *command], environment)


class _Container(Member):
    """A container; its process here is the engine's command that waits for it, and says its exit code."""

    def __init__(
        self, engine: Engine, full_name: str, name: str, command: Sequence[str], environment: dict[str, str]
    ) -> None:
        super().__init__(name, command, environment)
        self._engine = engine
        self._full_name = full_name

    @property
    def code(self) -> int | None:
        code = super().code
        return code if code is None or code <= 128 else 128 - code

    def start(self) -> None:
        # The engine's command may have died alone.
        self._remove()
        super().start()

    def oom_kills(self) -> Mapping[str, int]:
        # The container's own count goes with it.
        return deaths.oom_kills_of_machine()

    def terminate(self) -> None:
        # By its name: a signal to the engine's command does not always arrive.
        told = self._engine("kill", "--signal", "TERM", self._full_name, check=False)
        if not told:
            # It does not run yet.
            super().terminate()

    def kill(self) -> None:
        self._remove()
        super().kill()

    def _remove(self) -> None:
        self._engine("rm", "--force", self._full_name, check=False)


if __name__ == "__main__":
    main()
