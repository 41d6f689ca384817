"""How much two cameras' fields of view overlap on the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from zoo.affinities import Affinity
from zoo.ops.field_of_view import check_sector, field_of_view_overlap, overlapping_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.affinities import Columns


class FieldOfView(Affinity):
    """The share of a circular sector, `radius` m and `angle`° wide, that another camera's sector covers.

    Sec. 3.1 of Hanning 2024. Reads `easting` and `northing` in m and `heading` in ° clockwise from north.
    """

    fields: ClassVar[tuple[str, ...]] = ("easting", "northing", "heading")

    def __init__(self, *, radius: float, angle: float, mode: str) -> None:
        check_sector(radius, angle, mode)
        self.radius, self.angle, self.mode = radius, angle, mode

    def __call__(self, a: Columns, b: Columns) -> Tensor:
        """Returns the overlaps."""
        return field_of_view_overlap(self._poses(a), self._poses(b), self.radius, self.angle, self.mode).float()

    def table(self, columns: Columns) -> tuple[Any, Any, Any]:
        """Returns all pairs that overlap: those within two radii."""
        return overlapping_pairs(self._poses(columns), self.radius, self.angle, self.mode)

    def _poses(self, columns: Columns) -> Tensor:
        return torch.stack([torch.as_tensor(columns[field], dtype=torch.float64) for field in self.fields], dim=-1)


export = FieldOfView
