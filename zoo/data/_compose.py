"""Cut-outs pasted on backgrounds: turned, scaled, recoloured, cropped at random, with blended borders."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from zoo.checks import is_number

if TYPE_CHECKING:
    from collections.abc import Mapping

CORNERS = 8  # draws that move the corners of an object
TRIES = 8  # places and crops that are tried for one picture before it stays whole
DRAWS = 8 + 6 * TRIES + CORNERS
MARGIN = 16  # px of a cut-out around its mask, so that blended borders have pixels
SOLID = 128  # alpha, of 255, from which a pixel belongs to the object
_BLUR = 0.3  # standard deviations of a blur in the width over which it goes from 5 to 95 %
_GREY = (0.299, 0.587, 0.114)


class View(NamedTuple):
    """A picture that an object stands in, and its box (x0, y0, x1, y1 px, the last two exclusive)."""

    picture: Image.Image
    box: tuple[int, int, int, int]


class CutOut(NamedTuple):
    """An object's pixels (RGB) and mask (L), with `MARGIN` px around the mask."""

    pixels: Image.Image
    mask: Image.Image


@dataclass(frozen=True)
class Recipe:
    """How cut-outs are pasted.

    `canvas` px is the longer side of a background; `rotation` the largest angle in °; `perspective` the share of its
    sides by which each corner of the object's rectangle moves at most; `scale` the share of the canvas that the turned
    object fills, in the direction in which it fills more: above 1 it is seen in part; `enlargement` the most by which
    an object is enlarged for that; `jitter` the largest relative change of brightness, contrast and saturation; `crop`
    the share of each side that a random crop keeps; `border` the width in px of the blended border; `visible` the least
    share of the object that a crop leaves.
    """

    canvas: int
    rotation: float
    perspective: float
    scale: tuple[float, float]
    enlargement: float
    jitter: float
    crop: tuple[float, float]
    border: tuple[float, float]
    visible: float

    def plain(self) -> Recipe:
        """Returns the recipe of a picture in which the object stands upright, whole and in its own colours."""
        middle = min(1.0, sum(self.scale) / 2)
        return replace(self, rotation=0.0, perspective=0.0, scale=(middle, middle), jitter=0.0, crop=(1.0, 1.0))


RECIPE = tuple(field.name for field in fields(Recipe) if field.name != "canvas")
_NUMBERS = {
    **{"rotation": (0, 180), "perspective": (0, 0.4), "enlargement": (0.1, 100), "jitter": (0, 0.9)},
    "visible": (0.05, 1),
}
_RANGES = {"scale": (0.02, 4), "crop": (0.05, 1), "border": (0, 16)}


def checked_recipe(canvas: int, values: Mapping[str, Any], whose: str = "") -> Recipe:
    """Returns the recipe of all `RECIPE`; raises ValueError that names one out of its bounds and `whose` it is."""
    for name, (low, high) in _NUMBERS.items():
        value = values[name]
        if not is_number(value) or not low <= value <= high:
            raise ValueError(f"{name}{whose} must be a number in {low} … {high}, got {value!r}")
    for name, (low, high) in _RANGES.items():
        ends = values[name]
        if not (isinstance(ends, list | tuple) and len(ends) == 2 and low <= ends[0] <= ends[1] <= high):
            raise ValueError(f"{name}{whose} must be [least, most] in {low} … {high}, got {ends!r}")
    return Recipe(canvas, **{name: tuple(value) if name in _RANGES else value for name, value in values.items()})


def cut_out(picture: Image.Image, mask: Image.Image, longest: int) -> CutOut:
    """Returns what a mask (L, of the picture's size, not empty) covers, shrunk to at most `longest` px a side."""
    left, top, right, bottom = mask.getbbox()
    shrink = max(right - left, bottom - top) / longest
    around = math.ceil(MARGIN * max(shrink, 1))
    box = (left - around, top - around, right + around, bottom + around)
    inside = (max(box[0], 0), max(box[1], 0), min(box[2], picture.width), min(box[3], picture.height))
    padding = [(inside[1] - box[1], box[3] - inside[3]), (inside[0] - box[0], box[2] - inside[2])]
    # Repeated pixels of the photo's border: black ones would show in the blended border.
    pixels = np.pad(np.asarray(picture.crop(inside)), [*padding, (0, 0)], mode="edge")
    found = CutOut(Image.fromarray(pixels), mask.crop(box))
    if shrink <= 1:
        return found
    size = [max(1, round(side / shrink)) for side in found.mask.size]
    return CutOut(*(layer.resize(size, Image.Resampling.BILINEAR) for layer in found))


def paste(cutout: CutOut, background: Image.Image, recipe: Recipe, draws: np.ndarray) -> View:
    """Returns a cut-out on a background, as `draws` (DRAWS,) of [0, 1) decide.

    The box is the extent of the pixels of which the object has at least half, or as much as of any where it is so thin
    that it has half of none.
    """
    pixels, alpha = _turned(cutout, background.size, recipe, draws)
    pixels = _recoloured(pixels, recipe.jitter, draws[2:6])
    border = _between(recipe.border, draws[6])
    blended = alpha.filter(ImageFilter.GaussianBlur(_BLUR * border)) if border > 0 else alpha
    if np.asarray(blended).max() >= SOLID:
        alpha = blended  # a thin object stays sharp, else it would fade away
    solid = np.asarray(alpha) >= min(SOLID, max(1, np.asarray(alpha).max()))
    window, offset = _placed(solid, background.size, recipe, draws[8:-CORNERS])
    picture = background.crop(window)
    picture.paste(pixels, offset, alpha)
    return View(picture, _seen(solid, offset, picture.size)[0])


