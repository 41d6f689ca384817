"""Simulated cities in the layout of Mapillary Street-Level Sequences: poses and descriptors, without images."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from zoo.checks import check_integers
from zoo.data._simulated_city import simulate_city, write_msls
from zoo.data._simulated_views import Recipe, World
from zoo.data.street_level import StreetLevel
from zoo.files import replacing
from zoo.progress import tracked

log = logging.getLogger("zoo")

_FORMAT = 1  # to be raised with any change of what is made from a recipe


class SimulatedCity(StreetLevel):
    """Street-level places that are simulated on first use, written to a folder of `root` and read as `street_level`.

    What is trained on them is compared among its like: nothing here was photographed. `train_count` and `val_count`
    cities have `database` and `queries` images each; all share the looks of types of buildings and the ways in which
    light, season and camera change a descriptor, which is what a network can learn from one city for another.
    `conf/data/simulated_city.yaml` explains the parameters. Raises ValueError for a number out of range or an unknown
    key of `recipe`.
    """

    def __init__(
        self, *, root: str, train_count: int, val_count: int, database: int, queries: int, dimension: int,
        recipe: Mapping[str, Any], radius: float, view_radius: float, view_angle: float, overlap: float, seed: int,
        batch_size: int, num_workers: int,
    ) -> None:  # fmt: skip
        check_integers(0, seed=seed)
        least = {"train_count": train_count, "val_count": val_count, "database": database, "queries": queries}
        check_integers(1, **least, dimension=dimension)
        unknown = sorted(set(recipe) - {field.name for field in fields(Recipe)})
        if unknown:
            known = ", ".join(field.name for field in fields(Recipe))
            raise ValueError(f"recipe must have keys of {known}, got {', '.join(unknown)}")
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
        self.world = World(seed=seed, dimension=dimension, recipe=Recipe(**plain))
        self._counts = database, queries
        names = [f"city{number:04d}" for number in range(train_count + val_count)]
        about = [_FORMAT, asdict(self.world), self._counts]
        folder = Path(root).expanduser() / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        super().__init__(
            root=str(folder), descriptors=str(folder / "descriptors" / "{city}.npz"), train_cities=names[:train_count],
            val_cities=names[train_count:], radius=radius, view_radius=view_radius, view_angle=view_angle,
            overlap=overlap, cache=str(folder / "shortlists"), seed=seed, batch_size=batch_size,
            num_workers=num_workers,
        )  # fmt: skip

    @property
    def dimension(self) -> int:
        """Returns D of the descriptors."""
        return self.world.dimension

    def prepare_data(self) -> None:
        """Simulates the cities that aren't there, one after the other."""
        names = [name for cities in self.cities.values() for name in cities]
        missing = [name for name in names if not self._file(name).is_file()]
        if missing:
            log.info("simulating %d cities in %s", len(missing), self.root)
        for name in tracked(missing, "simulating cities"):
            self._simulate(name)

    def setup(self, stage: str | None = None) -> None:
        """Reads the cities, after simulating what isn't there."""
        self.prepare_data()
        super().setup(stage)

    def _simulate(self, name: str) -> None:
        database, queries = self._counts
        city = simulate_city(world=self.world, seed=int(name.removeprefix("city")), database=database, queries=queries)
        write_msls(self.root, name, city)
        sides = (city.database, city.query)
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(name)) as file:  # last: where it is, the tables are too
            vectors = np.concatenate([side.descriptors for side in sides])
            np.savez(file, vectors=vectors, ids=np.array([key for side in sides for key in side.keys]))

    def _file(self, name: str) -> Path:
        return self.root / "descriptors" / f"{name}.npz"


export = SimulatedCity
