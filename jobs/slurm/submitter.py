"""Submit the pipeline to Slurm: chief, array of workers, train, eval, report, each with the resources it asks for."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from fmnist import environment
from fmnist.data import dataset
from fmnist.errors import BadInput
from fmnist.files import copy, open_regular, read_json, write_json
from fmnist.run.folder import RunDir
from fmnist.search.status import show
from jobs.mounts import mount
from jobs.pipeline import Pipeline, Site, need
from jobs.slurm.environment import inherited

logger = logging.getLogger(__name__)

RUNTIMES = ("none", "podman", "apptainer", "pyxis")
_SCRIPTS = Path(__file__).parent
_LINES = 20
_LEAST_MINUTES = 5
_END_SECONDS = 90.0  # Slurm's own KillWait is 30


def submit(pipeline: Pipeline, site: Site) -> None:
    """Submit the jobs; each starts when the one before has succeeded.

    Raises:
        BadInput: a setting is wrong, or Slurm refuses a job; nothing is left in the queue.
    """
    need("sbatch", "Slurm")
    if site.time is not None and site.time < _LEAST_MINUTES:
        raise BadInput(f"TIME={site.time}: a job is told to stop two minutes before; give {_LEAST_MINUTES} at least")
    if site.runtime not in RUNTIMES:
        raise BadInput(f"RUNTIME={site.runtime} is not known; use one of {', '.join(RUNTIMES)}")
    if site.runtime != "none" and not site.image:
        raise BadInput(f"RUNTIME={site.runtime} needs IMAGE, an image that the nodes have or can pull")
    if "\\" in str(pipeline.logs.absolute()):
        raise BadInput(f"{pipeline.logs}: Slurm cannot number the workers' logs in a path with a backslash")
    if site.runtime == "none" or pipeline.data:
        dataset.fetch(pipeline.data)
    if site.runtime == "none" and pipeline.gpus_per_worker and not find_spec("nvidia"):
        logger.warning(
            "this environment has no CUDA, so jobs would train on processors: `make setup ACCELERATOR=cuda` makes one "
            "that has; GPUS_PER_WORKER=0 asks for no GPUs"
        )
    if queued := _queued(pipeline.run):
        raise BadInput(f"{pipeline.run} is in the queue already, as jobs {' '.join(queued)}; `make cancel` ends them")
    with pipeline.prepared():
        ids: dict[str, str] = {}
        try:
            _submit(pipeline, site, ids)
        except BaseException:
            _cancel([*ids.values()])
            _ids(pipeline.run).unlink(missing_ok=True)
            raise
    print("submitted " + ", ".join(f"{name} {number}" for name, number in ids.items() if name != "end"))
    print(f"`make status` with the same variables shows how far they are; to watch: tail -F {pipeline.logs}/*.log")


def _submit(pipeline: Pipeline, site: Site, ids: dict[str, str]) -> None:
    """Submit the jobs one after another, and put each one's id into `ids` and into the run folder."""
    run = str(pipeline.run.path.absolute())
    # Slurm would replace, for example, %A in the path by an array's id.
    logs = str(pipeline.logs.absolute()).replace("%", "%%")
    recipe = _recipe(pipeline)
    jobs_environment = _environment(pipeline, site)

    def sbatch(name: str, script: str, options: Sequence[str], arguments: Sequence[str]) -> str:
        command = ["sbatch", "--parsable", "--export=ALL", f"--job-name={name}", *_site(site), *options]
        answer = subprocess.run(
            [*command, str(_SCRIPTS / script), *arguments],
            env=jobs_environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if answer.returncode:
            raise BadInput(f"Slurm refuses the job {name}: {answer.stderr.strip().removeprefix('sbatch: error: ')}")
        return answer.stdout.strip().partition(";")[0]

    def job(name: str, script: str, verb: str, *options: str, after: str = "", log: str = "") -> None:
        common = [f"--output={logs}/{log or name}.log", "--open-mode=append", "--requeue"]
        common += ["--nodes=1", "--ntasks=1", "--signal=B:USR2@120", "--kill-on-invalid-dep=yes"]
        dependency = [f"--dependency={after}"] if after else []
        note(name, sbatch(name, script, [*common, *dependency, *options], pipeline.arguments(verb, recipe, run)))

    def note(name: str, number: str) -> None:
        ids[name] = number
        # At once: if this process is killed, `make cancel` still knows the job.
        write_json(_ids(pipeline.run), ids)

    gpus = pipeline.gpus_per_worker
    small = ["--cpus-per-task=1", "--mem=2G"]
    compute = [f"--cpus-per-task={site.cpus}", *_option("mem", site.memory)]
    after = ""
    if pipeline.resolved.search:
        job("chief", "chief.sbatch", "tune", *small)
        array = [f"--array=0-{pipeline.worker_jobs - 1}", f"--export=ALL,FMNIST_CHIEF_JOB={ids['chief']}"]
        array += [*compute, *([f"--gres=gpu:{gpus}"] if gpus else [])]
        job("workers", "worker.sbatch", "tune", *array, after=f"after:{ids['chief']}", log="worker-%a")
        searching = [ids["chief"], ids["workers"]]
        anyone = "?".join(f"afterany:{number}" for number in searching)
        options = ["--cpus-per-task=1", "--mem=100M", "--output=/dev/null", f"--dependency={anyone}"]
        note("end", sbatch("end", "end.sbatch", options, searching))
        after = f"afterok:{ids['chief']}"
    whole = ["--exclusive", "--mem=0", "--gres=gpu:1"]  # all of a node that has GPUs
    job("train", "job.sbatch", "train", *(whole if gpus else compute), after=after)
    job("eval", "job.sbatch", "eval", *compute, after=f"afterok:{ids['train']}")
    job("report", "job.sbatch", "report", *small, after=f"afterok:{ids['eval']}")


def _site(site: Site) -> list[str]:
    return [*_option("account", site.account), *_option("partition", site.partition), *_option("time", site.time)]


def _option(name: str, value: str | int | None) -> list[str]:
    return [] if value is None else [f"--{name}={value}"]


def _recipe(pipeline: Pipeline) -> str:
    """Return the recipe for the jobs' command lines; copy a file into the run folder, where every node sees it."""
    source = pipeline.recipe_file()
    if source is None:
        return pipeline.recipe
    return str(copy(source, pipeline.state.absolute() / source.name))


def _mounts(pipeline: Pipeline, site: Site) -> str:
    """Return what a job in a container sees, under the same paths, in the runtime's notation."""
    folders = [str(folder.absolute()) for folder in (pipeline.run.path, pipeline.data) if folder]
    # Certificate and key may be one file.
    files = sorted(set(_tls_files().values()))
    if site.runtime != "pyxis":
        return "\n".join([*map(mount, folders), *(mount(file, "ro") for file in files)])
    for path in (*folders, *files):
        if re.search(r"[,:\s]", path):
            raise BadInput(f"{path}: pyxis cannot mount a path with a comma, a colon or a space; move or rename it")
    return ",".join([*(f"{folder}:{folder}" for folder in folders), *(f"{file}:{file}:ro" for file in files)])


def _tls_files() -> dict[str, str]:
    """Return the variables that name the files of TLS, with absolute paths: a container works in another folder.

    Raises:
        BadInput: a file is missing.
    """
    given = {name: os.environ.get(name) for name in ("FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY")}
    files = {name: os.path.abspath(path) for name, path in given.items() if path}
    for name, path in files.items():
        if not os.path.isfile(path):
            raise BadInput(f"{name}={path} is no file")
    return files


def _environment(pipeline: Pipeline, site: Site) -> dict[str, str]:
    ours = {
        "FMNIST_RUNTIME": site.runtime,
        "FMNIST_PYTHON": sys.executable,
        "FMNIST_REQUEUES": str(site.requeues),
        "FMNIST_MOUNTS": _mounts(pipeline, site),
        "FMNIST_TOKEN_FILE": str(pipeline.token.absolute()),
    }
    if site.image and site.runtime != "none":
        ours["FMNIST_IMAGE"] = site.image
        ours["FMNIST_VARIABLES"] = " ".join(environment.recorded())
    return {**inherited(), **_tls_files(), **ours}


def status(run: RunDir, _site: Site) -> None:
    """Print the state of each of the run's jobs, as long as Slurm remembers it."""
    ids = [number for name, number in _read(run).items() if name != "end"]
    lines = _squeue(ids, "%.12i %.10j %.10T %.10M %.20R", "--states=all").splitlines()
    print("\n".join(lines) if len(lines) > 1 else "Slurm has forgotten the run's jobs: they have ended")
    recipe, _ = run.recipe()
    if recipe.search:
        show(run)


def logs(run: RunDir, _site: Site) -> None:
    """Print the end of each log."""
    for path in sorted(run.path.glob("logs/*.log")):
        print(f"== {path}")
        with open_regular(path) as file:
            print("\n".join(file.read().decode("utf-8", "replace").splitlines()[-_LINES:]))


def cancel(run: RunDir, _site: Site) -> None:
    """Cancel the run's jobs, and wait until they have ended.

    Raises:
        BadInput: they have not ended within 90 seconds, or Slurm does not answer.
    """
    _cancel([*_read(run).values()])
    deadline = time.monotonic() + _END_SECONDS
    while queued := _queued(run):
        if time.monotonic() > deadline:
            raise BadInput(f"the jobs {' '.join(queued)} of {run} are still ending; `make status` shows them")
        time.sleep(0.5)
    print(f"none of the jobs of {run} is left in the queue")


def _ids(run: RunDir) -> Path:
    return run.path / "jobs" / "slurm.json"


def _read(run: RunDir) -> Mapping[str, str]:
    if not _ids(run).exists():
        raise BadInput(f"{run} was not submitted to Slurm; `make submit` does that")
    return read_json(_ids(run))


def _queued(run: RunDir) -> list[str]:
    """Return the ids of the run's jobs that have not ended."""
    if not _ids(run).exists():
        return []
    return sorted(set(_squeue([*_read(run).values()], "%F", "--noheader").split()))


def _squeue(ids: Sequence[str], form: str, *options: str) -> str:
    need("squeue", "Slurm")
    command = ["squeue", f"--format={form}", *options, f"--jobs={','.join(ids)}"]
    done = subprocess.run(command, env=inherited(), capture_output=True, encoding="utf-8", errors="replace")
    # Slurm calls forgotten jobs invalid. Any other failure says nothing about the jobs.
    if done.returncode and "Invalid job id" not in done.stderr:
        raise BadInput(f"Slurm does not answer: {done.stderr.strip().rpartition('squeue: ')[2]}")
    return done.stdout


def _cancel(ids: Sequence[str]) -> None:
    if ids:
        need("scancel", "Slurm")
        subprocess.run(["scancel", "--quiet", *ids], env=inherited(), check=False)
