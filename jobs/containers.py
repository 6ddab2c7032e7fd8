"""Run fmnist's jobs in containers: one for a job, or one for the chief of a search and one for each of its workers.

usage: python3 -m jobs.containers --engine ENGINE [--image IMAGE] [--memory LIMIT] JOB [what `fmnist JOB` takes]

A container sees only what the job's command line names, each path as on the host: the folder of the run folders, and
read-only a recipe's file and a folder of data. It works in the caller's folder, so the command line needs no change.
Standard library only: whoever has a container engine needs no virtual environment.
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
from fmnist.files import expand_home
from fmnist.revision import revision
from fmnist.search import deaths
from fmnist.search.supervise import ONE, Ending, Member, Share, gpus_to_share, shares, supervise
from fmnist.signals import TOLD, Stop, stop_on_signals
from fmnist.text import escaped, printable
from jobs import engines, single, tensorboard
from jobs.engines import Engine, Image
from jobs.mounts import empty, mount
from jobs.options import Parser

logger = logging.getLogger(__name__)

_MAKE_RUNS = ("tune", "train")
_OF_RUNS = ("eval", "report", "export", "runs", "tensorboard")  # these take run folders, or theirs, as arguments
_LABEL = "fmnist.job"
# Folders that the image or the engine provides.
_OWN = (
    "/bin", "/dev", "/etc", "/lib", "/lib64", "/opt/fmnist", "/proc", "/sys", "/tmp",
    "/usr/bin", "/usr/lib", "/usr/share",
)  # fmt: skip
_CONFINED = (
    "--pull=never", "--read-only", "--tmpfs=/tmp:rw,nosuid,nodev,noexec,mode=1777",
    "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=2048",
    # Otherwise SELinux would require the user's own files to be relabelled.
    "--security-opt=label=disable",
)  # fmt: skip
_TERMINATE_SECONDS = 1.0  # between two requests to end
_ALONE = ("--network=none",)
_TENSORBOARD = (
    # TensorBoard computes nothing, so TensorFlow's messages about devices would only confuse.
    "--env=TF_CPP_MIN_LOG_LEVEL=2", "--env=TF_ENABLE_ONEDNN_OPTS=0",
)  # fmt: skip
# Engines pass on the site's proxies by default, but these containers have nothing to reach through them.
_NO_PROXIES = tuple(
    f"--env={name}="
    for scheme in ("http", "https", "ftp", "all")
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
)


def main() -> None:
    """Run the job that the command line names, and exit with its code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options = _parse(expand_home(sys.argv[1:]))
        identity = _identity(options)
        with single.only(identity):
            _run(options, identity)
    except BadInput as error:
        print(f"fmnist: {escaped(str(error))}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options of the containers, and those of the job that name files or set the number of processes."""
    parser = Parser(prog="jobs.containers", allow_abbrev=False)
    parser.add_argument("--engine", choices=engines.NAMES, required=True)
    parser.add_argument("--image", help="[fmnist:cuda with a GPU, else fmnist:cpu; the other one where it is missing]")
    parser.add_argument("--memory", default="8g", help="the limit of each container [%(default)s]")
    parser.add_argument("job", choices=("data", "devices", *_MAKE_RUNS, *_OF_RUNS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what `fmnist JOB` takes")
    options = parser.parse_args(arguments)
    reads_data = options.job not in ("devices", "report", "runs", "tensorboard")
    job = Parser(prog=f"fmnist {options.job}", add_help=False, allow_abbrev=False)
    job.add_argument("--run", required=options.job in _MAKE_RUNS)
    job.add_argument("--recipe", default="")
    job.add_argument("--data", default=(os.environ.get("FMNIST_DATA") or None) if reads_data else None)
    job.add_argument("--output", "-o")
    job.add_argument("--format")  # so that its value is not taken for a run
    job.add_argument("--sort")
    job.add_argument("--port", default="6006")
    job.add_argument("--workers", type=int)
    job.add_argument("--gpus-per-worker", type=int, default=1)
    job.add_argument("--devices", default="auto")
    _, others = job.parse_known_args(options.arguments, options)
    named = [word for word in others if not word.startswith("-")] if options.job in _OF_RUNS else []
    options.runs = [os.path.abspath(run) for run in ([options.run] if options.run else named)]
    return options


def _identity(options: argparse.Namespace) -> str:
    """Return the name of the job and its run, of which only one may be at work on this machine."""
    names = map(os.path.realpath, options.runs) if options.runs else [f"process {os.getpid()}"]
    return " ".join([options.job, *names])


def _run(options: argparse.Namespace, identity: str) -> None:
    engine = engines.choose(options.engine)
    image = _image(engine, options.image)
    common = [f"--memory={options.memory}", *_mounts(options)]
    if options.job == "tensorboard":
        command = ["tensorboard", "--host=0.0.0.0", "--port=6006", "--logdir", *options.runs]
    else:
        command = ["fmnist", options.job, *options.arguments]
        common += [f"--env={TOLD}=1", *(f"--env={name}" for name in environment.recorded())]
        common += [f"--env={name}" for name in ("FMNIST_DATA", "CUDA_DEVICE_ORDER") if os.environ.get(name)]
    if strange := [word for word in (*common, *command) if word.encode(errors="replace") != os.fsencode(word)]:
        raise BadInput(f"{engine.name} takes names in UTF-8 alone, unlike {printable(strange[-1])}")
    containers = _Containers(engine, image, identity, common)
    stop = stop_on_signals(containers.remove)
    with stop.in_order(), contextlib.ExitStack() as last:
        # Remove what a killed launcher left.
        containers.remove()
        last.callback(containers.remove)
        if options.job == "tune":
            visible = gpus_to_share(options.devices, options.workers)
            divided = shares(options.workers, options.gpus_per_worker, visible if _gpus(engine, image) else [])
            if len(divided) > 1:
                containers.search([*command, ONE], divided, Path(options.run), stop)
                return
        reached: Sequence[str] = _ALONE
        if options.job == "tensorboard":
            tensorboard.announce(options.port)
            reached = (f"--publish=127.0.0.1:{options.port}:6006", *_TENSORBOARD)
        sys.exit(containers.one(command, reached, stop))


def _image(engine: Engine, wanted: str | None) -> Image:
    """Return the image to run, and log a line with it and with what it computes on."""
    names = [wanted] if wanted else ["fmnist:cuda", "fmnist:cpu"] if engine.gpus else ["fmnist:cpu", "fmnist:cuda"]
    image = next(filter(None, map(engine.image, names)), None)
    if image is None:
        raise BadInput(f"{engine.name} has no image {' or '.join(names)}; `{_build(engine)}` builds one")
    line = f"{engine.name}, image {image.name}, {engine.gpus_line}"
    if engine.gpus and not _gpus(engine, image):
        line += f" that this image cannot use: on the CPU; `{_build(engine)}` builds one that can"
    if (here := revision()) not in (None, image.revision):
        theirs = f"revision {image.revision[:12]}" if image.revision else "an unknown revision"
        line += f"; the image is of {theirs}, not of this checkout's ({here}): see `make image`"
    logger.info(line)
    return image


def _build(engine: Engine) -> str:
    return f"make image ENGINE={engine.name} ACCELERATOR={'cuda' if engine.gpus else 'cpu'}"


def _gpus(engine: Engine, image: Image) -> list[str]:
    """Return the options that give a container of the image the GPUs; none where it could not use them."""
    return [] if image.accelerator == "cpu" else engine.gpus


def _mounts(options: argparse.Namespace) -> list[str]:
    """Return the options for what the job sees of the host, and for the folder that it works in."""
    logs, runs = (options.runs, []) if options.job in ("runs", "tensorboard") else ([], options.runs)
    recipe = options.recipe if options.recipe.endswith(".toml") else None
    how = {os.path.abspath(path): ["readonly"] for path in (recipe, options.data, *logs) if path}
    # Outputs and runs may not exist yet, so mount the folders that hold them; for a run that is a link, its target too.
    how |= {os.path.dirname(os.path.abspath(path)): [] for path in (options.output, *runs) if path}
    how |= {run: [] for run in runs if os.path.islink(run)}
    if options.job in _MAKE_RUNS:
        folder = os.path.dirname(runs[0])
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise BadInput(f"the folder {folder} cannot be made ({error.strerror}); choose another RESULTS") from error
    for path in how:
        if not os.path.exists(path):
            raise BadInput(f"{path} is missing")
        if _hides(path):
            raise BadInput(f"a container has a {path} of its own, so it cannot see this one; name a folder below it")
    here = os.getcwd()
    is_there = _hides(here) or any(Path(here).is_relative_to(path) for path in how)
    lines = [*(mount(path, *how[path]) for path in how), *([] if is_there else [empty(here)])]
    return [*(f"--mount={line}" for line in lines), f"--workdir={here}"]


def _hides(path: str) -> bool:
    """Return whether a mount at `path` would hide a folder of the container's own."""
    return any(Path(own).is_relative_to(path) for own in _OWN)


class _Containers:
    """The containers of one job."""

    def __init__(self, engine: Engine, image: Image, identity: str, options: Sequence[str]) -> None:
        self._engine = engine
        self._image = image.id
        self._gpus = _gpus(engine, image)
        self._label = f"{_LABEL}={identity}"
        # Another user's container of this run is not to be removed; the run folder's lock refuses the second job.
        self._name = f"fmnist-{single.digest(f'{os.getuid()} {identity}')}"
        self._options = [*_CONFINED, *_NO_PROXIES, *engine.user, *options]

    def one(self, command: Sequence[str], options: Sequence[str], stop: Stop) -> int:
        """Run `command` in a container, and return its exit code."""
        terminal = ["--tty", "--env=TERM"] if sys.stdout.isatty() and sys.stderr.isatty() else []
        # TensorBoard needs no GPU. In a container without GPUs, the host's CUDA_VISIBLE_DEVICES would be wrong.
        gpus = [] if command[0] == "tensorboard" else self._gpus
        visible = ["--env=CUDA_VISIBLE_DEVICES"] if gpus and "CUDA_VISIBLE_DEVICES" in os.environ else []
        options = [*options, *terminal, *visible, *gpus]
        container = self._container("job", command, options, dict(os.environ))
        stop.check()
        container.start()
        while container.code is None:
            if stop.wait(0.1):
                # Again and again: a container that does not run yet may not hear it.
                container.terminate()
                container.wait(_TERMINATE_SECONDS)
        return container.code if container.code >= 0 else 128 - container.code

    def search(self, command: Sequence[str], shares: Sequence[Share], run: Path, stop: Stop) -> None:
        """Run the search in `run` with a container for the chief, and one for the worker of each share.

        Raises:
            Interrupted, SystemExit: as `supervise` does.
        """
        environment = {**os.environ, "FMNIST_TOKEN": secrets.token_urlsafe()}
        common = [f"--network={self._name}", "--env=FMNIST_TOKEN", f"--env={deaths.LAST_END}"]
        self._engine("network", "create", f"--label={self._label}", self._name)

        def member(name: str, share: Share, *options: str) -> Member:
            its_options = [f"--env=KERASTUNER_TUNER_ID={name}", f"--env=CUDA_VISIBLE_DEVICES={share.visible_devices}"]
            return self._container(name, [*share.taskset, *command], [*common, *its_options, *options], environment)

        # The chief writes its host's name into the run folder, where the workers look for it.
        address = ("--hostname=chief", "--network-alias=chief", "--env=KERASTUNER_ORACLE_IP=0.0.0.0")
        chief = member("chief", Share(), *address)
        workers = [member(f"worker-{n}", share, *self._gpus) for n, share in enumerate(shares)]
        supervise(chief, workers, Ending(run / "search" / "chief.json"), stop)

    def remove(self) -> None:
        """Remove every container and network of this job."""
        # Not by the label: some engines make two filters of a path with a comma.
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
    """A container; its local process is the engine's command, which waits for it and returns its exit code."""

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
        # The engine's command may have died without its container.
        self._remove()
        super().start()

    def oom_kills(self) -> Mapping[str, int]:
        # The container's own count disappears with it.
        return deaths.oom_kills_of_machine()

    def terminate(self) -> None:
        # By the container's name: a signal to the engine's command does not always reach the container.
        told = self._engine("kill", "--signal", "TERM", self._full_name, check=False)
        if not told:
            # The container does not run yet.
            super().terminate()

    def kill(self) -> None:
        self._remove()
        super().kill()

    def _remove(self) -> None:
        self._engine("rm", "--force", self._full_name, check=False)


if __name__ == "__main__":
    main()
