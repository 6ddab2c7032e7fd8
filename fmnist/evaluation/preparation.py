"""Make of a picture what the data set makes of one: 28 x 28 pixels, a garment that is light on black."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from fmnist.recipe.schema import IMAGE_SHAPE

# Pixels of the longer side; a larger picture is made smaller first. A garment of a tenth of it still has 28.
_SIDE = 280
_LEAST_SIDE = 8
# Of the longer side, the part over which a median takes the noise away.
_MEDIAN = 56
# As _SIDE, of the picture in which the background's plane is looked for.
_COARSE = 56
# What is further from the background than this many deviations of its noise belongs to the garment.
_DEVIATIONS = 4.0
# Grey levels. A picture's own steps and JPEG's are that large, however even its background is.
_LEAST_NOISE = 1.5
# Of the largest part; what is smaller is a speck.
_SPECK = 0.05
_PLANES = 300
# A corner that is darker than this is the data set's black: of the 60,000 training images none has corners above 35 in
# the median, but two have such a border.
BLACK = 36
# The data set stretches each image to 255; the hundredth part of the pixels above may be a glint.
_BRIGHT = 99.0
# One in a hundred training images is darker, over what is not black in it.
_DARK = 46.0
# Of 255. On a darker background a garment is told by its light.
_DARK_GROUND = 80
# In percent, of a garment's pixels: those above may be noise.
_BRIGHTEST = 98
# Of white cloth, as a share; a tenth is what the data set's white garments have.
_LEAST_DARK = 0.1
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

LEAST_CONTRAST = 15.0
"""Of less, the background's texture takes a part in what the model sees."""


class Prepared(NamedTuple):
    """A picture as the model sees it.

    image: uint8 [28, 28], light on black.
    contrast: how far the garment is from the background, in deviations of that one's noise; infinite for a picture that
        was cut out or prepared before.
    original: the picture, upright and small.
    """

    image: np.ndarray
    contrast: float
    original: Image.Image


def prepare(picture: Image.Image) -> Prepared:
    """Find the garment in a picture, and cut it out, stretch it to the data set's range, scale and centre it.

    What is transparent is the background. Else that is the plane of colours on which the picture's border lies, and the
    garment what differs from it by more than its noise. The garment has 28 pixels on its longer side then (Xiao, Rasul
    and Vollgraf 2017, figure 1; without their sharpening). A picture of 28 x 28 pixels on black or white is kept, but
    for its sign.

    Raises:
        ValueError: nothing stands out, or it has too few pixels.
    """
    picture = _reduced(picture)
    if min(picture.size) < _LEAST_SIDE:
        raise ValueError("it has too few pixels, or is too thin")
    values, opacity = np.asarray(picture.convert("RGB"), np.float32), None
    if picture.mode == "RGBA":
        # One that is hardly transparent anywhere has not been cut out.
        visible = np.asarray(picture.getchannel("A"), np.float32) / 255
        opacity = visible if visible.min() < 0.5 else None
    garment, contrast = values @ _LUMA, np.inf
    corner = corners(garment)
    if opacity is None and garment.shape == IMAGE_SHAPE and not BLACK <= corner <= 255 - BLACK:
        garment = garment if corner < BLACK else 255 - garment
    elif opacity is None:
        garment, contrast = _find(values)
        garment = _centred(_stretched(garment))
    else:
        garment = _centred(_stretched(_cut_out(values, opacity)))
    if np.ptp(garment) == 0:
        raise ValueError("nothing in it stands out from its background")
    return Prepared(garment.round().astype(np.uint8), contrast, picture)


def corners(images: np.ndarray) -> np.ndarray:
    """Return the median of each image's corners; images are [..., h, w]."""
    return np.median([images[..., row, column] for row in (0, -1) for column in (0, -1)], axis=0)


