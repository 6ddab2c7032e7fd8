"""Fit two classifiers of scikit-learn to the same images, for comparison; keep them in run folders as Keras models."""

import importlib.metadata
import logging
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from fmnist.data import dataset
from fmnist.data.dataset import Images
from fmnist.devices import choose
from fmnist.errors import BadInput
from fmnist.recipe import config
from fmnist.recipe.schema import CLASSES, DataConfig, ModelConfig, Recipe
from fmnist.run.folder import RunDir
from fmnist.signals import Stop
from fmnist.training.job import save

# Other imports take seconds; they are not needed to see that a model is trained already.
if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

_LOOK = 0.1  # seconds between two looks at whether to stop

_SETTINGS: dict[str, dict[str, Any]] = {
    "logistic-regression": {
        "description": "scikit-learn's LogisticRegression: L-BFGS; of [training] only the epochs (iterations) apply",
        "model": {"hidden": ()},
        "training": {"epochs": 1000},
    },
    "sklearn-mlp": {
        "description": "scikit-learn's MLPClassifier as it comes",
        "model": {"hidden": (100,)},
        "training": {"epochs": 200, "batch_size": 200, "optimizer": "adam", "learning_rate": 1e-3},
    },
}
NAMES = tuple(_SETTINGS)


def recipe(name: str, data: DataConfig) -> Recipe:
    """Return the recipe by which the classifier `name`, one of NAMES, is recorded; it is fitted to images of `data`."""
    return config.resolve({"name": name, "data": data, **_SETTINGS[name]}, f"reference {name}")


def train(run: RunDir, recipe: Recipe, seed: int, data_dir: Path | None, stop: Stop) -> None:
    """Fit a classifier, and write model.keras and history.json, whose single epoch stands for all iterations.

    Args:
        recipe: a result of `recipe`.

    Raises:
        BadInput: the run folder is another run's, or the data cannot be used.
        Busy: another process is training in this run folder.
        Interrupted: a stop was requested; the unfinished fit is lost.
    """
    run.claim(recipe, seed)
    with run.lock("train"):
        if run.trained:
            logger.info("%s is finished; nothing to do", run.model)
            return
        from fmnist.training.trainer import FitResult

        choose("cpu")  # or TensorFlow would take all of a GPU's memory
        loaded = dataset.load_train(data_dir, recipe.data)
        device = f"CPU (scikit-learn {importlib.metadata.version('scikit-learn')}), float32"
        run.record("train", devices=device, data=loaded.source.sha256)
        logger.info("train %s (seed %d) on %s", recipe.name, seed, device)
        begin = time.perf_counter()
        estimator = fit(recipe, seed, loaded.train, stop)
        seconds = time.perf_counter() - begin
        model = to_keras(estimator)
        history = _figures(model, loaded.train, "")
        if len(loaded.validation):
            history |= _figures(model, loaded.validation, "val_")
        history["learning_rate"] = [recipe.training.learning_rate]
        iterations = int(np.max(estimator.n_iter_))
        save(run, recipe, FitResult(model, history, [seconds], iterations * len(loaded.train)))


def fit(recipe: Recipe, seed: int, images: Images, stop: Stop) -> Any:
    """Fit an estimator and return it; its features are float32 [n, 784] from 0 to 1.

    Raises:
        BadInput: one of the ten classes has no image.
        Interrupted: a stop was requested.
    """
    if len(np.unique(images.labels)) < CLASSES:
        raise BadInput(f"{recipe.name} needs training images of all {CLASSES} classes; give other data with --data")
    estimator = _estimator(recipe, seed)
    features = images.images.reshape(len(images), -1) / np.float32(255)
    fitted: Future[Any] = Future()

    def work() -> None:
        try:
            # As in `whitening`, the number of threads would change the results.
            with threadpool_limits(1):
                fitted.set_result(estimator.fit(features, images.labels))
        except BaseException as error:
            fitted.set_exception(error)

    # scikit-learn cannot be stopped: after a request to stop, the thread runs until the process ends.
    threading.Thread(target=work, name="fit", daemon=True).start()
    while not fitted.done():
        stop.check()
        wait([fitted], timeout=_LOOK)
    return fitted.result()


def _estimator(recipe: Recipe, seed: int) -> Any:
    """Return the estimator, not fitted yet. Every parameter that is not given here has scikit-learn's default.

    By default logistic regression uses L-BFGS on all images at once, with the L2 penalty of C = 1; only its number of
    iterations would be too small. The MLP uses Adam and its own L2 penalty, without early stopping.
    """
    training = recipe.training
    if not recipe.model.hidden:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=training.epochs, random_state=seed)
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        hidden_layer_sizes=recipe.model.hidden,
        activation=recipe.model.activation,
        solver=training.optimizer,
        learning_rate_init=training.learning_rate,
        batch_size=training.batch_size,
        max_iter=training.epochs,
        random_state=seed,
    )


def to_keras(estimator: Any) -> "keras.Model":
    """Return a Keras model of stock layers that computes the same function: uint8 [n, 28, 28] in, logits [n, 10] out.

    Args:
        estimator: a result of `fit`.
    """
    from fmnist.network.build import build

    if hasattr(estimator, "coefs_"):
        kernels, biases = estimator.coefs_, estimator.intercepts_
    else:
        kernels, biases = [estimator.coef_.T], [estimator.intercept_]
    model = build(ModelConfig(hidden=tuple(kernel.shape[1] for kernel in kernels[:-1])))
    model.set_weights([weights for layer in zip(kernels, biases, strict=True) for weights in layer])
    return model


def _figures(model: "keras.Model", images: Images, prefix: str) -> dict[str, list[float]]:
    from fmnist.evaluation.averaging import probabilities
    from fmnist.evaluation.metrics import accuracy_figures

    said = accuracy_figures(images.labels, probabilities([model], images.images))
    return {prefix + name: [said[name]] for name in ("loss", "accuracy")}
