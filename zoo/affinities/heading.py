"""How nearly two cameras look the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from zoo.affinities import Affinity

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.affinities import Columns


class Heading(Affinity):
    """1 for the same compass heading, falling evenly to 0 for those that are `span`° apart or more.

    Suggested in Sec. 4.5 of Hanning 2024. Reads `heading` in °. Raises ValueError for a span outside 0 … 180.
    """

    fields: ClassVar[tuple[str, ...]] = ("heading",)

    def __init__(self, *, span: float) -> None:
        if not 0 < span <= 180:
            raise ValueError(f"span must lie in 0 … 180 °, got {span!r}")
        self.span = span

    def __call__(self, a: Columns, b: Columns) -> Tensor:
        """Returns the affinities."""
        apart = torch.remainder(a["heading"] - b["heading"] + 180, 360).sub(180).abs()
        return (1 - apart / self.span).clamp(min=0).float()


export = Heading
