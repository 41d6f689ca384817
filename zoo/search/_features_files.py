"""Features in other programs' files: hloc's HDF5, Parquet, NumPy."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.files import BadFile, natural, replacing
from zoo.registry import UsageError
from zoo.search._features_join import joined
from zoo.search.features import Features
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import ModuleType

_NOTE = "spatial_zoo"  # where our own files say fingerprint and origin
_ROWS = 1024  # vectors that are written at a time
_IMAGES = 64  # the same with keypoints, of which an image has half a megabyte
_CENTRE = 0.5  # px from an image's upper left corner, our 0, 0, to the centre of its first pixel, hloc's 0, 0


class HDF5Features(Features):
    """hloc's layout: a group for each image, named by its path; keypoints are px of the original, x, y.

    `global_descriptor (D,)`, or `keypoints (K, 2)` with `descriptors (D, K)`, and `image_size` = width, height. To hloc
    the centre of the first pixel is 0, 0; in a `Representation` that is 0.5, 0.5.
    hloc doesn't say which model it was: the fingerprint is None unless the zoo wrote the file.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise BadFile(f"features {path} can't be read as HDF5 ({error})") from error
        self._groups = _groups_of(self._file)
        if not self._groups:
            raise BadFile(f"features {path} hold no group with a global_descriptor or keypoints")
        note = json.loads(self._file.attrs.get(_NOTE, "{}"))
        named = {self._file[name].attrs.get("id", name) if note else name: name for name in self._groups}
        ids = sorted(named, key=natural)
        self._groups = [named[id_] for id_ in ids]
        first = self._file[self._groups[0]]
        kinds = ("vector",) * ("global_descriptor" in first)
        kinds += ("keypoints", "keypoint_descriptors", "keypoint_mask") * ("keypoints" in first)
        super().__init__(path, ids, kinds, note.get("fingerprint"), note.get("about", {}))

    def rows(self, places: Sequence[int]) -> Representation:
        """Returns the images at these positions."""
        return joined([self._one(self._groups[place]) for place in places])

    def row_payloads(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Returns what the zoo wrote, else width and height where the file has them."""
        return [self._payload(self._file[self._groups[place]]) for place in places]

    def _payload(self, group: Any) -> dict[str, Any]:
        if "payload" in group.attrs:
            return json.loads(group.attrs["payload"])
        if "image_size" not in group:
            return {}
        width, height = (int(side) for side in group["image_size"][()])
        return {"width": width, "height": height}

    def _one(self, name: str) -> Representation:
        group, fields = self._file[name], {}
        try:
            if "vector" in self.kinds:
                fields["vector"] = _floats(group["global_descriptor"][()])[None]
            if "keypoints" in self.kinds:
                points, described = _floats(group["keypoints"][()]) + _CENTRE, _floats(group["descriptors"][()].T)
                mask = torch.ones(1, len(points), dtype=torch.bool)
                fields |= {"keypoints": points[None], "keypoint_descriptors": described[None], "keypoint_mask": mask}
        except KeyError as error:
            raise BadFile(f"features {self.path}: group '{name}' lacks what the others have ({error})") from error
        return Representation(**fields, fingerprint=self.fingerprint)


class ParquetFeatures(Features):
    """A column `id`, a column `vector` of equally long lists of numbers, and any others as payload."""

    def __init__(self, path: Path) -> None:
        parquet = _parquet()
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise BadFile(f"features {path} can't be read as Parquet ({error})") from error
        names = self._file.schema_arrow.names
        if "id" not in names or "vector" not in names:
            raise BadFile(f"features {path} must have the columns id and vector, got {', '.join(names)}")
        self._columns = [name for name in names if name not in ("id", "vector")]
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends = np.cumsum(counts)
        self._held: dict[tuple[str, ...], tuple[int, Any]] = {}
        note = json.loads((self._file.schema_arrow.metadata or {}).get(_NOTE.encode(), b"{}"))
        ids = self._file.read(columns=["id"]).column("id").to_pylist()
        _check_ids(path, ids)
        super().__init__(path, ids, ("vector",), note.get("fingerprint"), note.get("about", {}))

    def rows(self, places: Sequence[int]) -> Representation:
        """Returns the images at these positions; reads the row groups that hold them."""
        return Representation(
            vector=torch.cat(self._each(places, ["vector"], self._vectors)), fingerprint=self.fingerprint
        )

    def row_payloads(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the other columns at these positions; what is null is left out."""
        if not self._columns:
            return [{} for _ in places]
        rows = self._each(places, self._columns, lambda table: table.to_pylist())
        return [{key: value for key, value in row.items() if value is not None} for part in rows for row in part]

    def _each(self, places: Sequence[int], columns: list[str], take: Callable[[Any], Any]) -> list[Any]:
        """Returns `take` of the rows, for each run of places that lie in one row group."""
        if not len(places):
            return []
        owners = np.searchsorted(self._ends, np.asarray(places), side="right")
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        taken = []
        for start, end in zip(starts, [*starts[1:], len(owners)], strict=True):
            group = int(owners[start])
            before = int(self._ends[group - 1]) if group else 0
            taken.append(take(self._group(group, columns).take([place - before for place in places[start:end]])))
        return taken

    def _group(self, number: int, columns: list[str]) -> Any:
        """Returns columns of a row group, and keeps those read last: pandas makes groups of a million rows."""
        key = tuple(columns)
        if self._held.get(key, (None, None))[0] != number:
            self._held[key] = number, self._file.read_row_group(number, columns=columns)
        return self._held[key][1]

    def _vectors(self, table: Any) -> torch.Tensor:
        column = table.column("vector").combine_chunks()
        lengths = {len(value) for value in column}
        if column.null_count or len(lengths) != 1:
            raise BadFile(f"features {self.path}: all vectors must have one length, got {sorted(lengths)[:3]}")
        return _floats(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))


