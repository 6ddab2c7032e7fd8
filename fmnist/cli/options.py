"""Define the options that several commands share."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from fmnist.devices import PRECISIONS
from fmnist.recipe import config
from fmnist.recipe.schema import MOST_SEED, leaves


def _quiet(wanted: bool) -> None:
    if wanted:
        logging.getLogger().setLevel(logging.WARNING)


def formats() -> list[str]:
    """Return the formats of `export`, for the completion of a shell."""
    from fmnist.evaluation.export import FORMATS

    return [*FORMATS]


def sorts() -> list[str]:
    """Return the columns of `runs`, for the completion of a shell."""
    from fmnist.report.runs import SORTS

    return [*SORTS]


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe", metavar="RECIPE", help="Name of a recipe, or a TOML file.", autocompletion=lambda: config.names()
    ),
]
SeedOption = Annotated[int, typer.Option(metavar="N", min=0, max=MOST_SEED, help="Random seed.")]
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="Run folder; default: results/<recipe>-seed<seed>.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key: training.batch_size=256.",
        autocompletion=lambda: [f"{key}=" for key in leaves() if key not in ("name", "search.space")],
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", envvar="FMNIST_DATA", help="Folder of the four IDX files.")
]
DevicesOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, gpu, N (GPUs) or cpu:N.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, float32, mixed_bfloat16, mixed_float16.",
        show_default=False,
        autocompletion=lambda: PRECISIONS,
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="Print warnings and results, no progress.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
