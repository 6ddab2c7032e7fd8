"""Augmentations, exact on hand-made images, and alike in every run of one seed."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from fmnist.recipe.schema import AugmentConfig
from fmnist.training import augment

IMAGES = np.arange(1, 2 * 28 * 28 + 1).reshape(2, 28, 28).astype(np.uint8)
ALL = AugmentConfig(shift=2, flip=True)


def transform(config: AugmentConfig, images: np.ndarray, seed: int = 0, augmented: bool = True) -> np.ndarray:
    return augment.transform(
        config, tf.constant(images), tf.constant([seed, 0]), "philox", tf.constant(augmented)
    ).numpy()


def test_flip_mirrors_left_to_right_where_told() -> None:
    flipped = augment.flip(tf.constant(IMAGES), tf.constant([True, False])).numpy()
    np.testing.assert_array_equal(flipped, [np.fliplr(IMAGES[0]), IMAGES[1]])


@pytest.mark.parametrize("down", [-2, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 2])
def test_shift_moves_and_fills_with_black(down: int, right: int) -> None:
    moved = augment.shift(tf.constant(IMAGES), tf.constant([down, 0]), tf.constant([right, 0]), 2).numpy()
    np.testing.assert_array_equal(moved, [ndimage.shift(IMAGES[0], (down, right), order=0), IMAGES[1]])


def test_all_off_changes_nothing() -> None:
    np.testing.assert_array_equal(transform(AugmentConfig(), IMAGES), IMAGES)


def test_not_augmented_flips_alone() -> None:
    np.testing.assert_array_equal(
        transform(ALL, IMAGES, 5, augmented=False), transform(AugmentConfig(flip=True), IMAGES, 5)
    )


def test_the_seed_decides() -> None:
    np.testing.assert_array_equal(transform(ALL, IMAGES, 5), transform(ALL, IMAGES, 5))
    assert (transform(ALL, IMAGES, 5) != transform(ALL, IMAGES, 6)).any()


@pytest.mark.parametrize(
    ("config", "changed", "share"),
    [
        (AugmentConfig(flip=True), lambda out, _: out[:, 0, 0] != 1, 1 / 2),
        (AugmentConfig(shift=1), lambda out, image: (out != image).any(axis=(1, 2)), 8 / 9),
    ],
)
def test_each_happens_as_often_as_configured(
    config: AugmentConfig, changed: Callable[[np.ndarray, np.ndarray], np.ndarray], share: float
) -> None:
    image = (1 + np.arange(28 * 28) % 251).reshape(28, 28).astype(np.uint8)
    out = transform(config, np.repeat(image[np.newaxis], 4000, axis=0))
    assert changed(out, image).mean() == pytest.approx(share, abs=0.03)
