"""Define the options that several commands share."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from fmnist.recipe import config
from fmnist.recipe.schema import MOST_SEED


def _quiet(wanted: bool) -> None:
    if wanted:
        logging.getLogger().setLevel(logging.WARNING)


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
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: training.batch_size=256.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", envvar="FMNIST_DATA", help="Folder of the four IDX files.")
]
DevicesOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, gpu, N (GPUs) or cpu:N.")]
PrecisionOption = Annotated[
    str, typer.Option(metavar="NAME", help="auto, float32, mixed_bfloat16, mixed_float16.", show_default=False)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="Print warnings and results, no progress.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
