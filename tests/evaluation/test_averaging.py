"""Views of images whose pixels are known, and means of probabilities against the same networks in NumPy."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import softmax

from fmnist.errors import BadInput
from fmnist.evaluation import averaging
from fmnist.network.build import build
from fmnist.recipe.schema import ModelConfig


def by_hand(weights: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """The probabilities that a network of one hidden layer gives."""
    hidden_kernel, hidden_bias, kernel, bias = weights
    hidden = np.maximum(images.reshape(-1, 784) / 255 @ hidden_kernel + hidden_bias, 0)
    return np.asarray(softmax(hidden @ kernel + bias, axis=1))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (3, 28, 28), np.uint8)


def test_every_view_of_every_image(images: np.ndarray) -> None:
    views = list(averaging.views(images))
    assert len(views) == averaging.VIEWS == 10
    assert {(view.shape, view.dtype) for view in views} == {((3, 28, 28), np.dtype(np.uint8))}
    steps = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    shown = (images, np.flip(images, axis=2))
    expected = [ndimage.shift(each, (0, *step), order=0) for each in shown for step in steps]
    np.testing.assert_array_equal(np.stack(views), np.stack(expected))


@pytest.mark.parametrize("tta", [False, True])
def test_the_mean_of_two_networks_probabilities(images: np.ndarray, tta: bool) -> None:
    networks = [build(ModelConfig(hidden=(8,)), seed=seed) for seed in (1, 2)]
    # Spread, so that a mean of logits would be another.
    for network in networks:
        network.set_weights([4 * weight for weight in network.get_weights()])
    shown = list(averaging.views(images)) if tta else [images]
    expected = np.mean([by_hand(network.get_weights(), view) for network in networks for view in shown], axis=0)
    calls: list[int] = []
    found = averaging.probabilities(networks, images, tta=tta, advance=calls.append)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert sum(calls) == len(images) * 2 * len(shown)


def test_outputs_that_are_not_finite(images: np.ndarray) -> None:
    good, bad = (build(ModelConfig(hidden=())) for _ in range(2))
    bad.set_weights([np.full_like(weight, np.inf) for weight in bad.get_weights()])
    with pytest.raises(BadInput, match="not finite numbers"):
        averaging.probabilities([good, bad], images)
