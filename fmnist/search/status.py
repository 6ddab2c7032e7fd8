"""Show the progress of a search, read from its run folder: once for `--status`, and live on a terminal."""

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fmnist.errors import SearchFailed
from fmnist.progress import logging_to_stderr
from fmnist.recipe.schema import Recipe
from fmnist.run import records
from fmnist.run.folder import RunDir, read_trials

logger = logging.getLogger(__name__)

_ENDED = ("COMPLETED", "FAILED")


def search_finished(run: RunDir, recipe: Recipe) -> bool:
    """Tell whether the search of `recipe` in `run` is finished: it has run all trials, or used up its space.

    Raises:
        BadInput: trials.csv is damaged.
    """
    rows = read_trials(run.trials)
    statuses = {row["status"] for row in rows}
    # If a person removes one of these files, the search continues from the others.
    whole = run.search.exists() and (run.best.exists() or "COMPLETED" not in statuses)
    ended = bool(rows) and statuses <= set(_ENDED)
    return whole and ended and (len(rows) >= recipe.require_search().trials or run.used_up.exists())


def outcome(run: RunDir, recipe: Recipe) -> str:
    """Return a line with the result of a finished search.

    Raises:
        SearchFailed: every trial failed.
        BadInput: a file of the search is damaged.
    """
    rows = read_trials(run.trials)
    if not any(row["status"] == "COMPLETED" for row in rows):
        reason = rows[-1].get("message") if rows else "none was run"
        raise SearchFailed(f"all {len(rows)} trials of the search failed; the last one: {reason}")
    best = records.read(run.best, records.Best)
    found = f"best of {len(rows)} trials: {best['trial']}, {best['objective']} {best['score']:.4f}"
    return "; ".join(filter(None, [found, _used_up(run, len(rows), recipe)]))


def _used_up(run: RunDir, tried: int, recipe: Recipe) -> str:
    wanted = recipe.require_search().trials
    if not run.used_up.exists() or tried >= wanted:
        return ""
    return f"the space is used up after {tried} of {wanted} trials: more would try nothing new"


def show(run: RunDir) -> None:
    """Print the progress of the search in `run`.

    Raises:
        BadInput: there is no search.
    """
    Console(file=sys.stdout).print(_render(run))


@contextlib.contextmanager
def live(run: RunDir) -> Iterator[Callable[[str], None] | None]:
    """Show the search's progress on stderr, below the log; yield a function that prints a line above it.

    If stderr is not a terminal, or logs are quiet, show nothing and yield None.
    """
    console = Console(stderr=True)
    if not console.is_terminal or not logger.isEnabledFor(logging.INFO):
        yield None
        return

    def render() -> RenderableType:
        # A file may be damaged, or its file system unavailable: the search itself reports that.
        with contextlib.suppress(Exception):
            return _render(run)
        return Text()

    with Live(console=console, get_renderable=render, refresh_per_second=1), logging_to_stderr():
        yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _render(run: RunDir) -> RenderableType:
    recipe, _ = run.recipe()
    search = recipe.require_search()
    rows = read_trials(run.trials)
    counts = Counter(row["status"] for row in rows)
    ended = sum(counts[status] for status in _ENDED)
    running = [row for row in rows if row["status"] == "RUNNING" and row.get("worker")]
    parts = [f"{counts['COMPLETED']} of {search.trials} trials done", f"{len(running)} running"]
    parts.append(f"{counts['FAILED']} failed")
    if run.best.exists():
        best = records.read(run.best, records.Best)
        parts.append(f"best {best['objective']} {best['score']:.4f} (trial {best['trial']})")
    seconds = [float(row.get("seconds") or 0) for row in rows if row["status"] == "COMPLETED"]
    if seconds and running:
        left = (search.trials - ended) * sum(seconds) / len(seconds) / len(running)
        parts.append(f"about {_duration(left)} left")
    if used_up := _used_up(run, len(rows), recipe):
        parts.append(used_up)
    return Group(Text(", ".join(parts)), _workers(rows))


def _workers(rows: list[dict[str, str]]) -> Table:
    """Return a table of the workers: their finished and failed trials, and their present one."""
    table = Table("worker", "trials", "failed", "now", box=None, pad_edge=False)
    for worker in sorted({row.get("worker", "") for row in rows} - {""}):
        its = [row for row in rows if row.get("worker") == worker]
        failed = sum(row["status"] == "FAILED" for row in its)
        now = [f"trial {row['trial']}" for row in its if row["status"] == "RUNNING"]
        # As `Text`, since a string would be read as markup.
        table.add_row(Text(worker), str(sum(row["status"] in _ENDED for row in its)), str(failed), " ".join(now))
    return table


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
