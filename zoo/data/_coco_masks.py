"""Masks of COCO annotations (Lin et al. 2014): polygons, and run lengths as lists or as COCO's strings."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from PIL import Image


def check_segmentation(segmentation: Any) -> float:
    """Returns the area in px that a segmentation covers; raises ValueError where it is none.

    A segmentation is a list of polygons [x, y, x, y, …] or a mapping of `size` [height, width] and `counts`. Areas of
    polygons are added up, whether they overlap or not.
    """
    if isinstance(segmentation, dict):
        counts = run_lengths(segmentation)
        return float(sum(counts[1::2]))
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"segmentation must be polygons or run lengths, got {str(segmentation)[:60]}")
    return float(sum(_polygon_area(polygon) for polygon in segmentation))


def compact(segmentation: Any) -> Any:
    """Returns a segmentation with its polygons in a tenth of the memory."""
    return segmentation if isinstance(segmentation, dict) else [array("f", polygon) for polygon in segmentation]


def draw_segmentation(segmentation: Any, size: tuple[int, int]) -> Image.Image:
    """Returns the mask (L, 0 or 255) of a segmentation in an image of (width, height) px.

    Raises ValueError where the run lengths belong to an image of another size.
    """
    if isinstance(segmentation, dict):
        counts = run_lengths(segmentation)
        height, width = segmentation["size"]
        if (width, height) != size:
            raise ValueError(f"run lengths are of {width} × {height} px, the image has {size[0]} × {size[1]}")
        values = np.zeros(len(counts), np.uint8)
        values[1::2] = 255
        # Runs go down the columns.
        return Image.fromarray(np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T))
    inside = np.zeros(size[::-1], bool)
    for polygon in segmentation:
        inside |= _filled(np.array(polygon, np.float64).reshape(-1, 2), size)
    return Image.fromarray((inside * 255).astype(np.uint8))


def run_lengths(segmentation: dict[str, Any]) -> list[int]:
    """Returns the lengths of runs, in turn outside and inside, beginning outside.

    Raises ValueError unless they are whole numbers that fill `size`.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise ValueError(f"size must be [height, width], got {size!r}")
    if isinstance(counts, str):
        counts = _decoded(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and run >= 0 for run in counts):
        raise ValueError(f"counts must be run lengths or COCO's string of them, got {str(counts)[:60]}")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"counts must add up to {size[0]} × {size[1]} px, got {sum(counts)}")
    return counts


def _decoded(text: str) -> list[int]:
    """Returns the run lengths of COCO's string: five bits a character, the lowest first, the sixth says "goes on".

    From the fourth number on, each is the difference to the one two before; the highest bit is the sign.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"counts may hold characters from '0' to 'o', got {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts end within a number")
    return counts


def _filled(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns (H, W): the pixels whose centres lie inside a polygon (N, 2), by the even-odd rule.

    Pillow cuts the fractions off and adds the outline, so a mask would grow by up to a px.
    """
    width, height = size
    ends = np.concatenate([corners, np.roll(corners, -1, axis=0)], axis=1)
    ends = np.where(ends[:, 1:2] <= ends[:, 3:4], ends, ends[:, [2, 3, 0, 1]])  # downwards
    first, last = (np.ceil(ends[:, side] - 0.5).clip(0, height).astype(np.int64) for side in (1, 3))
    edge = np.repeat(np.arange(len(ends)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    x0, y0, x1, y1 = ends[edge].T
    crossing = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    crossed = np.zeros((height, width + 1), np.int64)
    np.add.at(crossed, (row, np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)), 1)
    return crossed.cumsum(axis=1)[:, :width] % 2 == 1


def _polygon_area(polygon: Any) -> float:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon must be at least three corners x, y, got {str(polygon)[:60]}")
    if not all(isinstance(value, int | float) and abs(value) < 1e6 for value in polygon):
        raise ValueError(f"a polygon must hold numbers, got {str(polygon)[:60]}")
    x, y = np.array(polygon, np.float64).reshape(-1, 2).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
