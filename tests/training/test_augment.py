"""Augmentations, exact on hand-made images, and alike in every run of one seed."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from fmnist.recipe.schema import AugmentConfig
from fmnist.training import augment

IMAGES = np.arange(1, 2 * 28 * 28 + 1).reshape(2, 28, 28).astype(np.uint8)
ALL = AugmentConfig(shift=2, flip=True, deform=0.5)


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


def test_deform_moves_each_pixel_as_told_and_is_linear_between_them() -> None:
    rows, columns = np.indices((28, 28))
    down, right = 1.5 * np.cos(np.pi * rows / 28), 1.9 * np.sin(np.pi * columns / 28)
    images = np.random.default_rng(0).integers(256, size=(2, 28, 28), dtype=np.uint8)
    fields = [tf.constant(np.stack([field, np.zeros((28, 28))]), tf.float32) for field in (down, right)]
    moved = augment.deform(tf.constant(images), fields[0], fields[1], 2).numpy()
    # `map_coordinates` says where each pixel comes from.
    columns_moved = ndimage.map_coordinates(np.pad(images[0].astype(float), 2), [rows + 2 - down, columns + 2], order=1)
    expected = ndimage.map_coordinates(np.pad(columns_moved, 2), [rows + 2, columns + 2 - right], order=1)
    np.testing.assert_allclose(moved[0], expected, atol=0.51)
    np.testing.assert_array_equal(moved[1], images[1])


def test_displacements_are_smooth_and_as_large_as_told() -> None:
    draws = np.random.default_rng(0).uniform(size=(5000, len(augment._WAVES))).astype(np.float32)
    fields = augment.displacements(tf.constant(draws), tf.constant(0.7)).numpy()
    assert np.sqrt(np.mean(fields**2)) == pytest.approx(0.7, rel=0.02)
    assert abs(fields.mean()) < 0.02
    assert np.abs(np.diff(fields, axis=1)).max() < 0.2
    # No place is moved much more than others.
    everywhere = np.sqrt(np.mean(fields**2, axis=0))
    assert everywhere.max() < 2 * everywhere.min()


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
