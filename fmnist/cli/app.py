"""Define the command line: each command parses its options and calls one function, which imports what it needs."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fmnist import __version__, chatter, environment
from fmnist.cli.options import (
    DataOption,
    DevicesOption,
    JsonOption,
    PrecisionOption,
    QuietOption,
    RecipeOption,
    RunArgument,
    RunOption,
    SeedOption,
    SetOption,
    formats,
    sorts,
)
from fmnist.devices import inventory, on_gpu, request
from fmnist.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_GPU_FAILED,
    EXIT_INTERRUPTED,
    BadInput,
    Failed,
    GpuFailed,
    Restart,
    explain,
    first_line,
    gpu_failed,
    may_pass,
    out_of_memory,
)
from fmnist.files import expand_home, to_json
from fmnist.recipe import config
from fmnist.recipe.schema import MOST_TRIALS, Recipe
from fmnist.run.folder import RunDir
from fmnist.search.deaths import LAST_END
from fmnist.signals import Stop, stop_on_signals
from fmnist.text import escaped, file_name, print_anything, printable, shorten

app = typer.Typer(
    help="Search, train and evaluate dense networks on Fashion-MNIST.",
    epilog="Example: fmnist train --recipe regularized-mlp --seed 1",
    # Boxes around the options would make the help too wide for a screen.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# The devices for finished models. Without this choice TensorFlow would take all of a GPU's memory.
_INFERENCE = request(precision="float32")


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("data", epilog="Example: fmnist data")
def data_(directory: DataOption = None, quiet: QuietOption = False) -> None:
    """Find or fetch the data set and verify its four files."""
    from fmnist.data import dataset

    source = dataset.fetch(directory)
    print(f"{source.name} in {printable(source.directory)}; the SHA-256 of each file, unpacked:")
    for name, digest in source.sha256.items():
        print(f"{digest}  {name}")


@app.command(epilog="Example: fmnist tune --trials 40 --workers 2")
def tune(
    context: typer.Context,
    recipe: RecipeOption = "tuned-mlp",
    seed: SeedOption = 0,
    run: RunOption = None,
    overrides: SetOption = None,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=MOST_TRIALS, help="Trials in all; raise it to add some."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=1000, help="Processes; default: 1; on GPUs one each, or up to 4."),
    ] = None,
    gpus_per_worker: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="GPUs of each trial.")] = 1,
    status: Annotated[Path | None, typer.Option(metavar="RUN", help="Print how far that search is, and end.")] = None,
    data: DataOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print --status as JSON.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Search for the best configuration with Keras Tuner.

    Exit code 75: interrupted, the same command goes on; 130: a second Ctrl-C.
    """
    if status:
        from fmnist.search.status import show

        show(RunDir(status), as_json=json)
        return
    if json:
        raise BadInput("--json goes with --status")
    resolved = config.load(recipe, overrides or ())
    if trials:
        resolved.require_search()
        resolved = config.replace(resolved, {"search.trials": trials})
    from fmnist.search.launch import launch

    outcome = launch(
        _run_dir(run, resolved, seed), resolved, seed, data, devices, precision, _stop(context),
        workers=workers, gpus_per_worker=gpus_per_worker,
    )  # fmt: skip
    if outcome:
        print(outcome)


@app.command(epilog="Example: fmnist train --recipe regularized-mlp --set training.epochs=60")
def train(
    context: typer.Context,
    recipe: RecipeOption = "tuned-mlp",
    seed: SeedOption = 0,
    run: RunOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train a fixed recipe, or the best configuration of the search.

    Exit code 75: interrupted, the same command goes on; 130: a second Ctrl-C.
    """
    resolved = config.load(recipe, overrides or ())
    from fmnist.training.job import train

    folder = _run_dir(run, resolved, seed)
    print(train(folder, resolved, seed, data, request(devices, precision), _stop(context)))


@app.command("eval", epilog="Example: fmnist eval results/tuned-mlp-seed0")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.", show_default=False)],
    tta: Annotated[bool, typer.Option("--tta", help="Average over ten views of each image.")] = False,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Average over the models of several runs.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File of --ensemble; default: ensemble[-tta].json."),
    ] = None,
    data: DataOption = None,
    quiet: QuietOption = False,
) -> None:
    """Score the final model on the test set."""
    if len(runs) > 1 and not ensemble:
        raise BadInput("several runs: add --ensemble to average over their models, or name one run at a time")
    if output and not ensemble:
        raise BadInput("--output goes with --ensemble; one run's figures are kept in its folder")
    from fmnist.evaluation.job import evaluate, evaluate_averaged, evaluate_ensemble, sentence

    folders = [RunDir(run) for run in runs]
    if ensemble:
        print(sentence(evaluate_ensemble(folders, data, _INFERENCE, tta=tta, output=output)))
        return
    print(sentence(evaluate(folders[0], data, _INFERENCE)))
    if tta:
        print(sentence(evaluate_averaged(folders[0], data, _INFERENCE)))


@app.command(epilog="Example: fmnist report results/regularized-mlp-seed*")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The page; default: report.html or comparison.html."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the summary of a run, or compare several; write a page."""
    from fmnist.report import figures
    from fmnist.report import one as report
    from fmnist.report import several as report_several
    from fmnist.report.runs import finished

    folders = finished(list(map(RunDir, runs)))
    if output:
        for folder in folders:
            folder.check_output(output)
    # What is printed depends on what was asked for, not on how many of the runs are finished.
    if len(runs) == 1:
        path = report.write(folders[0], output)
        told = figures.of_run(folders[0]) if json else report.summary(folders[0])
    else:
        path = report_several.write(folders, output)
        told = figures.of_runs(folders) if json else report_several.summary(folders)
    if isinstance(told, str):
        print(f"{told}\nreport: {printable(path)}")
    else:
        print(to_json({**told, "report": printable(path)}), end="")


@app.command("runs", epilog="Example: fmnist runs --sort test")
def runs_(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the run folders.")] = Path("results"),
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column to sort by, such as val or when.", autocompletion=sorts)
    ] = "run",
    json: JsonOption = False,
) -> None:
    """List all runs: their state, figures, date and size."""
    from fmnist.report.runs import show

    show(directory, sort, as_json=json)


