"""Questions about Sort-of-CLEVR scenes and their answers."""

from __future__ import annotations

import numpy as np

from zoo.data._scenes import COLOURS

QUESTION_TYPES = (
    "non_relational/shape",
    "non_relational/left",
    "non_relational/up",
    "relational/nearest_shape",
    "relational/farthest_shape",
    "relational/count",
)
ANSWERS = ("yes", "no", "rectangle", "circle", "1", "2", "3", "4", "5", "6")
QUESTION_BITS = 11
_YES, _NO, _SHAPE, _ONE = 0, 1, 2, 4
_SUBTYPES = 3
_COUNT = 2
_TYPE_BIT, _SUBTYPE_BIT = 6, 8


def question_draws(questions: int) -> int:
    """Returns how many random numbers an image takes for `questions` questions of each kind."""
    return 4 * questions


def ask(
    draws: np.ndarray, scene: tuple[np.ndarray, ...], image_size: int, questions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns questions (N, S, 11), answers (N, S), types (N, S), S = 2 * `questions`, the relational half last.

    `draws (N, question_draws(questions))` choose, with replacement, the object asked about and one of three sub-types;
    `scene` is what `place` returns. A question vector is 6 colour bits, non-relational, relational, 3 sub-type bits. An
    image with a single object is asked only for the count, as it has no nearest and no farthest object.
    """
    count, colour = scene[:2]
    total = 2 * questions
    relational = np.arange(total) >= questions
    item = (draws[:, :total] * count[:, None]).astype(np.int64)
    subtype = (draws[:, total:] * _SUBTYPES).astype(np.int64)
    subtype[relational & (count == 1)[:, None]] = _COUNT
    types = subtype + _SUBTYPES * relational
    image = np.arange(len(count))[:, None]
    vectors = np.zeros((len(count), total, QUESTION_BITS), np.uint8)
    position = np.arange(total)
    vectors[image, position, colour[image, item]] = 1
    vectors[image, position, _TYPE_BIT + relational] = 1
    vectors[image, position, _SUBTYPE_BIT + subtype] = 1
    return vectors, _all_answers(scene, image_size)[image, types, item], types


def _all_answers(scene: tuple[np.ndarray, ...], image_size: int) -> np.ndarray:
    """Returns the answer (N, 6 types, O) to every question about every object; meaningless where undefined."""
    count, _, shape, x, y = scene
    exists = np.arange(len(COLOURS)) < count[:, None]
    squared = (x[:, :, None] - x[:, None, :]) ** 2 + (y[:, :, None] - y[:, None, :]) ** 2
    other = exists[:, None, :] & ~np.eye(len(COLOURS), dtype=bool)
    # The public generator marks an object itself by the distance 999, which a far neighbour exceeds: ours is out.
    nearest = np.where(other, squared, np.iinfo(squared.dtype).max).argmin(axis=2)
    farthest = np.where(other, squared, -1).argmax(axis=2)
    alike = (exists[:, None, :] & (shape[:, :, None] == shape[:, None, :])).sum(axis=2)
    answers = (
        _SHAPE + shape,
        np.where(2 * x < image_size, _YES, _NO),
        np.where(2 * y < image_size, _YES, _NO),
        _SHAPE + np.take_along_axis(shape, nearest, axis=1),
        _SHAPE + np.take_along_axis(shape, farthest, axis=1),
        _ONE - 1 + alike,
    )
    return np.stack(answers, axis=1)
