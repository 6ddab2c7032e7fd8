"""Pictures such as people take, drawn from images of the data set: each kind at three strengths."""

import colorsys
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

Random = np.random.Generator
STRENGTHS = (1, 2, 3)
_CANVAS = 400
_GARMENT = 280  # pixels a side, of the data set's 28
_GREY = 220


def draw(kind: str, strength: int, image: np.ndarray, random: Random) -> bytes:
    """The content of a picture file, PNG or JPEG, that shows an image, uint8 [28, 28], light on black."""
    return KINDS[kind](image, strength - 1, random)


def _large(image: np.ndarray, side: int = _GARMENT, place: tuple[int, int] | None = None) -> np.ndarray:
    """The image as float [400, 400], 1 where it was 255, by default in the middle of nothing."""
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) / 255
    top, left = place or 2 * ((_CANVAS - side) // 2,)
    return np.pad(large, ((top, _CANVAS - side - top), (left, _CANVAS - side - left)))


def _file(picture: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    options = {"compress_level": 1} | options if format == "PNG" else options
    Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8)).save(file, format, **options)
    return file.getvalue()


def _dyed(garment: np.ndarray, background: np.ndarray) -> np.ndarray:
    """A garment that takes its share of the background's light."""
    return background * (1 - garment)


def _lying(garment: np.ndarray, background: np.ndarray) -> np.ndarray:
    """A garment of dark cloth that covers a background, uint8 [h, w, 3]; of what is nearly white, it shows through."""
    cover = np.minimum(1, 4 * garment)[..., np.newaxis]
    return (1 - cover) * background + cover * 255 * (1 - garment[..., np.newaxis])


def _paper(image: np.ndarray, level: int, random: Random) -> bytes:
    return _file(_dyed(_large(image), np.array((255, 220, 180)[level])))


def _slope(image: np.ndarray, level: int, random: Random) -> bytes:
    """Light that falls from 255 to less, in some direction."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[-1 : 1 : _CANVAS * 1j, -1 : 1 : _CANVAS * 1j]
    along = rows * np.sin(angle) + columns * np.cos(angle)
    share = (along - along.min()) / np.ptp(along)
    return _file(_dyed(_large(image), 255 - share * (255 - (220, 160, 100)[level])))


def _noisy(image: np.ndarray, deviation: float, random: Random) -> np.ndarray:
    return _dyed(_large(image), np.array(_GREY)) + random.normal(0, deviation, (_CANVAS, _CANVAS))


def _noise(image: np.ndarray, level: int, random: Random) -> bytes:
    return _file(_noisy(image, (6, 12, 24)[level], random))


def _jpeg(image: np.ndarray, level: int, random: Random) -> bytes:
    return _file(_noisy(image, 6, random), "JPEG", quality=(80, 40, 15)[level])


def _cloth(image: np.ndarray, level: int, random: Random) -> bytes:
    """A weave of threads five pixels wide, in soft folds."""
    rows, columns = np.mgrid[:_CANVAS, :_CANVAS]
    weave = np.sin(2 * np.pi * rows / 5) * np.sin(2 * np.pi * columns / 5)
    folds = np.sin(2 * np.pi * (rows + columns) / _CANVAS + random.uniform(0, 2 * np.pi))
    shade = (4, 8, 16)[level] * (weave + folds / 2)
    colour = np.array([(228, 230, 238), (205, 208, 220), (170, 175, 195)][level])
    picture = _lying(_large(image), colour + shade[..., np.newaxis])
    return _file(picture + random.normal(0, 2, picture.shape), "JPEG", quality=90)


def _wood(image: np.ndarray, level: int, random: Random) -> bytes:
    """A grain that runs along the picture in bent lines, with fine fibres."""
    rows, columns = np.mgrid[:_CANVAS, :_CANVAS]
    bent = rows + 12 * np.sin(2 * np.pi * columns / 500 + random.uniform(0, 2 * np.pi))
    grain = np.sin(bent / 7 + 2 * np.sin(bent / 40)) + 0.5 * np.sin(bent / 2.5)
    fibres = random.normal(0, 1, _CANVAS)[:, np.newaxis]
    shade = (4, 8, 16)[level] * (grain + fibres / 2)
    colour = np.array([(238, 222, 196), (222, 196, 160), (190, 150, 105)][level])
    picture = _lying(_large(image), colour + shade[..., np.newaxis])
    return _file(picture + random.normal(0, 2, picture.shape), "JPEG", quality=90)


def _exif(image: np.ndarray, level: int, random: Random) -> bytes:
    """Stored turned by a half, by a quarter, and by a quarter in the mirror; EXIF says so."""
    turn, orientation = [
        (Image.Transpose.ROTATE_180, 3),
        (Image.Transpose.ROTATE_90, 6),
        (Image.Transpose.TRANSPOSE, 5),
    ][level]
    picture = np.clip(np.rint(_noisy(image, 2, random)), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture).transpose(turn).save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def _off_centre(image: np.ndarray, level: int, random: Random) -> bytes:
    side = (200, 120, 70)[level]
    top, left = random.integers(0, _CANVAS - side, 2)
    garment = _large(image, side, (int(top), int(left)))
    return _file(_dyed(garment, np.array(_GREY)) + random.normal(0, 2, garment.shape), "JPEG", quality=90)


def _transparent(image: np.ndarray, level: int, random: Random) -> bytes:
    """Cut out: exactly; with soft edges; with a rim of the background that was forgotten."""
    garment = _large(image)
    opacity = np.minimum(1, 8 * garment)
    if level:
        rim = Image.fromarray((255 * opacity).astype(np.uint8)).resize((50, 50), Image.Resampling.BOX)
        soft = np.asarray(rim.resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC)) / 255
        opacity = soft if level == 1 else np.maximum(opacity, np.minimum(1, 0.5 * (soft > 0.05)))
    # What nobody sees has some colour too.
    hidden = random.integers(0, 256, 3)
    colour = np.where(opacity[..., np.newaxis] > 0, 255 * (1 - garment[..., np.newaxis]), hidden)
    return _file(np.dstack([colour, 255 * opacity]))


def _hue(random: Random, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(random.uniform(), saturation, value))


def _coloured(image: np.ndarray, level: int, random: Random) -> bytes:
    """A garment of any hue, on white, on paper of a pale hue, and on paper of a deep one."""
    garment = _large(image)[..., np.newaxis] * (1 - _hue(random, 0.7, 0.5))
    paper = 255 * _hue(random, (0, 0.2, 0.5)[level], (1, 0.95, 0.85)[level])
    picture = _dyed(garment, paper)
    return _file(picture + random.normal(0, 2, picture.shape), "JPEG", quality=90)


KINDS: dict[str, Callable[[np.ndarray, int, Random], bytes]] = {
    "paper": _paper,
    "slope": _slope,
    "noise": _noise,
    "jpeg": _jpeg,
    "cloth": _cloth,
    "wood": _wood,
    "exif": _exif,
    "off-centre": _off_centre,
    "transparent": _transparent,
    "coloured": _coloured,
}
