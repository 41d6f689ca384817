"""How soon after one another two pictures were taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from zoo.affinities import Affinity

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.affinities import Columns

_MS = 1000.0  # in a second


class Time(Affinity):
    """1 for pictures of one moment, 1/e for those that are `scale` s apart.

    Reads `captured_at`, ms since 1970. Raises ValueError for a scale of 0 or below.
    """

    fields: ClassVar[tuple[str, ...]] = ("captured_at",)

    def __init__(self, *, scale: float) -> None:
        if not scale > 0:
            raise ValueError(f"scale must be a positive number of seconds, got {scale!r}")
        self.scale = scale

    def __call__(self, a: Columns, b: Columns) -> Tensor:
        """Returns the affinities."""
        return torch.exp(-(a["captured_at"] - b["captured_at"]).abs() / (_MS * self.scale)).float()


export = Time
