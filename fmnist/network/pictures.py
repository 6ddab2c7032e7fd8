"""Draw a model's confusion matrix and its mistakes as arrays of pixels, for TensorBoard and the report."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CELL, _NAMES = 44, 100  # side of a cell of the confusion matrix, and room for the names, in pixels
_SCALE = 3  # how many times an image is enlarged
_FONT, _CAPTION = 13, 36  # heights of a letter and of two lines, in pixels
_COLUMNS = 6


def confusion_image(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix, integer [k, k], with counts and the classes' names, as uint8 [s, s, 3], s = 100 + 44 k.

    A row is a true class, a column a predicted one; dark cells are large shares of their row.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    white, navy = np.array([255, 255, 255]), np.array([8, 48, 107])
    side = _NAMES + _CELL * len(matrix)
    sheet = Image.new("RGB", (side, side), "white")
    cells = (white + share[..., np.newaxis] * (navy - white)).astype(np.uint8)
    sheet.paste(Image.fromarray(cells).resize((side - _NAMES,) * 2, Image.Resampling.NEAREST), (_NAMES, _NAMES))
    font = ImageFont.load_default(_FONT)
    # Names of columns are drawn as those of rows, and turned.
    heads = Image.new("RGB", (_NAMES, side - _NAMES), "white")
    for edge, above in ((sheet, _NAMES), (heads, 0)):
        pen = ImageDraw.Draw(edge)
        for index, name in enumerate(names):
            middle = above + _CELL * (index + 0.5)
            left, anchor = (_NAMES - 6, "rm") if edge is sheet else (6, "lm")
            pen.text((left, middle), name, "black", font, anchor=anchor)
    sheet.paste(heads.transpose(Image.Transpose.ROTATE_90), (_NAMES, 0))
    pen = ImageDraw.Draw(sheet)
    pen.text((6, 6), "row: true\ncolumn:\npredicted", "black", font)
    for true, row in enumerate(matrix):
        for predicted, count in enumerate(row):
            at = (_NAMES + _CELL * (predicted + 0.5), _NAMES + _CELL * (true + 0.5))
            pen.text(at, str(count), "white" if share[true, predicted] > 0.5 else "black", font, anchor="mm")
    return np.asarray(sheet)


def confident_mistakes(y_true: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of wrong predictions, int64 [at most `count`], the most confident first.

    Args:
        y_true: integer [n], the classes 0..9.
        probabilities: float [n, 10].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y_true)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]


def gallery(images: np.ndarray, y_true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw images in rows of six, with the names of their true and predicted classes, as uint8 [height, width, 3].

    Args:
        images: uint8 [n, 28, 28].
        y_true, predicted: integer [n], the classes 0..9.
        names: the names of the ten classes.
    """
    side = images.shape[1] * _SCALE
    width, height = side + 8, side + _CAPTION + 8
    rows = max(1, -(-len(images) // _COLUMNS))
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT)
    for index, image in enumerate(images):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        sheet.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + side), f"{names[y_true[index]]}\nnot {names[predicted[index]]}", "black", font, spacing=1)
    return np.asarray(sheet)