def extent(solid: np.ndarray) -> tuple[int, int, int, int] | None:
    """Returns x0, y0, x1, y1 (exclusive) of the true pixels of (H, W); None where there are none."""
    rows, columns = solid.any(axis=1).nonzero()[0], solid.any(axis=0).nonzero()[0]
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else None


def _turned(
    cutout: CutOut, canvas: tuple[int, int], recipe: Recipe, draws: np.ndarray
) -> tuple[Image.Image, Image.Image]:
    """Returns pixels and mask, turned and scaled in one resampling, in a frame just large enough."""
    left, top, right, bottom = cutout.mask.getbbox()
    own = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    corners = _moved(own, recipe, draws)
    sides = np.ptp(corners, axis=0)
    share = _between(recipe.scale, draws[1])
    factor = min(recipe.enlargement, *(share * np.array(canvas) / sides))
    parts = max(1, int(1 / factor))
    if parts > 1:  # a transform reads few pixels: shrunk by more than half, it would leave some out
        cutout = CutOut(*(layer.reduce(parts) for layer in cutout))
    around = 2 + math.ceil(2 * recipe.border[1])
    frame = [math.ceil(side * factor) + 2 * around for side in sides]
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    back = _homography((corners - middle) * factor + np.array(frame) / 2, own / parts)
    how = (frame, Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR)
    return cutout.pixels.transform(*how), cutout.mask.transform(*how)


def _moved(corners: np.ndarray, recipe: Recipe, draws: np.ndarray) -> np.ndarray:
    """Returns where the `corners` (4, 2) of a rectangle come to lie, turned and in perspective, in its own scale."""
    angle = math.radians((2 * draws[0] - 1) * recipe.rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    middle, sides = (corners[0] + corners[2]) / 2, corners[2] - corners[0]
    shifts = (2 * draws[-CORNERS:].reshape(4, 2) - 1) * recipe.perspective * sides
    return (corners + shifts - middle) @ np.array([(cos, sin), (-sin, cos)]) + middle


def _homography(from_: np.ndarray, to: np.ndarray) -> tuple[float, ...]:
    """Returns the eight numbers of the projective map that takes four points (4, 2) to four others."""
    rows = []
    for (x, y), (u, v) in zip(from_, to, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return tuple(np.linalg.solve(np.array(rows), to.reshape(-1)))


def _recoloured(pixels: Image.Image, jitter: float, draws: np.ndarray) -> Image.Image:
    """Returns pixels of other brightness, contrast, saturation and warmth, all in one matrix."""
    if not jitter:
        return pixels
    brightness, contrast, saturation, warmth = 1 + (2 * draws - 1) * jitter
    warmth = (warmth - 1) / 4  # a change of all channels is mild, of one against the others it isn't
    matrix: list[float] = []
    for channel, tint in enumerate((1 + warmth, 1.0, 1 - warmth)):
        mix = [(1 - saturation) * grey for grey in _GREY]
        mix[channel] += saturation
        gain = brightness * contrast * tint
        matrix += [value * gain for value in mix] + [127.5 * (1 - contrast)]
    return pixels.convert("RGB", tuple(matrix))


def _placed(
    solid: np.ndarray, canvas: tuple[int, int], recipe: Recipe, draws: np.ndarray
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Returns the window of the background that stays, and where the object's frame lies in it."""
    whole = int(solid.sum())
    left, top, right, bottom = extent(solid)
    own = (left, top), (right - left, bottom - top)
    room = [side - object_ for side, object_ in zip(canvas, own[1], strict=True)]  # less than none if it is larger
    for place in draws.reshape(TRIES, 6):
        free = zip(place[:2], room, own[0], strict=True)
        at = [int(u * (space + math.copysign(1, space))) - edge for u, space, edge in free]
        sides = [max(1, round(side * _between(recipe.crop, u))) for side, u in zip(canvas, place[2:4], strict=True)]
        corner = [int(u * (side - kept + 1)) for u, side, kept in zip(place[4:], canvas, sides, strict=True)]
        window = (corner[0], corner[1], corner[0] + sides[0], corner[1] + sides[1])
        offset = (at[0] - corner[0], at[1] - corner[1])
        if _seen(solid, offset, sides)[1] >= recipe.visible * whole:
            return window, offset
    return (0, 0, *canvas), (at[0], at[1])


def _seen(
    solid: np.ndarray, offset: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int, int, int] | None, int]:
    """Returns the extent and the number of the object's pixels inside a picture of (width, height)."""
    x, y = offset
    inside = solid[max(0, -y) : max(0, size[1] - y), max(0, -x) : max(0, size[0] - x)]
    found = extent(inside)
    if found is None:
        return None, 0
    x, y = max(x, 0), max(y, 0)
    return (found[0] + x, found[1] + y, found[2] + x, found[3] + y), int(inside.sum())


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(share)