@app.command(epilog="Example: fmnist predict shoe.jpg --run results/tuned-mlp-seed0")
def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or IDX or NPY files.", show_default=False)
    ],
    run: Annotated[Path, typer.Option(metavar="RUN", help="Run folder of the model.")] = Path(
        "results/tuned-mlp-seed0"
    ),
    show: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG of the pictures and what the model sees of them.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each image.")] = False,
) -> None:
    """Classify images: print the three likeliest classes of each."""
    from fmnist.evaluation.predict import predict

    for prediction in predict(RunDir(run), images, _INFERENCE, show):
        print(prediction.json() if json else prediction)


@app.command(epilog="Example: fmnist export results/tuned-mlp-seed0 --format onnx")
def export(
    run: RunArgument,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="savedmodel, tflite, tflite-int8 or onnx.",
            show_default=False,
            autocompletion=formats,
        ),
    ],
    data: DataOption = None,
) -> None:
    """Convert the model for other runtimes, and check it."""
    from fmnist.evaluation.export import export

    print(export(RunDir(run), format, data, _INFERENCE))


@app.command(epilog="Example: fmnist evidence --recipe regularized-mlp --seeds 5")
def evidence(
    context: typer.Context,
    recipe: RecipeOption = "wide-mlp",
    seeds: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Seeds of the recipe, 5 or more.")] = 10,
    reference_seeds: Annotated[int, typer.Option(metavar="N", min=0, max=1000, help="Of each reference; 0: none.")] = 3,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folders.")] = Path("results"),
    data: DataOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train and score a recipe and its references with many seeds.

    Exit code 75: interrupted, the same command goes on; 130: a second Ctrl-C.
    """
    resolved = config.load(recipe)
    choose = request(devices, precision)
    from fmnist.study.job import evidence, plan

    planned = plan(resolved, seeds, reference_seeds, results)
    if text := evidence(planned, results, data, choose, _stop(context)):
        print(text, end="")


@app.command("devices", epilog="Example: fmnist devices --precision mixed_bfloat16")
def devices_(devices: DevicesOption = "auto", precision: PrecisionOption = "auto") -> None:
    """Print the devices of this machine, and what a job would choose."""
    choose = request(devices, precision)
    print("\n".join(inventory()))
    chosen = choose()
    print(f"chosen: {chosen}" + ("; a training takes one of them where that is faster" if chosen.optional else ""))


def main(stop: Stop | None = None) -> None:
    """Run the command and end with its exit code. An error prints one line for a person; only a bug, a traceback.

    Args:
        stop: the result of `stop_on_signals`, if that was already called.
    """
    print_anything()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.addFilter(lambda record: record.name.startswith("fmnist") or record.levelno >= logging.ERROR)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        # In standalone mode a command line that cannot be parsed would end in a box of several lines.
        code = app(expand_home(sys.argv[1:]), standalone_mode=False, obj=stop or stop_on_signals())
        # Flushed here, so that an error, such as a full disk, is handled below.
        print(end="", flush=True)
        sys.exit(code)
    except typer.TyperException as error:
        sys.exit(_fail(f"{error.format_message()} (see `fmnist --help`)"))
    except BadInput as error:
        sys.exit(_fail(str(error), EXIT_INTERRUPTED if may_pass(error) else EXIT_BAD_INPUT))
    except Restart:
        chatter.release()
        same = environment.original()
        # What a parent said of the process before this one is no news of this one.
        same.pop(LAST_END, None)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], same)
    except GpuFailed as error:
        sys.exit(_fail(str(error), EXIT_GPU_FAILED))
    except Failed as error:
        sys.exit(_fail(str(error), EXIT_FAILED))
    except Exception as error:
        line = explain(error)
        # TensorFlow raises the same exception when memory runs out and when a disk is full.
        if line is None and out_of_memory(error):
            of = f" ({error})" if isinstance(error, MemoryError) and str(error) else ""
            line = f"out of memory{of}; free some, choose fewer units or a smaller batch, or take a larger machine"
        elif line is None and isinstance(error, OSError) and error.errno is None:
            # An error without a number, from a library such as HDF5.
            line = shorten(str(error))
        if line is None and gpu_failed(error) and on_gpu():
            sys.exit(_fail(f"the GPU failed: {first_line(error)}", EXIT_GPU_FAILED))
        if line is None:
            raise
        sys.exit(_fail(line, EXIT_INTERRUPTED if may_pass(error) else EXIT_BAD_INPUT))


def _stop(context: typer.Context) -> Stop:
    return context.find_object(Stop) or stop_on_signals()


def _fail(message: str, code: int = EXIT_BAD_INPUT) -> int:
    print(f"fmnist: {escaped(message)}", file=sys.stderr)
    return code


class _Formatter(logging.Formatter):
    """The message alone, in which names from outside may hold what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(escaped, super().format(record).split("\n")))


def _run_dir(run: Path | None, recipe: Recipe, seed: int) -> RunDir:
    return RunDir(run or Path("results", file_name(f"{recipe.name}-seed{seed}")))
