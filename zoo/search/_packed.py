"""Regions of images, packed: those that exist one behind the other, with the number of each image's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.search.rows import Growing
from zoo.search.stored import rows_of
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Regions:
    """T regions of B images: descriptors `regions (T, D)`, `counts (B,)`, `boxes (T, 4)` and `hulls (T, V, 2)` or None.

    `columns (T,)` are their places among the regions of their image, as they were given.
    """

    regions: np.ndarray
    counts: np.ndarray
    columns: np.ndarray
    boxes: np.ndarray | None = None
    hulls: np.ndarray | None = None

    @cached_property
    def starts(self) -> np.ndarray:
        """Returns where the regions of each image begin, and T: (B + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the fields that are there."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


def pack_regions(items: Representation, dimension: int | None, what: str, normalise: bool) -> Regions:
    """Returns the regions that exist; an image without regions but with a vector has that as its only one.

    Raises ValueError where the first region, the whole image, is missing, and for what `rows_of` refuses.
    """
    if items.regions is None:
        rows = rows_of(items.vector, dimension, what, normalise)
        return Regions(rows, np.ones(len(rows), np.int64), np.zeros(len(rows), np.int64))
    regions = rows_of(items.regions, dimension, what, normalise, axes=3)
    mask = np.ones(regions.shape[:2], bool) if items.region_mask is None else items.region_mask.cpu().numpy()
    if not mask[:, :1].all() or not mask.shape[1]:
        raise ValueError(f"{what} must have region 0, the whole image, got none for {int(np.argmin(mask[:, 0]))}")
    extra = {"boxes": items.region_boxes, "hulls": items.region_hulls}
    packed = {key: value.detach().cpu().float().numpy()[mask] for key, value in extra.items() if value is not None}
    return Regions(regions[mask], mask.sum(axis=1), np.nonzero(mask)[1], **packed)


class RegionStore:
    """Packed regions that grow and shrink by images."""

    def __init__(self) -> None:
        self._stores: dict[str, Growing] = {}

    @property
    def dimension(self) -> int | None:
        """Returns D, None before the first regions."""
        return self._stores["regions"].rows.shape[1] if self._stores else None

    @property
    def packed(self) -> Regions:
        """Returns all regions, as views."""
        return Regions(**{key: store.rows for key, store in self._stores.items()})

    def check(self, packed: Regions, what: str) -> None:
        """Raises ValueError where regions come without boxes or hulls and others have them, or the other way round."""
        given = packed.arrays()
        if self._stores and given.keys() != self._stores.keys():
            there = ", ".join(self._stores)
            raise ValueError(f"{what} must bring the fields that the index holds ({there}), got {', '.join(given)}")

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds the regions of images."""
        if not self._stores:
            self._stores = {key: Growing(array.dtype, *array.shape[1:]) for key, array in arrays.items()}
        for key, array in arrays.items():
            rows = self._fitted(array) if key == "hulls" else array  # first: it may put another store in place
            self._stores[key].append(rows)

    def keep(self, mask: np.ndarray) -> None:
        """Drops the images where `mask (N,)` is False."""
        rows = np.repeat(mask, self.packed.counts)
        for key, store in self._stores.items():
            store.keep(mask if key == "counts" else rows)

    def since(self, image: int) -> dict[str, np.ndarray]:
        """Returns the arrays of the images from number `image` on."""
        start = self.packed.starts[image]
        return {key: store.rows[image if key == "counts" else start :] for key, store in self._stores.items()}

    def padded(self, images: np.ndarray) -> Representation:
        """Returns images with their regions padded to the largest number among them by repeating region 0."""
        if not self._stores:
            return Representation(vector=torch.empty(0, 0), regions=torch.empty(0, 0, 0))
        packed = self.packed
        counts = packed.counts[images]
        places = np.arange(counts.max(initial=1))
        mask = places < counts[:, None]
        rows = packed.starts[images][:, None] + np.where(mask, places, 0)
        named = {"regions": "regions", "boxes": "region_boxes", "hulls": "region_hulls"}
        arrays = packed.arrays()
        fields = {field: torch.from_numpy(arrays[key][rows]) for key, field in named.items() if key in arrays}
        return Representation(vector=fields["regions"][:, 0], region_mask=torch.from_numpy(mask), **fields)

    def _fitted(self, hulls: np.ndarray) -> np.ndarray:
        """Repeats last corners, of the new outlines or of those that are there, so that all have as many."""
        store = self._stores["hulls"]
        wanted = max(store.rows.shape[1], hulls.shape[1])
        if store.rows.shape[1] < wanted:
            bigger = Growing(np.float32, wanted, 2)
            bigger.append(_with_corners(store.rows, wanted))
            self._stores["hulls"] = bigger
        return _with_corners(hulls, wanted)


def _with_corners(hulls: np.ndarray, count: int) -> np.ndarray:
    return hulls[:, np.minimum(np.arange(count), hulls.shape[1] - 1)]


def evidence_of(query: Regions, query_row: int, stored: Regions, row: int, column: int) -> dict[str, Any]:
    """Returns what to show of the best pair: numbers of the two regions, their boxes and outlines where known."""
    shown: dict[str, Any] = {"query_region": int(query.columns[query_row]), "region": column}
    for prefix, side, place in (("query_", query, query_row), ("", stored, row)):
        if side.boxes is not None:
            shown[f"{prefix}box"] = side.boxes[place].tolist()
        if side.hulls is not None:
            shown[f"{prefix}hull"] = side.hulls[place].tolist()
    return shown