class NumpyFeatures(Features):
    """Arrays `vectors (N, D)` and `ids (N,)`, strings or integers; they are held in memory."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise BadFile(f"features {path} can't be read as .npz ({error})") from error
        if not {"vectors", "ids"} <= arrays.keys():
            raise BadFile(f"features {path} must hold the arrays vectors and ids, got {', '.join(arrays) or 'none'}")
        vectors, ids = arrays["vectors"], arrays["ids"]
        if vectors.ndim != 2 or ids.shape != vectors.shape[:1] or ids.dtype.kind not in "Uiu":
            raise BadFile(
                f"features {path}: vectors must be (N, D) and ids (N,) strings or integers, "
                f"got {vectors.shape} and {ids.shape} {ids.dtype}"
            )
        self._vectors = _floats(vectors)
        note = json.loads(str(arrays.get(_NOTE, "{}")))
        _check_ids(path, ids.tolist())
        super().__init__(path, ids.tolist(), ("vector",), note.get("fingerprint"), note.get("about", {}))

    def rows(self, places: Sequence[int]) -> Representation:
        """Returns the images at these positions."""
        return Representation(vector=self._vectors[list(places)], fingerprint=self.fingerprint)

    def row_payloads(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Returns empty payloads: the file holds none."""
        return [{} for _ in places]


def write_hdf5(features: Features, path: Path) -> None:
    """Writes hloc's layout, groups named by the images' paths below their root, which hloc goes by."""
    import h5py

    # h5py wants to read what it writes, so it opens the temporary file itself.
    with replacing(path) as temporary, h5py.File(temporary.name, "w", libver="latest") as file:
        file.attrs[_NOTE] = _note(features)
        for ids, items, payloads in features.blocks(_IMAGES):
            for row, (id_, payload) in enumerate(zip(ids, payloads, strict=True)):
                group = file.create_group(_hloc_name(features, id_, payload))
                group.attrs["id"], group.attrs["payload"] = id_, json.dumps(payload)
                _write_group(group, items.rows(slice(row, row + 1)), payload)


