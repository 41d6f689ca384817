"""Arrays of records on disk: written whole or not at all, memory-mapped, verified by checksum, rebuilt if damaged."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zoo.files import replacing

_BLOCK = 1 << 22
# Files that this process has written or verified, by identity: a file replaced by another process is verified anew.
_verified: set[tuple[str, int, int, int]] = set()


def cache_path(folder: Path, stem: str, parameters: dict[str, Any]) -> Path:
    """Returns `<folder>/<stem>_<hash>.npy`; the hash covers `parameters`, so other content has another name."""
    digest = hashlib.blake2b(json.dumps(parameters, sort_keys=True).encode(), digest_size=8).hexdigest()
    return folder / f"{stem}_{digest}.npy"


def ensure_records(
    path: Path, parameters: dict[str, Any], dtype: np.dtype, size: int, chunks: Callable[[], Iterable[np.ndarray]]
) -> None:
    """Makes sure that `path` holds `size` undamaged records of `dtype`, else writes what `chunks()` yields.

    Beside the file stands `<path>.json` with `parameters` and the checksum. Warns when it replaces a damaged file. Two
    processes may do this at once: each writes a file of its own and renames it, and both write the same content.
    """
    problem = _problem(path, dtype, size)
    if problem is None:
        return
    if path.exists():
        warnings.warn(f"cache file {path} {problem}; it is generated again", stacklevel=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = io.BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(header, layout)
    with replacing(path) as file:
        checksum = _write(file, header.getvalue(), 0)
        for chunk in chunks():
            checksum = _write(file, chunk.view(np.uint8), checksum)
        note = {"parameters": parameters, "bytes": file.tell(), "crc32": checksum}
        # Before the records get their name: another process must never see records without their checksum.
        with replacing(_sidecar(path)) as side:
            side.write(json.dumps(note, indent=2).encode())
    _verified.add(_identity(path))


def open_records(path: Path) -> np.ndarray:
    """Returns the records, memory-mapped and read-only; nothing in the file is executed."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _problem(path: Path, dtype: np.dtype, size: int) -> str | None:
    """Tells what is wrong with a cache file, None if nothing is."""
    if not path.is_file():
        return "is missing"
    if _identity(path) in _verified:
        return None
    try:
        note = json.loads(_sidecar(path).read_bytes())
        expected = (note["bytes"], note["crc32"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"has no readable {_sidecar(path).name} with its checksum"
    if path.stat().st_size != expected[0]:
        return f"is damaged: {path.stat().st_size} bytes where {expected[0]} were written"
    if _checksum(path) != expected[1]:
        return "is damaged: its checksum differs"
    try:
        records = open_records(path)
    except (ValueError, EOFError) as error:
        return f"is of a foreign format: {error}"
    if records.dtype != dtype or records.shape != (size,):
        return f"is of a foreign format: {records.shape} records of {records.dtype.itemsize} bytes"
    _verified.add(_identity(path))
    return None


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _identity(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _write(file: BinaryIO, block: bytes | np.ndarray, checksum: int) -> int:
    file.write(block)
    return zlib.crc32(block, checksum)
