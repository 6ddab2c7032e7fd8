"""Change training images at random, on the device and inside the compiled step."""

import itertools
import math

import numpy as np
import tensorflow as tf

from fmnist.recipe.schema import IMAGE_SHAPE, AugmentConfig


def transform(
    config: AugmentConfig, images: tf.Tensor, seed: tf.Tensor, algorithm: str, augmented: tf.Tensor
) -> tf.Tensor:
    """Flip, shift and deform each image at random, independently of the others.

    Args:
        images: uint8 [n, height, width].
        seed: int32 [2], different in every step.
        algorithm: the random number generator, by a name that `tf.random.stateless_uniform` takes.
        augmented: bool scalar; false to flip only. It is a tensor, so one compiled step serves both.

    Returns:
        uint8 [n, height, width].
    """
    count, numbers = tf.shape(images)[0], itertools.count()

    def draw(*shape: int) -> tf.Tensor:
        return tf.random.stateless_uniform([count, *shape], seed + [0, next(numbers)], alg=algorithm)

    if config.flip:
        images = flip(images, draw() < 0.5)
    if config.shift:
        choices = 2 * config.shift + 1
        down, right = (tf.cast(draw() * choices, tf.int32) - config.shift for _ in range(2))
        moving = tf.cast(augmented, tf.int32)
        images = shift(images, moving * down, moving * right, config.shift)
    if config.deform:
        size = config.deform * tf.cast(augmented, tf.float32)
        down, right = (displacements(draw(len(_WAVES)), size) for _ in range(2))
        images = deform(images, down, right, math.ceil(2.5 * config.deform))
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


def displacements(draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Make a smooth random field of displacements for each image, float32 [n, height, width], in pixels.

    Simard et al. (2003) blur noise for it. A sum of a few cosines is as smooth, and one small matrix product: the
    constant moves the image, waves along one axis stretch and shear it, the others bend it.

    Args:
        draws: float32 [n, waves], uniform in [0, 1).
        size: float32 scalar, the root mean square of the displacements over all draws.
    """
    fields = tf.matmul((2 * draws - 1) * (math.sqrt(3) * size), _WAVES)
    return tf.reshape(fields, [-1, *IMAGE_SHAPE])


def deform(images: tf.Tensor, down: tf.Tensor, right: tf.Tensor, most: int) -> tf.Tensor:
    """Move each pixel of images, uint8 [n, height, width], by `down` and `right`, float32 of that shape, up to `most`.

    Between pixels it is linear, first along columns, then along rows: a blend of a few shifted copies, which compiles
    to plain vector code, several times faster than gathering pixels. What moves in is 0. A pixel that would move
    further fades: in `transform`, less than 1% of them.
    """
    values = tf.cast(images, tf.float32)
    for field, axis in ((down, 1), (right, 2)):
        length = images.shape[axis]
        padded = tf.pad(values, [[0, 0], *([most, most] if axis == one else [0, 0] for one in (1, 2))])
        near = (tf.nn.relu(1 - tf.abs(field - offset)) for offset in range(-most, most + 1))
        copies = (
            padded[:, first : first + length] if axis == 1 else padded[:, :, first : first + length]
            for first in range(2 * most, -1, -1)
        )
        values = tf.add_n([weight * copy for weight, copy in zip(near, copies, strict=True)])
    return tf.cast(tf.round(values), tf.uint8)


def _waves(most: int) -> np.ndarray:
    """Return products of cosines along both axes, of `most` half periods in all: float32 [waves, pixels].

    The shorter they are, the weaker. The mean square of their sum is 1.
    """
    halves = np.arange(most + 1)[:, np.newaxis]
    down, right = (np.cos(np.pi * halves * (np.arange(length) + 0.5) / length) for length in IMAGE_SHAPE)
    waves = []
    for one, other in np.argwhere(halves + halves.T <= most):
        wave = np.outer(down[one], right[other]).ravel()
        waves.append(wave / np.sqrt(np.mean(wave**2)) / (1 + one**2 + other**2))
    return (waves / np.sqrt(np.sum(np.mean(np.square(waves), axis=1)))).astype(np.float32)


_WAVES = _waves(most=2)
