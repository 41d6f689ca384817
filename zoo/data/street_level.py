"""Street-level places: the tree of Mapillary Street-Level Sequences, with descriptors that were made before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from zoo.checks import check_integers, check_positive, is_number
from zoo.data._descriptors import KeyedDescriptors
from zoo.data._loading import SplitDataModule, UnrepeatedSampler, rank_zero_first
from zoo.data._pictures import read_picture
from zoo.data._shortlists import SIDES, City, Shortlists, mined, near_places, overlapping_views
from zoo.data._street_sides import StreetSide
from zoo.progress import progress_bar
from zoo.truth.readers.msls import SPLITS, read_msls, read_street_images

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

    from zoo.truth import RelevanceLists

log = logging.getLogger("zoo")

_DESCRIPTORS = 1024  # in a batch of an evaluation


class StreetLevel(SplitDataModule):
    """Queries of cities with their nearest database images by descriptor, found city by city and kept on disk.

    Splits are `train` and `val`, each the queries of its cities, without panoramas; and for evaluation the `query` and
    `database` images of the validation cities, one by one. In training a hit is relevant whose
    field of view overlaps the query's by more than `overlap`; in validation one within `radius` m. `conf/data/
    street_level.yaml` explains the parameters. Raises ValueError for a number out of range or descriptors that are
    missing, FileNotFoundError for missing tables.
    """

    gives = ("descriptors",)
    gives_shortlists = True
    splits = ("train", "val", "query", "database")
    query_split, gallery_split = "query", "database"

    def __init__(
        self, *, root: str, descriptors: str, train_cities: Sequence[str], val_cities: Sequence[str], radius: float,
        view_radius: float, view_angle: float, overlap: float, cache: str, seed: int, batch_size: int, num_workers: int,
    ) -> None:  # fmt: skip
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        check_integers(0, seed=seed)
        check_positive(radius=radius, view_radius=view_radius, view_angle=view_angle)
        if not is_number(overlap) or not 0 <= overlap < 1:
            raise ValueError(f"overlap must lie in 0 … 1, 1 itself left out, got {overlap!r}")
        self.cities = {"train": list(train_cities), "val": list(val_cities)}
        for name, cities in self.cities.items():
            if not cities or len(set(cities)) < len(cities):
                raise ValueError(f"{name}_cities must name at least one city, each once, got {cities}")
        self.root, self._descriptors, self._cache = Path(root).expanduser(), descriptors, Path(cache).expanduser()
        self._radius, self._view, self._overlap = radius, (view_radius, view_angle), overlap
        self._seed, self._wanted = seed, (1, 1, ())
        self._datasets: dict[str, Shortlists] = {}
        self._opened: dict[Path, KeyedDescriptors] = {}  # one may serve all cities

    @property
    def dimension(self) -> int:
        """Returns D of the descriptors, by those of the first validation city; raises what opening them raises."""
        return self._descriptors_of(self.cities["val"][0]).dimension

    def prepare_shortlists(self, hits: int, anchors: int, affinities: Sequence[Any]) -> None:
        """Says what a model wants of each query: how many hits, and which affinities of them with how many anchors."""
        if (hits, anchors, tuple(affinities)) != self._wanted:
            self._wanted = hits, anchors, tuple(affinities)
            self._datasets.clear()

    def setup(self, stage: str | None = None) -> None:
        """Reads tables and descriptors; to fit, mines the shortlists as well, with progress bars.

        Raises what reading raises.
        """
        wanted = self.splits[2:] if stage == "test" else self.splits[:2]
        if all(split in self._datasets for split in wanted):
            return
        if stage == "test":
            cities, _ = self._open(self.cities["val"])
            self._datasets |= {side: StreetSide(cities, side) for side in wanted}
        else:
            with rank_zero_first():  # what it mines, the others find in the cache
                self._datasets |= {split: self._shortlists(split) for split in wanted}
        self._opened.clear()  # their keys are many

    def dataset(self, split: str) -> Any:
        """Returns the dataset of a split; raises ValueError for another name, RuntimeError before `setup`."""
        self.check_split(split)
        if split not in self._datasets:
            raise RuntimeError(f"split {split!r} is not open: call setup() first")
        return self._datasets[split]

    def ids(self, split: str) -> list[str]:
        """Returns the keys of the images of `query` or `database`, city by city."""
        return self.dataset(split).keys

    def payloads(self, split: str, names: Sequence[str]) -> list[dict[str, float]]:
        """Returns what is known of the named images: easting, northing, heading, captured_at."""
        return self.dataset(split).payloads([self.position(split, name) for name in names])

    def selection(
        self, split: str, names: Sequence[str], boxes: Sequence[Any] | None = None, tolerant: bool = False
    ) -> DataLoader:
        """Returns a loader of the named images' descriptors; boxes have no meaning here, nor is any file unreadable."""
        chosen = self.dataset(split).chosen([self.position(split, name) for name in names])
        return self._loader(chosen, UnrepeatedSampler(len(chosen), *self._shard()), _DESCRIPTORS)

    def ground_truth(self) -> RelevanceLists:
        """Returns what is relevant to which query of the validation cities."""
        return read_msls(self.root, self.cities["val"], radius=self._radius, leaderboard=False)

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image of `query` or `database`; raises FileNotFoundError where the tree holds tables alone."""
        city, key = self.dataset(split).place(position)
        files = [self.root / part / city / split / "images" / f"{key}.jpg" for part in SPLITS]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"image {key} of {city} isn't in {files[0].parent}")
        return np.array(read_picture(found, upright=True).pixels)

    def descriptors(self, split: str) -> Tensor:
        """Returns (N, D): what the rows of the split's batches point at."""
        return self.dataset(split).descriptors

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader of the train split."""
        return self.shuffled_loader("train", self._seed)

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of the val split, in order."""
        return self.loader("val")

    def city(self, name: str) -> City:
        """Returns a city's images and descriptors; raises what reading them raises."""
        (found,), _ = self._open([name])
        return found

    def _open(self, names: Sequence[str]) -> tuple[list[City], Tensor]:
        """Returns cities, and one table of all their descriptors that theirs are parts of."""
        images = {name: read_street_images(self.root, name) for name in names}
        files = {name: self._descriptors_of(name) for name in names}
        total = sum(len(each) for sides in images.values() for each in sides.values())
        table, end = torch.empty(total, files[names[0]].dimension), 0
        cities = []
        with progress_bar("reading descriptors", total, "images", rank_zero_only.rank == 0) as advance:
            for name, sides in images.items():
                parts = {}
                for side in SIDES:
                    begin, end = end, end + len(sides[side])
                    parts[side] = table[begin:end]
                    files[name].fill(parts[side], sides[side].keys, f"{side} image of {name}", advance)
                cities.append(City(name, sides, parts, files[name].stamp))
        return cities, table

    def _descriptors_of(self, city: str) -> KeyedDescriptors:
        path = Path(self._descriptors.replace("{city}", city)).expanduser()
        if path not in self._opened:
            self._opened[path] = KeyedDescriptors(path)
        return self._opened[path]

    def _shortlists(self, split: str) -> Shortlists:
        hits, anchors, affinities = self._wanted
        cities, table = self._open(self.cities[split])
        labelled = []
        for city in cities:
            found = mined(city, hits, self._cache)
            if split == "train":
                labelled.append(overlapping_views(city, found, *self._view, self._overlap))
            else:
                labelled.append(near_places(city, found, self._radius))
        made = Shortlists(table, cities, labelled, anchors, affinities)
        if not len(made):
            raise ValueError(
                f"{split}_cities must have a query with a relevant image, got none in {self.cities[split]}"
            )
        log.info(
            "%s: %s queries of %d cities, %s images, %s queries without a relevant image left out",
            split, f"{len(made):,}", len(cities), f"{len(made.descriptors):,}", f"{made.left_out:,}",
        )  # fmt: skip
        return made


export = StreetLevel
