"""The command line: each command parses, then calls one function. TensorFlow is imported by the job that needs it."""

import errno
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fmnist import __version__, config
from fmnist.errors import EXIT_BAD_INPUT, EXIT_FAILED, BadInput, Restart, SearchFailed, disk_full
from fmnist.rundir import RunDir
from fmnist.signals import stop_on_signals

app = typer.Typer(
    help="Find, train and judge dense-only networks on Fashion-MNIST.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeOption = Annotated[str, typer.Option("--recipe", help="A recipe's name, or the path of a TOML file.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of everything random.")]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="The run folder.", show_default="results/<recipe>-seed<seed>")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. training.batch_size=256.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", envvar="FMNIST_DATA", help="A folder with the four IDX files.")
]
DevicesOption = Annotated[str, typer.Option(help="auto, cpu, gpu, a number of GPUs, or cpu:N.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32, mixed_bfloat16 or mixed_float16.")]
RunArgument = Annotated[Path, typer.Argument(help="The run folder.")]

# What the file system may refuse, as opposed to a bug of ours.
_NOT_OURS = {errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of every command."""


@app.command("data")
def data_(directory: DataOption = None) -> None:
    """Find or fetch the data set and verify its four files."""
    from fmnist import data

    source = data.fetch(directory)
    print(f"{source.name} in {source.directory}")
    for name, digest in source.sha256.items():
        print(f"{digest}  {name}")


@app.command()
def tune(
    recipe: RecipeOption = "tuned-mlp",
    seed: SeedOption = 0,
    run: RunOption = None,
    overrides: SetOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; more than before adds some.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that train trials.", show_default="one a GPU, or 1")
    ] = None,
    gpus_per_worker: Annotated[int, typer.Option(min=1, help="More than one trains each trial on several.")] = 1,
    status: Annotated[Path | None, typer.Option(metavar="RUN", help="Only print how far that search is.")] = None,
    data: DataOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Search for the best configuration with Keras Tuner."""
    from fmnist.search import local, roles, supervise
    from fmnist.search.status import show

    if status:
        show(RunDir(status))
        return
    extra = [f"search.trials={trials}"] if trials else []
    resolved = config.load(recipe, [*(overrides or ()), *extra])
    stop = stop_on_signals()
    folder = _run_dir(run, resolved, seed)
    role = roles.from_environment()
    if role is None and resolved.search:
        gpus = supervise.gpus() if devices in ("auto", "gpu") else []
        shares = supervise.shares(workers, gpus_per_worker, gpus)
        if len(shares) > 1:
            folder.claim(resolved, seed)
            local.run(folder, [sys.executable, "-m", "fmnist", *sys.argv[1:]], shares, stop)
            return
        if shares[0].gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = shares[0].visible_devices
    from fmnist.devices import choose
    from fmnist.tune import tune

    # The chief computes nothing.
    chosen = choose("cpu" if role and role.is_chief else devices, precision)
    tune(folder, resolved, seed, data, chosen, stop, role)


@app.command()
def train(
    recipe: RecipeOption = "tuned-mlp",
    seed: SeedOption = 0,
    run: RunOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Train the search's best configuration, or a fixed recipe, to the final model."""
    resolved = config.load(recipe, overrides or ())
    stop = stop_on_signals()
    from fmnist.devices import choose
    from fmnist.train import train

    train(_run_dir(run, resolved, seed), resolved, seed, data, choose(devices, precision), stop)


@app.command("eval")
def evaluate(run: RunArgument, data: DataOption = None) -> None:
    """Judge the final model on the test set, once."""
    from fmnist.devices import choose
    from fmnist.evaluate import evaluate

    # Or TensorFlow would take all of a GPU's memory.
    choose(precision="float32")
    test = evaluate(RunDir(run), data)["test"]
    low, high = test["accuracy_interval"]
    print(f"test accuracy {test['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f})")


@app.command()
def report(run: RunArgument) -> None:
    """Write report.html and print the summary."""
    from fmnist.report import summary, write

    path = write(RunDir(run))
    print(summary(RunDir(run)))
    print(f"report: {path}")


@app.command("devices")
def devices_(devices: DevicesOption = "auto", precision: PrecisionOption = "auto") -> None:
    """Print what the machine has and what would be chosen."""
    from fmnist.devices import choose, inventory

    print("\n".join(inventory()))
    print(f"chosen: {choose(devices, precision)}")


def main() -> None:
    """Run the command and end with its exit code: one line for a person, a traceback for a bug alone."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("tensorflow", "absl", "h5py"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        # Not standalone, where a command line that cannot be parsed would end in a box of several lines.
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        sys.exit(_fail(f"{error.format_message()} (see `fmnist --help`)"))
    except BadInput as error:
        sys.exit(_fail(str(error)))
    except Restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except SearchFailed as error:
        sys.exit(_fail(str(error), EXIT_FAILED))
    except Exception as error:
        if not disk_full(error) and getattr(error, "errno", None) not in _NOT_OURS:
            raise
        # TensorFlow puts the operation's name before the file's, and a trace below it.
        reason = str(error).splitlines()[0].rpartition("}} ")[2]
        sys.exit(_fail(f"{reason}; make room, or choose another folder with --run"))


def _fail(message: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"fmnist: {message}", file=sys.stderr)
    return code


def _run_dir(run: Path | None, recipe: config.Recipe, seed: int) -> RunDir:
    return RunDir(run or Path("results") / f"{recipe.name}-seed{seed}")