def _reduced(picture: Image.Image) -> Image.Image:
    """Return a picture upright, with 8 bits a channel and at most _SIDE pixels a side.

    Raises:
        ValueError: not all of its pixels are finite numbers.
    """
    if picture.mode in ("1", "P", "PA"):
        # Their pixels are numbers of colours, which have no mean.
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    elif picture.mode.startswith("I"):
        # They have 16 bits and more, which Pillow would clip to 8.
        picture = picture.convert("I").convert("F")
    # Of a JPEG it decodes no more than is needed.
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        grey = np.asarray(picture)
        if not np.isfinite(grey).all():
            raise ValueError("not all of its pixels are finite numbers")
        return Image.fromarray((grey.clip(0) * (255 / max(grey.max(), 1e-9))).round().astype(np.uint8))
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _cut_out(values: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Return how dark what is opaque is, float32 [h, w] from 0; how light, if white alone would be so little dark."""
    inside = opacity > 0.5
    dark = 255 - values @ _LUMA
    if inside.any() and dark[inside].mean() < _DARK:
        dark = 255 - dark
    return dark * opacity * inside


def _find(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the garment, float32 [h, w] from 0, and its contrast; the picture may have been trimmed around it."""
    height, width = values.shape[:2]
    background = _plane(values)
    border = _border((height, width))
    # A median keeps edges in their place; a blur would make the garment's box larger.
    size = max(1, round(max(height, width) / _MEDIAN))
    smooth = ndimage.median_filter(values, (size, size, 1)) - background
    # The median deviation of a normal distribution is 1/1.48 of its standard deviation; a garment that reaches into the
    # border does not change it much.
    noise = np.maximum(1.48 * np.median(np.abs(smooth[border]), axis=0), _LEAST_NOISE)
    distance = np.abs(smooth / noise).max(axis=2)
    garment = _parts(distance)
    if not garment.any():
        return np.zeros((height, width), np.float32), 0.0
    top, bottom, left, right = _box(garment)
    if 2 * max(bottom - top, right - left) < max(height, width):
        # It is small: look closer.
        margin = max(bottom - top, right - left) // 4
        if not margin:
            # A speck, around which nothing of the background would be left.
            return np.zeros((height, width), np.float32), 0.0
        return _find(values[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin])
    contrast = float(np.median(distance[garment]))
    garment = ndimage.binary_fill_holes(garment)
    return _amount(values @ _LUMA, background @ _LUMA, smooth @ _LUMA, garment), contrast


def _amount(light: np.ndarray, level: np.ndarray, smooth: np.ndarray, garment: np.ndarray) -> np.ndarray:
    """Return how dark a garment is, as a share of the light at its place; how light, on what is dark.

    All are [h, w]: the picture's light and its background's, the smoothed difference, and where the garment is.
    """
    if np.median(level) < _DARK_GROUND and smooth[garment].mean() > 0:
        return ((light - level) / (255 - level)).clip(0) * garment
    level = np.maximum(level, 1)
    # A garment that is lighter than its background somewhere is white there, which the data set draws dark, not black.
    white = max(1.0, float(np.percentile((1 + smooth / level)[garment], _BRIGHTEST)))
    least = min(_LEAST_DARK, white - 1)
    return (least + (1 - least) * (1 - light / level / white).clip(0)) * garment


def _plane(values: np.ndarray) -> np.ndarray:
    """Return the background [h, w, 3]: of many planes through three pixels of the border the one nearest to most.

    It is the least median of squares (Rousseeuw 1984): up to half of the border may be something else.
    """
    height, width = values.shape[:2]
    zoom = min(1, _COARSE / max(height, width))
    # A pixel that is the mean of many has less noise.
    coarse = ndimage.zoom(ndimage.uniform_filter(values, (1 / zoom, 1 / zoom, 0)), (zoom, zoom, 1), order=0)
    border = _border(coarse.shape[:2])
    places, seen = _places(coarse.shape[:2])[border], coarse[border]
    triples = np.random.default_rng(0).integers(len(seen), size=(_PLANES, 3))
    triples = triples[np.abs(np.linalg.det(places[triples])) > 0.1]
    planes = np.linalg.solve(places[triples], seen[triples])
    errors = np.abs(seen - places @ planes).max(axis=2)
    medians = np.median(errors, axis=1)
    near = errors[medians.argmin()] <= 2.5 * medians.min() + 1
    plane = np.linalg.lstsq(places[near], seen[near], rcond=None)[0]
    return (_places((height, width)) @ plane).astype(np.float32)


def _places(shape: tuple[int, ...]) -> np.ndarray:
    """Row and column of each pixel, from -1 to 1, and 1: float64 [h, w, 3]."""
    rows, columns = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return np.stack([rows, columns, np.ones(shape)], axis=-1)


def _border(shape: tuple[int, ...]) -> np.ndarray:
    """Tell which pixels are the picture's border: bool [h, w]."""
    width = max(1, round(0.03 * max(shape)))
    border = np.ones(shape, bool)
    border[width:-width, width:-width] = False
    return border


def _parts(distance: np.ndarray) -> np.ndarray:
    """Tell which pixels are far from the background, but for specks: bool [h, w]."""
    labels, count = ndimage.label(distance > _DEVIATIONS)
    sizes = ndimage.sum_labels(distance, labels, np.arange(count + 1))
    sizes[0] = 0
    return (sizes >= max(_SPECK * sizes.max(), 1e-9))[labels]


def _box(garment: np.ndarray) -> tuple[int, int, int, int]:
    """Return the first row and the row after the last, and the columns, of what is not 0."""
    rows, columns = np.flatnonzero(garment.any(axis=1)), np.flatnonzero(garment.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _stretched(garment: np.ndarray) -> np.ndarray:
    shown = garment[garment > 0]
    return garment * (255 / np.percentile(shown, _BRIGHT)) if len(shown) else garment


def _centred(garment: np.ndarray) -> np.ndarray:
    """Trim the garment, [h, w], scale it to 28 pixels on its longer side, and centre it: float32 [28, 28]."""
    if not garment.any():
        return np.zeros(IMAGE_SHAPE, np.float32)
    top, bottom, left, right = _box(garment)
    trimmed = Image.fromarray(garment[top:bottom, left:right].astype(np.float32))
    # A belt keeps a pixel of its width.
    longer = max(trimmed.size)
    width, height = (max(1, round(side / longer * to)) for side, to in zip(trimmed.size, IMAGE_SHAPE, strict=True))
    scaled = trimmed.resize((width, height), Image.Resampling.BOX)
    return np.asarray(ImageOps.pad(scaled, IMAGE_SHAPE)).clip(0, 255)
