"""Change training images at random, on the device and inside the compiled step."""

from collections.abc import Iterator

import tensorflow as tf

from fmnist.recipe.schema import AugmentConfig


def transform(
    config: AugmentConfig, images: tf.Tensor, seed: tf.Tensor, algorithm: str, augmented: tf.Tensor
) -> tf.Tensor:
    """Flip and shift each image at random, independently of the others.

    Args:
        images: uint8 [n, height, width].
        seed: int32 [2], different in every step.
        algorithm: the random number generator, by a name that `tf.random.stateless_uniform` takes.
        augmented: bool scalar; false to flip only. It is a tensor, so one compiled step serves both.

    Returns:
        uint8 [n, height, width].
    """
    draws = _draws(tf.shape(images)[0], seed, algorithm)
    if config.flip:
        images = flip(images, next(draws) < 0.5)
    if config.shift:
        choices = 2 * config.shift + 1
        down, right = (tf.cast(next(draws) * choices, tf.int32) - config.shift for _ in range(2))
        moving = tf.cast(augmented, tf.int32)
        images = shift(images, moving * down, moving * right, config.shift)
    return images


def flip(images: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirror, left to right, the images [n, height, width] for which `flipped`, bool [n], is true."""
    return tf.where(flipped[:, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)


def shift(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor, most: int) -> tf.Tensor:
    """Shift images [n, height, width] by `down` and `right`, int32 [n] in -most..most; pixels that move in are 0.

    Selecting from a few shifted copies compiles to plain vector code, several times faster than gathering pixels.
    """
    height, width = images.shape[1:]
    padded = tf.pad(images, [[0, 0], [most, most], [most, most]])
    rows, columns = tf.zeros_like(padded[:, :height]), tf.zeros_like(images)
    for offset in range(-most, most + 1):
        first = most - offset
        rows = tf.where((down == offset)[:, tf.newaxis, tf.newaxis], padded[:, first : first + height], rows)
    for offset in range(-most, most + 1):
        first = most - offset
        columns = tf.where((right == offset)[:, tf.newaxis, tf.newaxis], rows[:, :, first : first + width], columns)
    return columns


def _draws(count: tf.Tensor, seed: tf.Tensor, algorithm: str) -> Iterator[tf.Tensor]:
    """Yield independent uniform numbers in [0, 1), float32 [count], without end."""
    number = 0
    while True:
        yield tf.random.stateless_uniform([count], seed + [0, number], alg=algorithm)
        number += 1
