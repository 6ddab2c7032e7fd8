"""Views of images whose pixels are known, and means of probabilities against the same networks in NumPy."""

import numpy as np
import pytest

from fmnist.errors import BadInput
from fmnist.evaluation import averaging
from fmnist.network.build import build
from fmnist.recipe.schema import ModelConfig


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The slow way: pixel by pixel, black where none comes from."""
    moved = np.zeros_like(image)
    for row, column in np.ndindex(image.shape):
        if 0 <= row + down < image.shape[0] and 0 <= column + right < image.shape[1]:
            moved[row + down, column + right] = image[row, column]
    return moved


def by_hand(weights: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """The probabilities that a network of one hidden layer gives."""
    hidden_kernel, hidden_bias, kernel, bias = weights
    hidden = np.maximum(images.reshape(-1, 784) / 255 @ hidden_kernel + hidden_bias, 0)
    exponentials = np.exp(hidden @ kernel + bias)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (3, 28, 28), np.uint8)


def test_views_of_a_small_image() -> None:
    image = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], np.uint8)
    place, up, down, left, right, mirror, *_, mirror_right = (view[0].tolist() for view in averaging.views(image))
    assert place == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert up == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]
    assert down == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert left == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    assert right == [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    assert mirror == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert mirror_right == [[0, 3, 2], [0, 6, 5], [0, 9, 8]]


def test_every_view_of_every_image(images: np.ndarray) -> None:
    views = list(averaging.views(images))
    assert len(views) == averaging.VIEWS == 10
    assert {(view.shape, view.dtype) for view in views} == {((3, 28, 28), np.dtype(np.uint8))}
    steps = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    expected = [
        np.stack([shifted(image, *step) for image in shown])
        for shown in (images, np.flip(images, axis=2))
        for step in steps
    ]
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
