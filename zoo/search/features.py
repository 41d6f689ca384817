"""Features on disk: what a model knows of a set of images, by their ids, for indexes and re-rankers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.files import BadFile
from zoo.search._features_join import joined

if TYPE_CHECKING:
    from zoo.types import Representation

MANIFEST, MODEL, SHARDS, UNREADABLE = "manifest.json", "model.safetensors", "shards", "unreadable.txt"
FORMAT, VERSION = "spatial-zoo features", 1
Id = str | int


class Features:
    """Representations of images by id, read when they are asked for.

    `ids` are in the order of `blocks`; `kinds` names the fields of `zoo.types.Representation` that an image has;
    `fingerprint` is that of the model which made them, None where that isn't known; `about` holds what was written
    beside them (model, preprocessing, data, command, versions). Pixels are those of the upright original.
    A subclass reads rows and payloads by position. `at_once` is how many are best asked for at a time, None for any.
    """

    at_once: int | None = None

    def __init__(
        self, path: Path, ids: Sequence[Id], kinds: Sequence[str], fingerprint: str | None, about: dict[str, Any]
    ) -> None:
        self.path, self.ids, self.kinds = path, list(ids), tuple(kinds)
        self.fingerprint, self.about = fingerprint, about
        self._positions: dict[Id, int] | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.ids)

    def __contains__(self, id_: Id) -> bool:
        """Tells whether an image is there."""
        return id_ in self._places()

    @property
    def model_file(self) -> Path | None:
        """Returns the file that rebuilds the model: in the folder, or beside an export; None where there is none."""
        path = (self.path if self.path.is_dir() else self.path.parent) / MODEL
        return path if self.fingerprint is not None and path.is_file() else None

    def get(self, ids: Sequence[Id]) -> Representation:
        """Returns the images of these ids, in this order; raises ValueError for an id that isn't there."""
        if not len(ids):
            return self.rows([0]).rows(slice(0, 0))
        return self.rows(self._find(ids))

    def payloads(self, ids: Sequence[Id]) -> list[dict[str, Any]]:
        """Returns what is known beside the fields (path, width, height, label), a mapping for each id."""
        return self.row_payloads(self._find(ids))

    def described(self, ids: Sequence[Id]) -> tuple[list[Id], Representation | None, list[dict[str, Any]]]:
        """Returns ids, representation and payloads of these images; fewer, or None, where some can't be read after all.

        Raises ValueError for an id that isn't there.
        """
        return list(ids), self.get(ids), self.payloads(ids)

    def same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Tells whether `old`, the payload of an index, is that of an image which hasn't changed since."""
        return old == new

    def blocks(self, size: int) -> Iterator[tuple[list[Id], Representation, list[dict[str, Any]]]]:
        """Yields ids, representation and payloads of `size` images at a time."""
        for start in range(0, len(self), size):
            places = list(range(start, min(start + size, len(self))))
            yield [self.ids[place] for place in places], self.rows(places), self.row_payloads(places)

    def rows(self, places: Sequence[int]) -> Representation:
        """Returns the images at these positions of `ids`."""
        raise NotImplementedError

    def row_payloads(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the payloads at these positions of `ids`."""
        raise NotImplementedError

    def _places(self) -> dict[Id, int]:
        if self._positions is None:
            self._positions = {id_: place for place, id_ in enumerate(self.ids)}
        return self._positions

    def _find(self, ids: Sequence[Id]) -> list[int]:
        places = self._places()
        missing = [id_ for id_ in ids if id_ not in places]
        if missing:
            others = ", ".join(map(repr, self.ids[:3])) or "nothing"
            raise ValueError(
                f"features {self.path} of {len(self)} images have none called {missing[0]!r}: they hold {others}"
                + (", …" if len(self) > 3 else "")
            )
        return [places[id_] for id_ in ids]


class ShardedFeatures(Features):
    """The zoo's own form: a folder with a manifest and shards, each a safetensors file that was written at once.

    Of an image that several shards hold, the last one counts. Images are ordered by name, numbers as numbers,
    however many processes wrote them.
    """

    def __init__(self, path: Path) -> None:
        from zoo.search._features_shards import Shards

        manifest = read_manifest(path)
        self.shards = Shards(path / SHARDS)
        ids, self._shard, self._row = self.shards.locate()
        super().__init__(path, ids, manifest["kinds"], manifest["fingerprint"], manifest["about"])

    def rows(self, places: Sequence[int]) -> Representation:
        """Returns the images at these positions; reads each shard that holds some once."""
        places = np.asarray(places, dtype=np.int64)
        owners, parts, taken = self._shard[places], [], []
        for shard in np.unique(owners):
            mine = np.flatnonzero(owners == shard)
            parts.append(self.shards.read(int(shard), self._row[places[mine]], self.fingerprint))
            taken.append(mine)
        order = np.concatenate(taken).argsort()
        whole = joined(parts)
        return whole if (order == np.arange(len(order))).all() else whole.rows(order)

    def row_payloads(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the payloads at these positions."""
        return [self.shards.payloads(int(self._shard[place]))[self._row[place]] for place in places]


def open_features(path: str | Path) -> Features:
    """Opens features of any form: a folder of `zoo embed`, hloc's `.h5`, `.parquet` or `.npz`.

    Raises BadFile for what isn't one of them, naming file and cause.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return ShardedFeatures(path)
    readers = {".h5": "HDF5Features", ".hdf5": "HDF5Features", ".parquet": "ParquetFeatures", ".npz": "NumpyFeatures"}
    if not path.is_file():
        raise BadFile(f"features {path}: no such file or folder")
    if path.suffix.lower() not in readers:
        raise BadFile(f"features {path}: must be a folder of zoo embed or one of {', '.join(readers)}")
    from zoo.search import _features_files

    return getattr(_features_files, readers[path.suffix.lower()])(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns a features folder's manifest; raises BadFile where there is none that this version reads."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadFile(f"features {folder}: the folder has no {MANIFEST}, so zoo embed didn't write it")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        wrong = manifest.get("format") != FORMAT
        incomplete = {"kinds", "fingerprint", "about"} - manifest.keys()
    except (ValueError, AttributeError) as error:
        raise BadFile(f"features {path} can't be read ({error})") from error
    if wrong:
        raise BadFile(f"features {path}: format must be '{FORMAT}', got {manifest.get('format')!r}")
    if manifest.get("version") != VERSION:
        raise BadFile(f"features {path}: this version reads format {VERSION}, the file has {manifest.get('version')}")
    if incomplete:
        raise BadFile(f"features {path} doesn't say {', '.join(sorted(incomplete))}")
    return manifest
