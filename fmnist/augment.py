"""Random changes of training images, on the device and inside the compiled step."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from fmnist.schema import AugmentConfig


def transform(
    config: AugmentConfig, images: tf.Tensor, seed: tf.Tensor, algorithm: str, augmented: tf.Tensor
) -> tf.Tensor:
    """Flip, shift and erase, each image by its own draws.

    Args:
        images: uint8 [n, height, width].
        seed: int32 [2], different in every step.
        algorithm: of the random numbers, a name that `tf.random.stateless_uniform` takes.
        augmented: bool, false to flip alone. A value, so that the same compiled step does both.

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
    if config.erase:
        erased = augmented & (next(draws) < config.erase)
        images = erase(images, erased, *(next(draws) for _ in range(4)))
    return images


def flip(images: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirror the images [n, height, width] for which `flipped`, bool [n], is true, left to right."""
    return tf.where(flipped[:, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)


def shift(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor, most: int) -> tf.Tensor:
    """Move each image [n, height, width] by `down` and `right`, int32 [n] within -most..most; what moves in is 0.

    Selecting among the few shifted copies compiles to plain vector code, several times faster than a gather of pixels.
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


def erase(
    images: tf.Tensor, erased: tf.Tensor, area: tf.Tensor, aspect: tf.Tensor, top: tf.Tensor, left: tf.Tensor
) -> tf.Tensor:
    """Make a rectangle of each image black for which `erased`, bool [n], is true (random erasing, Zhong et al. 2017).

    Args:
        images: uint8 [n, height, width].
        area, aspect, top, left: float32 [n] in [0, 1), the rectangle: 2% to 33% of the image, sides in a ratio of 0.3
            to 3.3, placed where it fits.
    """
    height, width = images.shape[1:]
    pixels = (0.02 + 0.31 * area) * (height * width)
    ratio = tf.exp((2 * aspect - 1) * np.log(1 / 0.3))
    tall, wide = tf.minimum(tf.sqrt(pixels * ratio), height), tf.minimum(tf.sqrt(pixels / ratio), width)

    def inside(size: int, length: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        begin = tf.round(place * (size - length))[:, tf.newaxis]
        position = tf.range(size, dtype=tf.float32)[tf.newaxis]
        return (position >= begin) & (position < begin + tf.round(length)[:, tf.newaxis])

    rectangle = inside(height, tall, top)[:, :, tf.newaxis] & inside(width, wide, left)[:, tf.newaxis]
    return tf.where(erased[:, tf.newaxis, tf.newaxis] & rectangle, tf.zeros_like(images), images)


def mixing_weights(config: AugmentConfig, steps: int, random: np.random.Generator, augmented: bool) -> np.ndarray:
    """The share of the batch itself in each step's mixup: float32 [steps], drawn from Beta(alpha, alpha), or 1."""
    if not (augmented and config.mixup):
        return np.ones(steps, np.float32)
    return random.beta(config.mixup, config.mixup, steps).astype(np.float32)


def mix(images: tf.Tensor, targets: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixup (Zhang et al. 2018): blend each image, and its target, with its neighbour in the batch.

    Args:
        images: uint8 [n, height, width].
        targets: float32 [n, classes].
        weight: float32, the share of the image itself.

    Returns:
        The blends, float32 [n, height, width] in 0..255 and float32 [n, classes].
    """
    own = tf.cast(images, tf.float32)
    return (
        weight * own + (1 - weight) * tf.roll(own, 1, axis=0),
        weight * targets + (1 - weight) * tf.roll(targets, 1, axis=0),
    )


def _draws(count: tf.Tensor, seed: tf.Tensor, algorithm: str) -> Iterator[tf.Tensor]:
    """Uniform float32 [count] in [0, 1), independent of each other."""
    number = 0
    while True:
        yield tf.random.stateless_uniform([count], seed + [0, number], alg=algorithm)
        number += 1