def _write_group(group: Any, item: Representation, payload: dict[str, Any]) -> None:
    if item.vector is not None:
        group.create_dataset("global_descriptor", data=item.vector[0].numpy())
    if item.keypoints is not None:
        there = item.keypoint_mask[0]
        group.create_dataset("keypoints", data=(item.keypoints[0][there] - _CENTRE).numpy())
        group.create_dataset("descriptors", data=item.keypoint_descriptors[0][there].float().numpy().T)
    if "width" in payload:
        group.create_dataset("image_size", data=np.array([payload["width"], payload["height"]]))


def _hloc_name(features: Features, id_: str | int, payload: dict[str, Any]) -> str:
    """Returns an image's path below the folder that was embedded, with its suffix."""
    for root in features.about.get("roots", ()):
        path = str(payload.get("path", ""))
        if path.startswith(f"{root}/"):
            return path[len(root) + 1 :]
    return str(id_)


def write_parquet(features: Features, path: Path) -> None:
    """Writes id, vector and a column for each key of the payloads."""
    import pyarrow

    parquet = _parquet()
    keys = list(dict.fromkeys(key for row in features.row_payloads(range(len(features))) for key in row))
    writer = None
    with replacing(path) as file:
        for ids, items, payloads in features.blocks(_ROWS):
            vectors = pyarrow.FixedSizeListArray.from_arrays(items.vector.numpy().ravel(), items.vector.shape[1])
            columns = {"id": pyarrow.array(ids), "vector": vectors.cast(pyarrow.list_(pyarrow.float32()))}
            columns |= {key: pyarrow.array([row.get(key) for row in payloads]) for key in keys}
            table = pyarrow.table(columns)
            if writer is None:
                schema = table.schema.with_metadata({_NOTE: _note(features)})
                writer = parquet.ParquetWriter(file, schema)
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()


def write_numpy(features: Features, path: Path) -> None:
    """Writes an .npz with `vectors (N, D)` fp32 and `ids (N,)`, never holding all of them in memory."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as stream:
            for number, (_, items, _) in enumerate(features.blocks(_ROWS)):
                if not number:
                    shape = (len(features), items.vector.shape[1])
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(stream, header)
                stream.write(items.vector.numpy().astype("<f4").tobytes())
        for name, array in {"ids": np.array(features.ids), _NOTE: np.array(_note(features))}.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


EXPORTS = {"hdf5": (write_hdf5, "h5"), "parquet": (write_parquet, "parquet"), "numpy": (write_numpy, "npz")}


def check_export(name: str, kinds: Sequence[str]) -> None:
    """Raises UsageError where an export is unknown, needs what isn't installed, or can't hold a model's fields."""
    if name not in EXPORTS:
        raise UsageError(f"export must be some of {', '.join(EXPORTS)}, got '{name}'")
    if name == "parquet":
        _parquet()
    able = ("vector", "keypoints") if name == "hdf5" else ("vector",)
    if not set(able) & set(kinds):
        raise UsageError(f"export={name} writes {' or '.join(able)}, the model fills {', '.join(kinds)}")


def export(features: Features, name: str) -> Path:
    """Writes features.h5, .parquet or .npz into the features folder and returns its path."""
    write, suffix = EXPORTS[name]
    path = features.path / f"features.{suffix}"
    write(features, path)
    return path


def _parquet() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'spatial-zoo[parquet]'") from error
    return pyarrow.parquet


def _note(features: Features) -> str:
    return json.dumps({"fingerprint": features.fingerprint, "about": features.about})


def _groups_of(file: Any) -> list[str]:
    names = []

    def visit(name: str, group: Any) -> None:
        if hasattr(group, "keys") and ("global_descriptor" in group or "keypoints" in group):
            names.append(name)

    file.visititems(visit)
    return names


def _floats(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def _check_ids(path: Path, ids: Sequence[Any]) -> None:
    if len(set(ids)) < len(ids):
        raise BadFile(f"features {path}: ids must differ, got {len(ids)}, {len(set(ids))} different")
    if any(not isinstance(id_, (str, int)) for id_ in ids[:1]):
        raise BadFile(f"features {path}: ids must be strings or integers, got {ids[0]!r}")
