"""A folder of data files that change together: what a crash leaves is the former state or the new one.

`manifest.json` names every data file with its size and checksum. A commit writes new files, beside those that stay,
then replaces the manifest, then deletes what no manifest names any more.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from zoo.files import BadFile, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MANIFEST = "manifest.json"
FORMAT, VERSION = "spatial-zoo index", 1
_LOCK = ".lock"
_OURS = re.compile(r"\.?\d{6}-[\w.-]+\.(npy|faiss|safetensors)(\.\d+\.\w+\.tmp)?|\.manifest\.json\.\d+\.\w+\.tmp")
_BLOCK = 1 << 20  # bytes read or written at a time


def is_unused(folder: Path) -> bool:
    """Says whether a folder is free for a new index: not there, empty, or with what a killed first commit left."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name == _LOCK or _OURS.fullmatch(path.name) for path in folder.iterdir())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a folder.

    Raises BadFile where there is none, where it is damaged, or where a later version of the zoo wrote it.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadFile(f"{folder} is no index: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} can't be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadFile(f"{path} is not the manifest of an index")
    if content.get("version") != VERSION:
        raise BadFile(f"{path} has format version {content.get('version')!r}, this zoo reads version {VERSION}")
    if content.pop("checksum", None) != _checksum_of(content):
        raise BadFile(f"{path} is damaged: its checksum differs")
    return content


def read_array(folder: Path, entry: Mapping[str, Any]) -> np.ndarray:
    """Returns a data file as a read-only array, mapped into memory; raises BadFile where it is not what was written."""
    path = _checked_path(folder, entry)
    try:
        return np.load(path, mmap_mode="r" if entry.get("count") else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} can't be read: {error}") from None


def read_bytes(folder: Path, entry: Mapping[str, Any]) -> np.ndarray:
    """Returns a data file as bytes (n,) uint8; raises BadFile where it is not what was written."""
    return np.fromfile(_checked_path(folder, entry), dtype=np.uint8)


@dataclass(frozen=True)
class Pieces:
    """An array that is too large to be held at once: `pieces` yields it from the first row to the last."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self.shape[0]

    def write(self, file: Any) -> None:
        """Writes a NumPy file."""
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in self.pieces:
            file.write(piece.astype(self.dtype, copy=False).tobytes())


class Commit:
    """The files that one commit writes into `folder`; each method returns the entry for the manifest."""

    def __init__(self, folder: Path, generation: int) -> None:
        self.folder, self.generation = folder, generation

    def array(self, field: str, array: np.ndarray | Pieces) -> dict[str, Any]:
        """Writes a NumPy file."""
        with self._file(f"{field}.npy") as (file, entry):
            if isinstance(array, Pieces):
                array.write(file)
            else:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        return {**entry, "count": len(array)}

    def content(self, name: str, content: np.ndarray) -> dict[str, Any]:
        """Writes bytes (n,) uint8."""
        with self._file(name) as (file, entry):
            for start in range(0, len(content), _BLOCK):
                file.write(memoryview(content[start : start + _BLOCK]))
        return entry

    @contextmanager
    def _file(self, name: str) -> Iterator[tuple[_Counted, dict[str, Any]]]:
        entry: dict[str, Any] = {"file": f"{self.generation:06d}-{name}"}
        with replacing(self.folder / entry["file"]) as raw:
            file = _Counted(raw)
            yield file, entry
        entry.update(bytes=file.size, crc32=file.crc32)


class _Counted:
    """Writes to a file and keeps the size and the checksum of what it wrote."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self.size, self.crc32 = raw, 0, 0

    def write(self, data: Any) -> int:
        self.crc32 = zlib.crc32(data, self.crc32)
        self.size += len(data)
        return self._raw.write(data)


@contextmanager
def committing(folder: Path, generation: int | None) -> Iterator[tuple[Commit, dict[str, Any]]]:
    """Lets the caller write files and fill the manifest, then makes both the new state of the folder.

    `generation` is that of the state which the caller's data began with, None where it began with nothing. Raises
    ValueError where the folder holds another state by now, or where another process is writing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        _check_generation(folder, generation)
        manifest: dict[str, Any] = {}
        commit = Commit(folder, (generation or 0) + 1)
        yield commit, manifest
        _sync(folder)  # the names of the data files have to be on the disk before the manifest that names them
        _write_manifest(folder, {"format": FORMAT, "version": VERSION, "generation": commit.generation, **manifest})
        _clean_up(folder, manifest)


def entries(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the entry of every data file that a manifest names."""
    pending: list[Any] = [manifest.get("segments"), manifest.get("removed"), manifest.get("snapshot")]
    while pending:
        node = pending.pop()
        if isinstance(node, dict) and "file" in node:
            yield node
        elif isinstance(node, dict | list):
            pending += node.values() if isinstance(node, dict) else node


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    content = {**manifest, "checksum": _checksum_of(manifest)}
    with replacing(folder / MANIFEST) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())
    _sync(folder)


def _checksum_of(manifest: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _clean_up(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Deletes our files that the manifest doesn't name: replaced ones, and those of a commit that was killed."""
    named = {entry["file"] for entry in entries(manifest)}
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in named:
            with suppress(FileNotFoundError):
                path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    import fcntl

    with (folder / _LOCK).open("ab") as lock:  # released by the system when its holder dies
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is writing to the index {folder}; try again when it is done") from None
        yield


def _check_generation(folder: Path, generation: int | None) -> None:
    there = read_manifest(folder)["generation"] if (folder / MANIFEST).exists() else None
    if there == generation:
        return
    if generation is None:
        raise ValueError(f"{folder} already holds an index: open it with open_index, or choose another folder")
    raise ValueError(
        f"the index {folder} was written by another process since it was opened "
        f"(its generation is {there}, the opened one {generation}): open it again"
    )


def _checked_path(folder: Path, entry: Mapping[str, Any]) -> Path:
    name = entry["file"]
    if not _OURS.fullmatch(name):
        raise BadFile(f"{folder / MANIFEST} names a file that is no data file: {name!r}")
    path = folder / name
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise BadFile(f"{path} is damaged: it has {size} bytes instead of {entry['bytes']}")
        if _crc32(path) != entry["crc32"]:
            raise BadFile(f"{path} is damaged: its checksum differs")
    except OSError as error:
        raise BadFile(f"{path} can't be read: {error.strerror}") from None
    return path


def _crc32(path: Path) -> int:
    value, block = 0, bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            value = zlib.crc32(memoryview(block)[:size], value)
    return value
