"""Sort-of-CLEVR scenes: which objects an image holds, where they stand, and how they are drawn.

Everything is a function of uniform numbers and works on N images at a time, so that one image made alone equals the
same image made among others. Arrays of objects are padded to O = 6 columns with `ABSENT`.
"""

from __future__ import annotations

import hashlib

import numpy as np

COLOURS = ("red", "green", "blue", "orange", "grey", "yellow")
ABSENT = -1
SCENE_DRAWS = 1 + 3 * len(COLOURS)
# RGB by label: 0 is the ground, 1 + c is colour c (the public generator's values).
PALETTE = np.array(
    [(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 156, 0), (128, 128, 128), (255, 255, 0)], np.uint8
)
_PHILOX_BLOCK = 4


def uniforms(stream: str, start: int, stop: int, draws: int) -> np.ndarray:
    """Returns the (stop - start, draws) float64 numbers in [0, 1) that belong to items start … stop - 1 of a stream.

    `stream` names the key of a counter-based generator (Philox; Salmon et al. 2011) and the item's position is its
    counter: every item has its own seed, whichever others are drawn with it. Raw words are used because NumPy keeps
    those, unlike its distributions, the same in every version.
    """
    key = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=16).digest(), "little")
    blocks = -(-draws // _PHILOX_BLOCK)
    words = np.random.Philox(key=key, counter=start * blocks).random_raw((stop - start) * blocks * _PHILOX_BLOCK)
    return (words.reshape(stop - start, -1)[:, :draws] >> np.uint64(11)) * 2.0**-53


def has_room(objects: int, image_size: int, object_size: int) -> bool:
    """Tells whether any placement of `objects - 1` objects leaves room for one more, all of them whole."""
    free = (image_size - 2 * object_size) ** 2
    return image_size > 2 * object_size and free > (objects - 1) * (2 * _clearance(object_size) - 1) ** 2


def place(
    draws: np.ndarray, low: int, high: int, image_size: int, object_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns count (N,), colour, shape, x, y (N, O) of the scenes that `draws` (N, SCENE_DRAWS) stand for.

    The count is uniform in low … high, the colours are a uniformly random subset in ascending order, shapes are 0
    (rectangle) or 1 (circle) with probability 1/2, x and y are centres in pixels. Objects don't touch.
    """
    kinds = len(COLOURS)
    count = low + (draws[:, 0] * (high - low + 1)).astype(np.int64)
    choice, shapes, spots = (draws[:, 1 + kinds * part : 1 + kinds * (part + 1)] for part in range(3))
    chosen = choice.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") < count[:, None]
    exists = np.arange(kinds) < count[:, None]
    colour = np.sort(np.where(chosen, np.arange(kinds), kinds), axis=1)
    x, y = _positions(spots[:, :high], image_size, object_size)
    padding = ((0, 0), (0, kinds - high))
    columns = (colour, shapes >= 0.5, np.pad(x, padding), np.pad(y, padding))
    return count, *(np.where(exists, column, ABSENT) for column in columns)


def _positions(spots: np.ndarray, image_size: int, object_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns x, y (N, K) of K centres, each uniform over the pixels that the earlier ones leave free.

    Choosing among the free pixels has the distribution of drawing again until there is no collision, with a fixed
    number of draws.
    """
    images, objects = spots.shape
    side, clearance = image_size - 2 * object_size, _clearance(object_size)
    free = np.ones((images, side, side), np.uint8)
    axis, image = np.arange(side), np.arange(images)
    x, y = np.empty((2, images, objects), np.int64)
    for k in range(objects):
        before = free.sum(axis=2, dtype=np.uint16).cumsum(axis=1, dtype=np.int64)
        target = (spots[:, k] * before[:, -1]).astype(np.int64)
        row = (before <= target[:, None]).sum(axis=1)
        within = target - np.where(row > 0, before[image, row - 1], 0)
        column = (free[image, row].cumsum(axis=1, dtype=np.int64) <= within[:, None]).sum(axis=1)
        x[:, k], y[:, k] = column, row
        away_x, away_y = (abs(axis - centre[:, None]) >= clearance for centre in (column, row))
        free &= (away_y[:, :, None] | away_x[:, None, :]).view(np.uint8)
    return x + object_size, y + object_size


def _clearance(object_size: int) -> int:
    # The public generator only keeps centres 2 * size apart, which lets two squares share pixels; a distance of
    # 2 * size + 2 along one axis leaves a white line between any two objects.
    return 2 * object_size + 2


def draw(colour: np.ndarray, shape: np.ndarray, x: np.ndarray, y: np.ndarray, image_size: int, size: int) -> np.ndarray:
    """Returns images (N, 3, H, W) uint8 RGB: squares of half-side `size`, discs of radius `size`, no anti-aliasing."""
    labels = np.zeros((len(colour), image_size, image_size), np.uint8)
    offsets = np.arange(-size, size + 1)
    disc = offsets[:, None] ** 2 + offsets**2 <= size**2
    image, item = np.nonzero(colour != ABSENT)
    for code, stamp in enumerate((np.ones_like(disc), disc)):
        mine = shape[image, item] == code
        down, right = np.nonzero(stamp)
        owner, centre = image[mine, None], (image[mine], item[mine])
        rows, columns = y[centre][:, None] + offsets[down], x[centre][:, None] + offsets[right]
        labels[owner, rows, columns] = colour[centre][:, None] + 1
    # take (mode="clip") is three times as fast as indexing and lets other threads run.
    return np.stack([np.take(channel, labels, mode="clip") for channel in PALETTE.T], axis=1)
