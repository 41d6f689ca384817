"""A simulated city in the spirit of Mapillary Street-Level Sequences: poses and global descriptors, no images.

Cameras drive through a planar network of streets, several times and at different times; `zoo.data._simulated_views`
says what they see. Everything is a function of the world, the city's seed and the counts. NumPy may change its
distributions from version to version, so that a seed gives the same city with the same NumPy only.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csgraph, csr_array

from zoo.data._simulated_views import (
    DATABASE,
    LANDMARKS,
    QUERIES,
    STREETS,
    Cameras,
    Recipe,
    World,
    describe,
    place_landmarks,
)
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["City", "Recipe", "Side", "World", "simulate_city", "write_msls"]

SIDES = ("database", "query")
_LANE = 2.0  # m that vehicles drive to the right of a street's middle
_SPEED = 8.0  # m/s
_MOUNT = 3.0  # ° by which a camera is mounted off its axis, standard deviation
_EPOCH, _YEARS = 1_388_534_400_000, 6  # images are taken from 1 January 2014 (ms since 1970) on, over so many years
_DAY = 86_400_000  # ms
_DEGREE = 111_320.0  # m of a degree of latitude
_CELL = 25.0  # m, the side of a "unique cluster"


@dataclass(frozen=True)
class Side:
    """The n images of a city's database or queries, those of a sequence one after the other.

    `keys` are unique across cities and sides; `poses (n, 3)` float64 as recorded: easting and northing in m, compass
    heading in ° clockwise from north in [0, 360); `sequence (n,)` and `frame (n,)` int64, counted from 0;
    `captured_at (n,)` int64 in ms since the epoch; `night (n,)` and `sideways (n,)` (a side-looking camera) bool;
    `descriptors (n, D)` float32, L2-normalised.
    """

    keys: tuple[str, ...]
    poses: np.ndarray
    sequence: np.ndarray
    frame: np.ndarray
    captured_at: np.ndarray
    night: np.ndarray
    sideways: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True)
class City:
    """Both sides of a simulated city."""

    database: Side
    query: Side


@dataclass(frozen=True)
class _Streets:
    """A street network: junctions (J, 2) m; streets (S, 2) from and to which junction.

    `popularity (S, 2)` says how often each is driven that way, and the other way.
    """

    junctions: np.ndarray
    streets: np.ndarray
    popularity: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        starts, ends = self.junctions[self.streets.T]
        return np.linalg.norm(ends - starts, axis=1)


def simulate_city(*, world: World, seed: int, database: int, queries: int) -> City:
    """Returns a city of exactly so many database and query images; cities of other seeds lie elsewhere.

    Query sequences keep to streets on which database sequences drive, as far as these are connected: few queries have
    no positive. Raises ValueError for counts below 1.
    """
    if database < 1 or queries < 1:
        raise ValueError(f"database and queries must be at least 1, got {database} and {queries}")
    recipe = world.recipe
    streets = _draw_streets(recipe, world.random(STREETS, seed), database)
    starts, ends = streets.junctions[streets.streets.T]
    landmarks = place_landmarks(world, world.random(LANDMARKS, seed), starts, ends)
    sides = {}
    for name, stream, count in zip(SIDES, (DATABASE, QUERIES), (database, queries), strict=True):
        rng = world.random(stream, seed)
        cameras, driven = _drive(recipe, streets, rng, count)
        streets = replace(streets, popularity=streets.popularity * driven[:, None])
        sides[name] = Side(
            keys=tuple(f"city{seed:04d}_{name}_{number:06d}" for number in range(count)),
            poses=_record(recipe, rng, cameras),
            sequence=cameras.sequence,
            frame=cameras.frame,
            captured_at=cameras.captured_at,
            night=cameras.night,
            sideways=cameras.sideways,
            descriptors=describe(world, seed, stream, landmarks, cameras),
        )
    return City(**sides)


def _draw_streets(recipe: Recipe, rng: np.random.Generator, database: int) -> _Streets:
    """Draws a jittered grid with gaps, of such a length that database sequences pass `passes` times in the mean."""
    wanted = database * sum(recipe.spacing) / 2 / recipe.passes
    side = max(2, math.ceil(math.sqrt(wanted / (2 * recipe.block * max(0.1, 1 - recipe.thinning)))) + 1)
    grid = np.arange(side * side).reshape(side, side)
    streets = np.concatenate(
        [np.column_stack([a.ravel(), b.ravel()]) for a, b in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:]))]
    )
    kept = rng.random(len(streets)) >= recipe.thinning
    parts = csgraph.connected_components(csr_array((kept, streets.T), (side * side,) * 2), directed=False)[1]
    kept &= parts[streets[:, 0]] == np.bincount(parts).argmax()
    streets = streets[kept] if kept.any() else streets
    origin = np.array([rng.uniform(350_000, 650_000), rng.uniform(1_000_000, 7_000_000)])
    rows, columns = np.divmod(np.arange(side * side), side)
    junctions = origin + np.column_stack([columns, rows]) * recipe.block
    junctions += rng.uniform(-recipe.jitter, recipe.jitter, junctions.shape)
    return _Streets(junctions, streets, rng.lognormal(0, recipe.popularity, (len(streets), 2)))


def _drive(recipe: Recipe, streets: _Streets, rng: np.random.Generator, count: int) -> tuple[Cameras, np.ndarray]:
    """Drives sequences until there are `count` frames; returns them, and which streets (S,) were driven."""
    driven = np.zeros(len(streets.streets), bool)
    weights = (streets.popularity * streets.lengths[:, None]).ravel()
    poses, columns, total = [], [], 0
    while total < count:
        frames = min(count - total, max(5, round(rng.gamma(2, recipe.frames / 2))))
        steps = rng.uniform(*recipe.spacing) * rng.uniform(0.85, 1.15, frames)
        steps = steps.clip(*recipe.spacing).cumsum()
        start = rng.choice(len(weights), p=weights / weights.sum())
        path, used = _walk(streets, rng, *divmod(int(start), 2), steps[-1])
        driven[used] = True
        sideways = rng.random() < recipe.sideways
        offset = rng.choice([-90.0, 90.0]) * sideways + rng.normal(0, _MOUNT)
        poses.append(_along(path, steps, offset))
        day = int(rng.integers(_YEARS * 365))
        night = rng.random() < recipe.night
        hour = rng.uniform(21, 23) if night else rng.uniform(8, 18)
        clock = _EPOCH + day * _DAY + np.int64(hour * 3_600_000) + (steps / _SPEED * 1000).astype(np.int64)
        number, dark, aside = (np.full(frames, value) for value in (len(columns), night, sideways))
        columns.append((number, np.arange(frames), clock, dark, aside))
        total += frames
    sequence, frame, clock, night, sideways = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Cameras(np.concatenate(poses), sequence, frame, clock, night, sideways), driven


def _walk(
    streets: _Streets, rng: np.random.Generator, street: int, reverse: int, length: float
) -> tuple[np.ndarray, list[int]]:
    """Returns the corners (P, 2) m of a way of at least `length` m, and the streets that it takes.

    It starts anywhere on a street; at a junction, straight on and popular streets are preferred, and it turns round
    at dead ends only.
    """
    here, there = streets.junctions[streets.streets[street][:: -1 if reverse else 1]]
    corners, used = [here + (there - here) * rng.random()], [street]
    left = length + 10
    while True:
        end = streets.streets[street, 0 if reverse else 1]
        corners.append(streets.junctions[end])
        left -= np.linalg.norm(corners[-1] - corners[-2])
        if left <= 0:
            return np.array(corners), used
        ahead = corners[-1] - here
        choices, turns = np.nonzero(streets.streets == end)
        ways = streets.junctions[streets.streets[choices, 1 - turns]] - corners[-1]
        cosines = ways @ ahead / np.linalg.norm(ways, axis=1) / np.linalg.norm(ahead)
        weights = streets.popularity[choices, turns] * np.exp(2 * cosines) * (choices != street)
        if not weights.any():
            weights = np.ones(len(choices))
        pick = rng.choice(len(choices), p=weights / weights.sum())
        street, reverse, here = int(choices[pick]), int(turns[pick]), corners[-1]
        used.append(street)


def _along(path: np.ndarray, steps: np.ndarray, offset: float) -> np.ndarray:
    """Returns the poses (n, 3) of cameras `steps (n,)` m along a path, turned by `offset` ° off the way of travel."""
    reached = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    places, before, ahead = (
        np.column_stack([np.interp(steps + shift, reached, path[:, axis]) for axis in (0, 1)]) for shift in (0, -4, 4)
    )
    way = ahead - before
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    places = places + _LANE * np.column_stack([way[:, 1], -way[:, 0]])
    return np.column_stack([places, (np.degrees(np.arctan2(way[:, 0], way[:, 1])) + offset) % 360])


def _record(recipe: Recipe, rng: np.random.Generator, cameras: Cameras) -> np.ndarray:
    """Returns the poses (n, 3) as recorded: half of the variance of the noise is common to a sequence."""
    spread = np.array([recipe.gps / 2, recipe.gps / 2, recipe.compass / math.sqrt(2)])
    common = rng.standard_normal((int(cameras.sequence[-1]) + 1, 3)) * spread
    own = rng.standard_normal((len(cameras.poses), 3)) * spread
    poses = cameras.poses + common[cameras.sequence] + own
    poses[:, 2] = poses[:, 2] % 360 % 360  # the first may round up to 360
    return poses


def write_msls(root: Path, city_name: str, city: City) -> None:
    """Writes a city's four tables a side where Mapillary Street-Level Sequences has those of a training city.

    Longitude and latitude follow from easting and northing as if the earth were a ball and easting 500 km lay on
    longitude 9°: good enough for a map, not to be converted back. Dates stand as days. All images belong to the
    subtask `all`; in the others a query is of the first condition and a database image of the second (summer to
    winter, day to night, old to new), by capture date. `unique_cluster` numbers squares of 25 m, the same on both
    sides. Files are written whole or not at all.
    """
    places = np.concatenate([city.database.poses[:, :2], city.query.poses[:, :2]])
    clusters = np.unique(np.floor(places / _CELL).astype(np.int64), axis=0, return_inverse=True)[1].ravel()
    middle = np.median(np.concatenate([city.database.captured_at, city.query.captured_at]))
    for name, side, cluster in zip(
        SIDES, (city.database, city.query), np.split(clusters, [len(city.database.keys)]), strict=True
    ):
        folder = root / "train_val" / city_name / name
        folder.mkdir(parents=True, exist_ok=True)
        for table, columns in _tables(side, cluster, middle, asked=name == "query").items():
            with replacing(folder / f"{table}.csv") as file:
                file.write(_text({"key": side.keys, **columns}).encode())


def _tables(side: Side, cluster: np.ndarray, middle: float, *, asked: bool) -> dict[str, dict[str, Sequence]]:
    east, north, heading = side.poses.T
    latitude = north / _DEGREE
    longitude = 9 + (east - 500_000) / (_DEGREE * np.cos(np.radians(latitude)))
    dates = side.captured_at.astype("datetime64[ms]")
    no = np.zeros(len(side.keys), bool)
    month = dates.astype("datetime64[M]").astype(np.int64) % 12
    summer, new = (month >= 3) & (month < 9), side.captured_at > middle
    first = {"w2s": ~summer, "s2w": summer, "d2n": ~side.night, "n2d": side.night, "o2n": ~new, "n2o": new}
    subtasks = {name: marked if asked else ~marked for name, marked in first.items()}
    return {
        "raw": {
            "lon": longitude,
            "lat": latitude,
            "ca": heading,
            "captured_at": dates.astype("datetime64[D]").astype(str),
            "pano": no,
        },
        "postprocessed": {
            "easting": east,
            "northing": north,
            "unique_cluster": cluster,
            "control_panel": no,
            "night": side.night,
            "view_direction": np.where(side.sideways, "Sideways", "Forward"),
        },
        "seq_info": {
            "sequence_key": [f"{side.keys[0].rsplit('_', 1)[0]}_s{number:05d}" for number in side.sequence],
            "frame_number": side.frame,
        },
        "subtask_index": {"all": ~no, **subtasks},
    }


def _text(columns: dict[str, Sequence]) -> str:
    """Returns a table as text, with the unnamed row number first that MSLS' tables have."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["", *columns])
    lists = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    writer.writerows([number, *row] for number, row in enumerate(zip(*lists, strict=True)))
    return stream.getvalue()
