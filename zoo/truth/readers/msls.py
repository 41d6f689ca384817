"""Ground truth of Mapillary Street-level Sequences from its tables (Warburg et al., CVPR 2020)."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.truth.readers.files import naming
from zoo.truth.relevance import RelevanceLists, first_repeated

if TYPE_CHECKING:
    from pathlib import Path

SPLITS = ("train_val", "test")
# UTM coordinates of some 10⁷ m have 2e-9 m between neighbouring float64 numbers: two points that are 25 m apart as
# written may come out a little farther.
ROUNDING = 1e-7  # m


@dataclass(frozen=True)
class _Side:
    """The images of one city's query or database folder: keys, (n, 2) easting and northing in m, panoramas."""

    keys: list[str]
    places: np.ndarray
    panoramas: list[str]


def read_msls(root: Path, cities: Sequence[str], *, radius: float, leaderboard: bool) -> RelevanceLists:
    """Finds the positives of each query: database images of its city within `radius` metres, the radius included.

    The distance is between (easting, northing) of `postprocessed.csv`; the heading is ignored. Reads the tree
    `root/{train_val|test}/<city>/{query,database}/{postprocessed,raw,subtask_index}.csv`. The gallery is the databases
    of all `cities` together, in their order. Queries without a positive are left out, and `notes` says how many.
    Without `panoramas`, those (`pano` in `raw.csv`) are neither queries nor gallery, and all their keys are `excluded`.

    `leaderboard` keeps only the images that the column `all` of `subtask_index.csv` marks True, queries and database
    alike. This is what `mode="val"`, `subtask="all"`, `task="im2im"` of the public code does (mapillary/mapillary_sls,
    datasets/msls.py: the centre frame of each sequence must be marked, and a sequence of one frame is its own
    centre). For cph and sf, 747 queries without panoramas (issue 31 there), of which 740 have a positive, and 18,871
    database images (GSV-Cities) are reported for it. The rule was read from that code; the counts were not
    reproduced here, as the tables do not come along.

    Raises FileNotFoundError for a missing table, or ValueError that names the file, the argument and the value.
    """
    from scipy.spatial import cKDTree

    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive number of metres, got {radius}")
    if not cities or len(set(cities)) < len(cities):
        raise ValueError(f"cities must name at least one city, each once, got {list(cities)}")
    queries, positives, gallery, excluded, total = [], [], [], [], 0
    for city in cities:
        folder = _city_folder(root, city)
        asked, database = (_side(folder / side, leaderboard) for side in ("query", "database"))
        near = cKDTree(database.places).query_ball_point(asked.places, radius + ROUNDING, return_sorted=True)
        for key, items in zip(asked.keys, near, strict=True):
            if items:
                queries.append(key)
                positives.append(tuple(database.keys[item] for item in items))
        gallery += database.keys
        excluded += asked.panoramas + database.panoramas
        total += len(asked.keys)
    notes = [f"panoramas left out: {len(excluded)}"] if excluded else []
    if len(queries) < total:
        notes.append(f"queries left out because nothing lies within {radius:g} m: {total - len(queries)} of {total}")
    with naming(root):
        return RelevanceLists(
            query_ids=tuple(queries),
            query_images=tuple(queries),
            groups={"relevant": tuple(positives)},
            boxes=None,
            gallery_ids=tuple(gallery),
            excluded=frozenset(excluded),
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class StreetImages:
    """The images of one city's query or database folder, panoramas left out.

    `keys`; `columns` of numbers, each (n,) float64: `easting` and `northing` in m, `heading` in ° clockwise from north,
    `captured_at` in ms since 1970.
    """

    keys: tuple[str, ...]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.keys)

    @property
    def poses(self) -> np.ndarray:
        """Returns (n, 3): easting, northing, heading."""
        return np.column_stack([self.columns[name] for name in ("easting", "northing", "heading")])


