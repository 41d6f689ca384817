"""Generates ranges of Sort-of-CLEVR records, each image from its own seed, in parallel."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from zoo.data._questions import QUESTION_BITS, ask, question_draws
from zoo.data._scenes import COLOURS, SCENE_DRAWS, draw, place, uniforms

_CHUNK_PIXELS = 250 * 75 * 75


@dataclass(frozen=True)
class Recipe:
    """What determines an image and its questions, besides its split and its position in it.

    `low` … `high` objects per image; `image_size` and `object_size` (half-side, radius) in pixels; `questions` of each
    kind, relational and non-relational.
    """

    seed: int
    low: int
    high: int
    image_size: int
    object_size: int
    questions: int

    @property
    def dtype(self) -> np.dtype:
        """Record of an image, with S = 2 * `questions`; objects are padded to 6 with -1."""
        kinds, total = len(COLOURS), 2 * self.questions
        return np.dtype(
            [
                ("image", "u1", (3, self.image_size, self.image_size)),
                ("count", "u1"),
                ("colour", "i1", (kinds,)),
                ("shape", "i1", (kinds,)),
                ("x", "<i2", (kinds,)),
                ("y", "<i2", (kinds,)),
                ("questions", "u1", (total, QUESTION_BITS)),
                ("answers", "u1", (total,)),
                ("question_types", "u1", (total,)),
            ]
        )


def generate(recipe: Recipe, split: str, start: int, stop: int) -> np.ndarray:
    """Returns the records of images start … stop - 1 of a split: `generate(recipe, split, 7, 8)` is image 7 alone."""
    scene_draws = uniforms(f"{recipe.seed}/{split}/scene", start, stop, SCENE_DRAWS)
    scene = place(scene_draws, recipe.low, recipe.high, recipe.image_size, recipe.object_size)
    records = np.empty(stop - start, recipe.dtype)
    for name, column in zip(("count", "colour", "shape", "x", "y"), scene, strict=True):
        records[name] = column
    records["image"] = draw(*scene[1:], recipe.image_size, recipe.object_size)
    asked = uniforms(f"{recipe.seed}/{split}/questions", start, stop, question_draws(recipe.questions))
    answered = ask(asked, scene, recipe.image_size, recipe.questions)
    for name, column in zip(("questions", "answers", "question_types"), answered, strict=True):
        records[name] = column
    return records


def generate_chunks(recipe: Recipe, split: str, size: int, workers: int | None = None) -> Iterator[np.ndarray]:
    """Yields all `size` records of a split in order, in chunks, made by `workers` threads (None: one per core).

    Threads suffice, as NumPy's loops release the interpreter lock; unlike processes they neither re-import the user's
    script nor fork a process in which torch already runs threads.
    """
    workers = workers or os.cpu_count() or 1
    step = max(1, _CHUNK_PIXELS // recipe.image_size**2)
    pending: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, size, step):
            pending.append(pool.submit(generate, recipe, split, start, min(start + step, size)))
            # Bounds the memory that finished chunks hold when the disk is slower than the generator.
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
