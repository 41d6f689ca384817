"""Queries of cities with their nearest database images: what a trained re-ranker learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.files import replacing
from zoo.types import ShortlistBatch

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.truth.readers.msls import StreetImages


SIDES = ("database", "query")  # the order in which a city's descriptors stand in a split's table


@dataclass(frozen=True)
class City:
    """A city's images and descriptors: `database (N, D)` and `query (Q, D)`."""

    name: str
    images: dict[str, StreetImages]
    descriptors: dict[str, Tensor]
    stamp: str  # changes with the descriptors


@dataclass(frozen=True)
class Labelled:
    """Which hits (Q, K) of a city's queries are relevant, and how many images of the database are (Q,)."""

    hits: np.ndarray
    relevant: np.ndarray
    positives: np.ndarray


class AffinityTable:
    """One affinity of a split's images, for hits (B, K) with the first of them.

    Where the affinity has a table of all pairs it is looked up; otherwise it is computed from the columns of the rows.
    """

    def __init__(self, affinity: Any, cities: Sequence[City]) -> None:
        self.affinity = affinity
        sides = [city.images[side] for city in cities for side in SIDES]
        self._columns = {name: np.concatenate([side.columns[name] for side in sides]) for name in affinity.fields}
        tables = [affinity.table(_tensors(city.images["database"].columns, affinity.fields)) for city in cities]
        self._pairs = None if any(table is None for table in tables) else _joined(tables, cities)

    def __call__(self, hits: np.ndarray, anchors: int) -> Tensor:
        """Returns (B, K, L); 0 where there is no hit, -1."""
        if self._pairs is not None:
            from zoo.ops.field_of_view import affinity_block

            return torch.as_tensor(affinity_block(*self._pairs, hits, np.ascontiguousarray(hits[:, :anchors])))
        columns = {name: torch.from_numpy(values[hits]) for name, values in self._columns.items()}
        a = {name: values[:, :, None] for name, values in columns.items()}
        b = {name: values[:, None, :anchors] for name, values in columns.items()}
        there = torch.from_numpy(hits >= 0)
        return self.affinity(a, b).float() * (there[:, :, None] & there[:, None, :anchors])


class Shortlists:
    """The dataset of a split: batches of queries as `ShortlistBatch`, rows being those of `descriptors`."""

    def __init__(
        self,
        descriptors: Tensor,
        cities: Sequence[City],
        labelled: Sequence[Labelled],
        anchors: int,
        affinities: Sequence[Any],
    ) -> None:
        self.descriptors = descriptors
        self._anchors = anchors
        self._affinities = [AffinityTable(affinity, cities) for affinity in affinities]
        width = max(each.hits.shape[1] for each in labelled)
        queries, hits, base = [], [], 0
        for city, each in zip(cities, labelled, strict=True):
            count = len(city.images["database"])
            queries.append(base + count + np.arange(len(each.hits)))
            padded = np.pad(each.hits, ((0, 0), (0, width - each.hits.shape[1])), constant_values=-1)
            hits.append(np.where(padded < 0, -1, padded + base))
            base += count + len(city.images["query"])
        every = np.column_stack([np.concatenate(queries)[:, None], np.concatenate(hits)])
        relevant = np.concatenate(
            [np.pad(each.relevant, ((0, 0), (0, width - each.relevant.shape[1]))) for each in labelled]
        )
        positives = np.concatenate([each.positives for each in labelled])
        answered = positives > 0  # the loss leaves the others out, and so do the metrics
        self.left_out = int((~answered).sum())
        self._rows, self._relevant, self._positives = every[answered], relevant[answered], positives[answered]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: Sequence[int]) -> ShortlistBatch:
        """Returns the batch of these positions."""
        places = np.asarray(indices, np.int64)
        rows = self._rows[places]
        hits = np.ascontiguousarray(rows[:, 1:])
        found = [table(hits, self._anchors) for table in self._affinities]
        return ShortlistBatch(
            index=torch.from_numpy(places),
            relevant=torch.from_numpy(self._relevant[places]),
            positives=torch.from_numpy(self._positives[places]),
            rows=torch.from_numpy(rows),
            affinities=torch.stack(found, dim=2) if found else None,
        )


def mined(city: City, hits: int, folder: Path) -> np.ndarray:
    """Returns the nearest database images (Q, K) of a city's queries, from `folder` where they were found before."""
    from zoo.search.mining import nearest

    what = json.dumps([city.name, city.stamp, hits, [len(side) for side in city.images.values()]])
    file = folder / f"{city.name}_{hits}_{hashlib.sha256(what.encode()).hexdigest()[:16]}.npy"
    if file.is_file():
        return np.load(file, allow_pickle=False)
    found, _ = nearest(city.descriptors["query"], city.descriptors["database"], hits, f"mining {city.name}")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        np.save(stream, found.numpy().astype(np.int32), allow_pickle=False)
    return found.numpy().astype(np.int32)


def near_places(city: City, hits: np.ndarray, radius: float) -> Labelled:
    """Labels hits by distance: relevant is what lies within `radius` m of the query, whatever it looks at."""
    from scipy.spatial import cKDTree

    from zoo.truth.readers.msls import ROUNDING

    asked, there = (city.images[side].poses[:, :2] for side in ("query", "database"))
    positives = cKDTree(there).query_ball_point(asked, radius + ROUNDING, return_length=True)
    away = np.linalg.norm(there[hits] - asked[:, None], axis=2)
    return Labelled(hits, away <= radius + ROUNDING, np.asarray(positives, np.int64))


def overlapping_views(city: City, hits: np.ndarray, radius: float, angle: float, threshold: float) -> Labelled:
    """Labels hits by the overlap of the fields of view with the query's: relevant above `threshold` (Sec. 3.3)."""
    from zoo.ops.field_of_view import field_of_view_overlap

    asked, there = (city.images[side].poses for side in ("query", "database"))
    relevant = np.zeros(hits.shape, bool)
    for start in range(0, len(hits), 4096):
        rows = slice(start, start + 4096)
        overlap = field_of_view_overlap(asked[rows, None], there[hits[rows]], radius, angle)
        relevant[rows] = np.asarray(overlap) > threshold
    return Labelled(hits, relevant, relevant.sum(1).astype(np.int64))


def _tensors(columns: dict[str, np.ndarray], fields: Sequence[str]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(columns[name])) for name in fields}


def _joined(
    tables: Sequence[tuple[Any, Any, Any]], cities: Sequence[City]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joins the cities' tables of pairs to one over all rows of a split; query images have no pairs."""
    starts, columns, values, base, pairs = [np.zeros(1, np.int64)], [], [], 0, 0
    for (first, others, value), city in zip(tables, cities, strict=True):
        count, asked = len(city.images["database"]), len(city.images["query"])
        starts.append(np.asarray(first[1:]) + pairs)
        pairs += len(others)
        starts.append(np.full(asked, pairs, np.int64))
        columns.append((np.asarray(others) + base).astype(np.int32))
        values.append(np.asarray(value, np.float32))
        base += count + asked
    return np.concatenate(starts), np.concatenate(columns), np.concatenate(values)