def read_street_images(root: Path, city: str) -> dict[str, StreetImages]:
    """Reads the poses of a city's images, "query" and "database"; raises what `read_msls` does.

    Positions are those of `postprocessed.csv`; heading (`ca`) and time (`captured_at`) stand in `raw.csv`.
    """
    folder = _city_folder(root, city)
    return {side: _street_images(folder / side) for side in ("query", "database")}


def _street_images(folder: Path) -> StreetImages:
    side = _side(folder, leaderboard=False)
    raw = _columns(folder / "raw.csv", ("key", "ca", "captured_at"))
    line = {key: place for place, key in enumerate(raw["key"])}
    with naming(folder / "raw.csv"):
        heading = _numbers("ca", [raw["ca"][line[key]] for key in side.keys])
        captured_at = _moments([raw["captured_at"][line[key]] for key in side.keys])
    easting, northing = side.places.T.copy()
    columns = {"easting": easting, "northing": northing, "heading": heading, "captured_at": captured_at}
    return StreetImages(tuple(side.keys), columns)


def _moments(texts: Sequence[str]) -> np.ndarray:
    """Returns ms since 1970 of dates or of times, as ISO 8601 writes them."""
    try:
        return np.array(texts, "datetime64[ms]").astype(np.int64).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"captured_at must be a date, {error}") from None


def _city_folder(root: Path, city: str) -> Path:
    for split in SPLITS:
        if (root / split / city).is_dir():
            return root / split / city
    if not any((root / split).is_dir() for split in SPLITS):
        raise FileNotFoundError(f"root must hold the folder train_val or test of MSLS, got {root}")
    found = sorted(folder.name for split in SPLITS for folder in (root / split).glob("*") if folder.is_dir())
    raise ValueError(f"cities must be folders of {root}/train_val or {root}/test, got {city!r}; found {found}")


def _side(folder: Path, leaderboard: bool) -> _Side:
    """Reads one folder's tables and takes out what the protocol leaves out, in the order of `postprocessed.csv`."""
    table = _columns(folder / "postprocessed.csv", ("key", "easting", "northing"))
    keys = table["key"]
    keep = np.ones(len(keys), bool)
    if leaderboard:
        keep &= _flags(folder / "subtask_index.csv", "all", keys)
    spherical = _flags(folder / "raw.csv", "pano", keys)
    keep &= ~spherical
    with naming(folder / "postprocessed.csv"):
        places = np.column_stack([_numbers(name, table[name]) for name in ("easting", "northing")])
    return _Side(
        [keys[place] for place in np.flatnonzero(keep)],
        places[keep],
        [keys[place] for place in np.flatnonzero(spherical)],
    )


def _columns(file: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Reads the named columns of a table, "key" among them; an unnamed row number comes first in MSLS' tables."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such table (MSLS' test cities were published without positions)")
    columns: dict[str, list[str]] = {name: [] for name in names}
    with naming(file), file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"the columns {missing} are missing, found {reader.fieldnames}")
        for row in reader:
            for name in names:
                if row[name] is None:
                    raise ValueError(f"line {reader.line_num} has no {name!r}")
                columns[name].append(row[name])
        repeated = first_repeated(columns["key"])
        if repeated is not None:
            raise ValueError(f"an image may have one row, got {repeated!r} twice")
    return columns


def _flags(file: Path, name: str, keys: Sequence[str]) -> np.ndarray:
    """Reads a column of True and False, in the order of `keys`."""
    table = _columns(file, ("key", name))
    by_key = dict(zip(table["key"], table[name], strict=True))
    with naming(file):
        for key in keys:
            if by_key.get(key) not in ("True", "False"):
                raise ValueError(f"{name!r} of image {key!r} must be True or False, got {by_key.get(key)!r}")
    return np.array([by_key[key] == "True" for key in keys], bool)


def _numbers(name: str, texts: Sequence[str]) -> np.ndarray:
    try:
        values = np.array([float(text) for text in texts], np.float64)
    except ValueError as error:
        raise ValueError(f"{name} must be a number, {error}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {texts[int(np.argmin(np.isfinite(values)))]!r}")
    return values
