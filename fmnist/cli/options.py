"""The options that several commands share."""

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
        "--recipe", metavar="RECIPE", help="A recipe's name or a TOML file.", autocompletion=lambda: config.names()
    ),
]
SeedOption = Annotated[int, typer.Option(metavar="N", min=0, max=MOST_SEED, help="Of everything random.")]
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="The run folder; else results/<recipe>-seed<seed>.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: training.batch_size=256.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", envvar="FMNIST_DATA", help="Where the four IDX files are.")
]
DevicesOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, gpu, N (GPUs) or cpu:N.")]
PrecisionOption = Annotated[
    str, typer.Option(metavar="NAME", help="auto, float32, mixed_bfloat16, mixed_float16.", show_default=False)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="No progress: warnings and results alone.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)]
