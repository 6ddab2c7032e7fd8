"""Run `train`: train the final model of a fixed recipe, or of the best configuration that a search found."""

import contextlib
import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist.data import dataset
from fmnist.data.dataset import TrainData
from fmnist.devices import Devices, numerics
from fmnist.errors import BadInput
from fmnist.files import atomic_write, check_replaceable, sha256, utf8_path, write_json
from fmnist.network import novelty, whitening
from fmnist.progress import bar
from fmnist.recipe.config import recorded, replace, to_dict
from fmnist.recipe.schema import Recipe
from fmnist.run import identity, records
from fmnist.run.folder import RunDir
from fmnist.signals import Stop
from fmnist.text import wrap
from fmnist.training import footprint

if TYPE_CHECKING:
    from fmnist.training.trainer import FitResult, Progress

logger = logging.getLogger(__name__)


def train(
    run: RunDir,
    recipe: Recipe,
    seed: int,
    data_dir: Path | None,
    choose: Callable[[], Devices],
    stop: Stop,
) -> str:
    """Train the final model, and write model.keras, novelty.npz and history.json.

    An interrupted training is continued, and a finished one left as it is.

    Args:
        data_dir: the folder of the data set's files; None to find them as `fmnist data` does.
        choose: returns the devices to train on; called only if there is something to train.

    Returns:
        A line with the result.

    Raises:
        BadInput: the search has not been done, the folder holds another run or a training in another precision, or the
            loss diverges.
        GpuFailed: as `Devices.at_fault`.
        Interrupted: a stop was requested; the state is saved.
    """
    run.check(recipe, seed)
    chosen = with_best(run, recipe)
    if finished(run, chosen):
        return _nothing_to_do(run)

    def prepare() -> tuple[TrainData, Callable[[bool], whitening.Components], Devices]:
        loaded = dataset.load_train(data_dir, chosen.data)
        components = functools.cache(functools.partial(whitening.components, loaded.train.images))
        # Importing TensorFlow, as `choose` does, takes seconds of one processor.
        with ThreadPoolExecutor(1) as beside:
            if chosen.model.whitening is not None:
                beside.submit(components, chosen.model.square_root)
            devices = choose()
        if devices.kind == "cpu":
            footprint.check(chosen.model, chosen.training, len(loaded.train), devices.count)
        return loaded, components, devices

    # Prepare first, so that a training that cannot begin leaves no folder. An existing folder may hold a finished one.
    prepared = None if run.config.exists() else prepare()
    run.claim(recipe, seed)
    with run.lock("train"):
        if finished(run, chosen):
            return _nothing_to_do(run)
        for path in (run.model, run.novelty, run.history):
            # Those of a finished training may be links, but this one has to replace them.
            check_replaceable(path)
        loaded, components, devices = prepared or prepare()
        training, images = chosen.training, len(loaded.train)
        checkpoint, board = run.checkpoint / "train.npz", Path(utf8_path(run.tensorboard), "final")
        # These take seconds to import.
        from fmnist.training import calibration
        from fmnist.training.boards import FinalBoard
        from fmnist.training.trainer import Diverged, Trainer, precision_of

        precision = precision_of(checkpoint, chosen.model, training, seed, images)
        if precision not in (None, devices.precision):
            if not devices.free_precision:
                raise BadInput(
                    f"the training in {run} began in {precision}: go on with --precision {precision}, "
                    f"or remove {checkpoint} to begin anew"
                )
            devices = dataclasses.replace(devices, precision=precision)
        jobs = run.jobs()
        began = jobs["train"].get("calibration", {}) if precision and "train" in jobs else {}
        names = dataset.classes(loaded.source)
        log = log_epochs(training.epochs, images)
        try:
            with devices.at_fault():
                devices, speeds = calibration.settle(devices, chosen, loaded.train, began)
                run.record(
                    "train",
                    devices=str(devices),
                    data=loaded.source.sha256,
                    numerics=numerics(),
                    calibration=speeds,
                    goes_on=precision is not None,
                )
                if precision is None:
                    # Of another training: its curves would be drawn over.
                    shutil.rmtree(board, ignore_errors=True)
                trainer = Trainer(loaded, devices, components)
                with stop.in_order(), bar("train", training.epochs * images, "images") as advance:
                    logger.info("%s", device_line("train", chosen, seed, devices))

                    def progress(epoch: int, logs: dict[str, float], seconds: float, past: bool) -> None:
                        log(epoch, logs, seconds, past)
                        advance(images)

                    result = trainer.fit(
                        chosen.model,
                        training,
                        seed=seed,
                        stop=stop,
                        checkpoint_path=checkpoint,
                        callbacks=[FinalBoard(board, loaded.validation, names, images, training.batch_size)],
                        progress=progress,
                    )
        except Diverged as error:
            raise BadInput(f"{chosen.name}: {error}") from error
        with stop.in_order():
            if len(loaded.train) >= novelty.LEAST_IMAGES:
                held_back = loaded.validation if len(loaded.validation) else loaded.train
                novelty.save(run.novelty, novelty.fit(loaded.train.images, held_back.images))
            save(run, chosen, result)
            checkpoint.unlink(missing_ok=True)
        return _outcome(run)


