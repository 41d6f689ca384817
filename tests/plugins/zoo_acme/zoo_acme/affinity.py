"""How near two pictures are by the floor on which they were taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from zoo.affinities import Affinity

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.affinities import Columns


class Floor(Affinity):
    """1 on the same floor, `neighbour` on the ones beside it, 0 further away. Reads `floor`."""

    fields: ClassVar[tuple[str, ...]] = ("floor",)

    def __init__(self, *, neighbour: float) -> None:
        self.neighbour = neighbour

    def __call__(self, a: Columns, b: Columns) -> Tensor:
        """Returns the affinities."""
        apart = (a["floor"] - b["floor"]).abs()
        return (apart == 0).float() + self.neighbour * (apart == 1).float()
