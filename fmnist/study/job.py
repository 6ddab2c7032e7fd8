"""Run `evidence`: train a recipe and its references with many seeds, and only then use the test set.

Any number of processes can share the trainings, on one machine or several, by the locks of the run folders.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmnist.devices import Devices
from fmnist.errors import BadInput, Busy, Restart
from fmnist.evaluation import averaging
from fmnist.evaluation.job import evaluate, evaluate_averaged, evaluate_ensemble
from fmnist.files import write_json, write_text
from fmnist.recipe import config
from fmnist.recipe.schema import Recipe
from fmnist.run.folder import RunDir
from fmnist.search import status
from fmnist.search.job import tune
from fmnist.signals import Stop
from fmnist.study import baselines, table
from fmnist.study.table import Judged, Row
from fmnist.text import file_name, printable
from fmnist.training.job import finished, train, with_best

logger = logging.getLogger(__name__)

_REFERENCES = ("baseline-mlp", "regularized-mlp", "tuned-mlp")
_MEMBERS = 5  # of an ensemble


@dataclass(frozen=True)
class Training:
    """A recipe, a seed and their run folder."""

    recipe: Recipe
    seed: int
    run: RunDir


@dataclass(frozen=True)
class Plan:
    """All trainings: the recipe with each seed, and the references in the order of their rows."""

    recipe: Sequence[Training]
    references: Sequence[Training]

    @property
    def trainings(self) -> list[Training]:
        """All trainings, in the order in which to begin them."""
        return [*self.recipe, *self.references]


def plan(recipe: Recipe, seeds: int, reference_seeds: int, results: Path) -> Plan:
    """Plan the trainings. Seeds count from 0; logistic regression does not depend on its seed, and has only one.

    Args:
        seeds, reference_seeds: number of seeds of the recipe, and of each reference.
        results: the folder of the run folders.

    Raises:
        BadInput: fewer seeds than an ensemble has members, or the recipe has the name of a reference of scikit-learn.
    """
    if recipe.name in baselines.NAMES:
        raise BadInput(f"evidence compares with a {recipe.name} of its own; give the recipe's file another name")
    if seeds < _MEMBERS:
        raise BadInput(f"--seeds {seeds}: too few for the ensemble; choose {_MEMBERS} or more")

    def trainings(recipe: Recipe, seeds: int, prefix: str = "") -> list[Training]:
        folders = [RunDir(results / file_name(f"{prefix}{recipe.name}-seed{seed}")) for seed in range(seeds)]
        return [Training(recipe, seed, folder) for seed, folder in enumerate(folders)]

    # Named by the recipe, to whose images they are fitted: evidence of another recipe may split the images otherwise.
    fitted = [
        trainings(baselines.recipe(name, recipe.data), count, prefix=f"{recipe.name}-")
        for name, count in zip(baselines.NAMES, (min(1, reference_seeds), reference_seeds), strict=True)
    ]
    others = [trainings(config.load(name), reference_seeds) for name in _REFERENCES if name != recipe.name]
    return Plan(trainings(recipe, seeds), list(itertools.chain(*fitted, *others)))


def evidence(plan: Plan, results: Path, data_dir: Path | None, choose: Callable[[], Devices], stop: Stop) -> str | None:
    """Train all models, then evaluate all; write RECIPE-evidence.json and RECIPE-evidence.md into `results`.

    Returns:
        The Markdown table; None if other processes are still at work.

    Raises:
        BadInput: a run folder holds another run, or a training or `evaluate` raises it.
        Interrupted: a stop was requested; the same call continues.
        Restart: a training has ended; the same call in a fresh process continues.
    """
    elsewhere = train_one(plan.trainings, data_dir, choose, stop)
    if elsewhere:
        names = ", ".join(training.run.name for training in elsewhere)
        logger.info("other processes are training %s; the last one to end goes on to the test set", names)
        return None
    with contextlib.ExitStack() as judging:
        try:
            judging.enter_context(plan.recipe[0].run.lock("evidence"))
        except Busy as error:
            logger.info("%s", error)
            return None
        rows = judge(plan, results, data_dir, choose, stop)
    text = table.markdown(rows)
    name = file_name(f"{plan.recipe[0].recipe.name}-evidence")
    figures, page = results / f"{name}.json", results / f"{name}.md"
    write_json(figures, table.to_dict(rows))
    write_text(page, text)
    logger.info("the table is in %s, with all samples in %s", printable(page), printable(figures))
    return text


def train_one(
    trainings: Sequence[Training], data_dir: Path | None, choose: Callable[[], Devices], stop: Stop
) -> list[Training]:
    """Train the first model that is neither finished nor in training by another process.

    Returns:
        If there is no such model: the trainings that other processes are at work on.

    Raises:
        BadInput: a run folder holds another run, or the training raises it.
        Interrupted: a stop was requested; the state is saved.
        Restart: the training has ended; TensorFlow frees its memory only when the process ends.
    """
    for training in trainings:
        training.run.claim(training.recipe, training.seed)
        claimed, wanted = training.run.recipe()[0].search, training.recipe.search
        if claimed and wanted and claimed.trials > wanted.trials:
            raise BadInput(
                f"the search in {training.run} has {claimed.trials} trials, the recipe {wanted.trials}; "
                "choose another --results"
            )
    elsewhere = []
    for number, training in enumerate(trainings, 1):
        stop.check()
        if _is_trained(training):
            continue
        logger.info("evidence: training %d of %d, %s", number, len(trainings), training.run.name)
        try:
            _train(training, data_dir, choose, stop)
        except Busy:
            elsewhere.append(training)
        else:
            stop.check()
            raise Restart
    return elsewhere


def judge(plan: Plan, results: Path, data_dir: Path | None, choose: Callable[[], object], stop: Stop) -> list[Row]:
    """Evaluate the models of the plan, all trained, on the test set; return the rows of the table.

    Raises:
        BadInput: as `evaluate`.
        Interrupted: a stop was requested; finished evaluations are kept.
    """

    def plain(members: Sequence[Training]) -> dict[str, Any]:
        return evaluate(members[0].run, data_dir, choose)

    def averaged(members: Sequence[Training]) -> dict[str, Any]:
        return evaluate_averaged(members[0].run, data_dir, choose)

    def ensemble(members: Sequence[Training], tta: bool = False) -> dict[str, Any]:
        first, last = members[0], members[-1]
        name = f"{first.recipe.name}-seeds{first.seed}-{last.seed}-ensemble{'-tta' * tta}.json"
        return evaluate_ensemble(
            [member.run for member in members], data_dir, choose, tta=tta, output=results / file_name(name)
        )

    def averaged_ensemble(members: Sequence[Training]) -> dict[str, Any]:
        return ensemble(members, tta=True)

    name = plan.recipe[0].recipe.name
    singles = [[training] for training in plan.recipe]
    teams = [plan.recipe[end - _MEMBERS : end] for end in range(_MEMBERS, len(plan.recipe) + 1, _MEMBERS)]
    ways: list[tuple[str, Sequence[Sequence[Training]], Callable[[Sequence[Training]], Any]]] = [
        (reference, [[training] for training in trainings], plain)
        for reference, trainings in itertools.groupby(plan.references, lambda training: training.recipe.name)
    ]
    ways += [(name, singles, plain), (f"{name}, ensemble of {_MEMBERS}", teams, ensemble)]
    if averaging.helps(plan.recipe[0].recipe.training):
        ways.insert(-1, (f"{name}, test-time averaging", singles, averaged))
        ways.append((f"{name}, ensemble of {_MEMBERS}, test-time averaging", teams, averaged_ensemble))
    total = sum(len(of_way) for _, of_way, _ in ways)
    evaluations = itertools.count(1)
    rows = []
    for what, of_way, judge in ways:
        found = []
        for members in of_way:
            stop.check()
            logger.info("evidence: evaluation %d of %d, %s", next(evaluations), total, what)
            found.append(Judged(judge(members), [member.run for member in members]))
        rows.append(Row(what, found))
    return rows


def _is_trained(training: Training) -> bool:
    recipe, run = training.recipe, training.run
    if not run.trained or recipe.search is None:
        return run.trained
    # The model may be of a search that had fewer trials, or was interrupted.
    return status.search_finished(run, recipe) and finished(run, with_best(run, recipe))


def _train(training: Training, data_dir: Path | None, choose: Callable[[], Devices], stop: Stop) -> None:
    recipe, seed, run = training.recipe, training.seed, training.run
    if recipe.name in baselines.NAMES:
        baselines.train(run, recipe, seed, data_dir, stop)
        return
    if recipe.search:
        logger.info("%s", tune(run, recipe, seed, data_dir, lambda: choose().usual, stop))
    logger.info("%s", train(run, recipe, seed, data_dir, choose, stop))
