"""Pictures made from pictures: the same parts in another arrangement, and warps that keep the arrangement."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.data._pictures import Box, rectangle, resized

if TYPE_CHECKING:
    from collections.abc import Sequence

REDRAWS = 1000  # of a permutation that leaves neighbours together; of 100 patches one in five leaves none
ANGLE, SCALE, SHEAR = 30.0, (0.7, 1.4), 0.25  # of a random affine map: degrees either way, factors, tangent either way


def generator(name: str, copy: int, seed: int) -> np.random.Generator:
    """Returns the random numbers of one copy of one image, whatever other images and copies there are."""
    digest = hashlib.sha256(json.dumps([seed, copy, name]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def shuffle_patches(pixels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts a picture (H, W, 3) into n × n patches and puts them in another order, after Sec. 4.1 of Chen et al. 2019.

    The paper looks at every picture to see that its object is destroyed; here `patch_order` sees to it. Borders lie at
    multiples of H/n and W/n, rounded down: where these are no whole numbers, patches differ by one px, and one that
    moves to a smaller place loses its last line, one that moves to a larger place shows its first line twice. Where
    they are, every pixel is kept. Raises ValueError for n below 2 or above the shorter side in px.
    """
    height, width = _shape(pixels)
    if not 2 <= n <= min(height, width):
        raise ValueError(f"n must be from 2 to the shorter side of the picture, {min(height, width)} px, got {n!r}")
    rows, columns = (np.arange(n + 1) * side // n for side in (height, width))
    result = np.empty_like(pixels)
    for place, patch in enumerate(patch_order(n, rng)):
        (y, x), (v, u) = divmod(place, n), divmod(int(patch), n)
        down = _lines(rows[v], rows[v + 1], rows[y + 1] - rows[y])
        across = _lines(columns[u], columns[u + 1], columns[x + 1] - columns[x])
        result[rows[y] : rows[y + 1], columns[x] : columns[x + 1]] = pixels[np.ix_(down, across)]
    return result


def patch_order(n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (n²,) int64, row by row: which patch lies at each place.

    Drawn anew until no two patches that were side by side, or one above the other, are so again; of `REDRAWS` draws
    without success the one that keeps the fewest such pairs. Raises ValueError for n below 2.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n!r}")
    best, fewest = np.arange(n * n), 2 * n * n
    for _ in range(REDRAWS):
        order = rng.permutation(n * n)
        kept = kept_neighbours(order.reshape(n, n))
        if kept < fewest:
            best, fewest = order, kept
        if not fewest:
            break
    return best


def kept_neighbours(order: np.ndarray) -> int:
    """Counts the pairs in `order (n, n)` of patches numbered row by row that are neighbours as they were at first."""
    n = order.shape[1]
    right = (order[:, 1:] == order[:, :-1] + 1) & (order[:, 1:] % n > 0)
    below = order[1:] == order[:-1] + n
    return int(right.sum() + below.sum())


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Swaps left and right of a picture (H, W, 3), and with them every relation to the side."""
    _shape(pixels)
    return pixels[:, ::-1].copy()


def random_affine(rng: np.random.Generator) -> np.ndarray:
    """Returns a linear map (2, 2) of (y, x) offsets: a shear, then a scale, then a rotation, within the constants."""
    turn = np.deg2rad(rng.uniform(-ANGLE, ANGLE))
    scale = np.exp(rng.uniform(*np.log(SCALE)))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return scale * rotation @ np.array([[1, 0], [rng.uniform(-SHEAR, SHEAR), 1]])


def affine(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warps a picture (H, W, 3) about its centre, its size kept; what comes into view is reflected at the borders.

    `matrix` (2, 2) takes (y, x) offsets from the centre to where they are seen afterwards. Such a map keeps the plane:
    what lay on a line or between two things still does, so the picture still shows what it showed (Sec. 3.2 of Chen et
    al. 2019). Raises ValueError for a map that can't be undone.
    """
    from scipy.ndimage import affine_transform

    height, width = _shape(pixels)
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (2, 2) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError(f"matrix must be 2 × 2 and have an inverse, got {matrix.tolist()}")
    back = np.linalg.inv(matrix)
    centre = (np.array([height, width]) - 1) / 2
    bands = [
        affine_transform(pixels[..., band], back, centre - back @ centre, order=1, mode="reflect") for band in range(3)
    ]
    return np.stack(bands, axis=-1)


def separate_pairs(boxes: Sequence[Box]) -> list[tuple[Box, Box]]:
    """Returns the pairs of boxes (x0, y0, x1, y1 px) that don't overlap."""
    return [
        (a, b)
        for a, b in combinations(boxes, 2)
        if a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    ]  # fmt: skip


def swap_boxes(pixels: np.ndarray, one: Box, other: Box) -> np.ndarray:
    """Puts the content of each of two boxes (x0, y0, x1, y1 px) into the other, resized; the rest stays.

    Raises BadFile for a box outside the picture.
    """
    height, width = _shape(pixels)
    first, second = (rectangle(box, (width, height), "to swap objects in") for box in (one, other))
    picture, result = Image.fromarray(pixels), Image.fromarray(pixels)
    for source, target in ((first, second), (second, first)):
        size = target[2] - target[0], target[3] - target[1]
        result.paste(resized(picture.crop(source), size), target)
    return np.array(result)


def _lines(start: int, stop: int, count: int) -> np.ndarray:
    """Returns `count` of the lines from `start` to below `stop`, of which there are as many, or one more or fewer."""
    return start + np.arange(count) * (stop - start) // count


def _shape(pixels: np.ndarray) -> tuple[int, int]:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"pixels must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    return pixels.shape[:2]
