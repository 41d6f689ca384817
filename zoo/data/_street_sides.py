"""One side of street-level cities, query or database, image by image: descriptors, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from zoo.types import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data._shortlists import City


class StreetSide:
    """The images of a side of all cities, in order; batches hold `descriptors`."""

    def __init__(self, cities: Sequence[City], side: str) -> None:
        self._cities = [city.name for city in cities for _ in city.images[side].keys]
        self.keys = [key for city in cities for key in city.images[side].keys]
        self._descriptors = torch.cat([city.descriptors[side] for city in cities])
        columns = [city.images[side].columns for city in cities]
        self._columns = {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these positions."""
        return ChosenDescriptors(self._descriptors).__getitems__(indices)

    def place(self, position: int) -> tuple[str, str]:
        """Returns city and key of an image."""
        return self._cities[position], self.keys[position]

    def payloads(self, positions: Sequence[int]) -> list[dict[str, float]]:
        """Returns the numbers that are known of images."""
        return [{name: float(values[place]) for name, values in self._columns.items()} for place in positions]

    def chosen(self, positions: Sequence[int]) -> ChosenDescriptors:
        """Returns the dataset of these images."""
        return ChosenDescriptors(self._descriptors[torch.as_tensor(positions, dtype=torch.int64)])


class ChosenDescriptors:
    """A dataset of descriptors, read in batches."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these positions."""
        index = torch.as_tensor(list(indices), dtype=torch.int64)
        return Batch(index=index, images=torch.empty(len(index), 3, 0, 0), descriptors=self._rows[index])