def device_line(job: str, recipe: Recipe, seed: int, devices: Devices) -> str:
    """Return what a job begins with: what it trains, and what that is computed on and in."""
    line = f"{job} {recipe.name} (seed {seed}) on {devices}"
    if devices.precision != "float32":
        # As `network.build` makes it.
        fixed = {"whitening": recipe.model.whitening, "local contrast": recipe.model.local_contrast}
        said = ", ".join(name for name, size in fixed.items() if size is not None)
        line += f"; {said}{' and ' * bool(said)}output layer in float32"
    return wrap(line)


def log_epochs(epochs: int, images: int) -> "Progress":
    """Return a function that logs a line an epoch, of at most 80 columns, with training/validation figures.

    Args:
        images: the number of images of an epoch.
    """

    def log(epoch: int, logs: dict[str, float], seconds: float, past: bool) -> None:
        if past:
            return

        def both(metric: str, digits: int) -> str:
            return "/".join(f"{logs[name]:.{digits}f}" for name in (metric, f"val_{metric}") if name in logs)

        logger.info(
            "epoch %*d/%d  loss %s  accuracy %s  %s",
            *(len(str(epochs)), epoch + 1, epochs, both("loss", 3), both("accuracy", 4), pace(seconds, images)),
        )

    return log


def pace(seconds: float, images: int) -> str:
    """Return how long an epoch of so many images took, and at what rate."""
    rate = images / max(seconds, 1e-9)
    told = f"{rate:,.0f}" if rate < 1e5 else f"{rate / 1000:,.0f}k"
    return f"{seconds:.{1 if seconds >= 1 else 2}f} s  {told} images/s"


def with_best(run: RunDir, recipe: Recipe) -> Recipe:
    """Return the recipe with the search's best values in place; a fixed recipe as it is."""
    if recipe.search is None:
        return recipe
    if not run.best.exists():
        raise BadInput(
            f"{run.best} is missing: recipe {recipe.name} needs a search first; run `fmnist tune` with the same options"
        )
    return replace(recipe, records.read(run.best, records.Best)["values"], str(run.best))


def finished(run: RunDir, recipe: Recipe) -> bool:
    """Return whether the run holds a model that was trained by the resolved recipe.

    Raises:
        BadInput: the run's model was not trained here, or its history.json is damaged.
    """
    if not run.trained:
        return False
    past = records.read(run.history, records.History)
    if recorded({**to_dict(recipe), **past["settings"]}, str(run.history)) != recipe:
        return False
    identity.of_model(run)
    return True


def save(run: RunDir, recipe: Recipe, result: "FitResult") -> None:
    """Write model.keras and history.json."""
    from fmnist.network import inference

    stopping = recipe.training.early_stopping
    best_epoch = result.best_epoch(stopping.monitor) if stopping else len(result.seconds) - 1
    with run.changing():
        with atomic_write(run.model) as file:
            inference.save(result.model, file.name)
            # Remove the old model's figures only now: if there was no room for the new model, the old one stays. Remove
            # its curves too, or a kill would leave them beside the new model.
            for path in (run.metrics, run.averaged_metrics, run.history):
                path.unlink(missing_ok=True)
        write_json(
            run.history,
            {
                "settings": {section: to_dict(recipe)[section] for section in ("data", "model", "training")},
                "model": {"sha256": sha256(run.model)},
                "history": result.history | {"seconds": result.seconds},
                "best_epoch": best_epoch,
                "seconds": sum(result.seconds),
                "images_per_second": result.images_per_second,
            },
        )


def _nothing_to_do(run: RunDir) -> str:
    logger.info("%s is finished; nothing to do", run.model)
    left = run.checkpoint / "train.npz"
    if left.is_file() and not left.is_symlink():
        # By a kill.
        with contextlib.suppress(OSError):
            left.unlink()
    return _outcome(run)


def _outcome(run: RunDir) -> str:
    past = records.read(run.history, records.History)
    curves, best = past["history"], past["best_epoch"]
    validation = curves.get("val_accuracy")
    found = f"validation accuracy {validation[best]:.4f}" if validation else "no images held back for validation"
    return f"{found}, epoch {best + 1} of {len(curves['loss'])}; {run.model}"
