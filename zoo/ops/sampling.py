"""Seeded samples of rows that come in blocks, too many to be held together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def sampled(blocks: Iterable[tuple[Tensor, Tensor]], count: int, seed: int) -> Tensor:
    """Return at most `count` rows of all blocks, each as likely as the others, ordered by image.

    A block holds rows (n, C) and the numbers (n,) of the images they belong to; rows of an image follow each other. The
    choice depends on the seed, not on the order of images nor on how they are cut into blocks. No blocks give (0, 0).
    """
    kept: list[tuple[Tensor, ...]] = []
    for rows, images in blocks:
        kept.append((rows.cpu(), images.cpu(), _lots(images.cpu(), seed)))
        if sum(len(part[0]) for part in kept) > 2 * count:
            kept = [_lowest(kept, count)]
    if not kept:
        return torch.empty(0, 0)
    rows, images, _ = _lowest(kept, count)
    return rows[images.argsort(stable=True)]


def _lots(images: Tensor, seed: int) -> Tensor:
    """Draws a number for each row, from the seed, its image's number and its place among the image's rows."""
    numbers, counts = images.unique_consecutive(return_counts=True)
    drawn = zip(numbers.tolist(), counts.tolist(), strict=True)
    lots = [np.random.default_rng([seed, image]).random(n) for image, n in drawn]
    return torch.from_numpy(np.concatenate([np.empty(0), *lots]))


def _lowest(parts: list[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """Returns what belongs to the `count` lowest lots, otherwise in order."""
    rows, images, lots = (torch.cat(fields) for fields in zip(*parts, strict=True))
    chosen = lots.argsort(stable=True)[:count].sort().values
    return rows[chosen], images[chosen], lots[chosen]
