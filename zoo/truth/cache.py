"""Matrices on disk: written whole or not at all, checked before they are believed, memory-mapped when read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def stored_matrix(path: Path, shape: tuple[int, int], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Read the float32 matrix at `path` (.npy), or compute and store it first; read-only and memory-mapped.

    A sidecar of the same name ending in .json holds the file's SHA-256. Where either file is missing, or checksum,
    shape or dtype are not what they should be, the matrix is computed again.
    """
    sidecar = path.with_suffix(".json")
    if not _intact(path, sidecar, shape):
        matrix = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, lambda stream: np.save(stream, matrix, allow_pickle=False))
        record = json.dumps({"shape": list(shape), "dtype": "float32", "sha256": _checksum(path)}).encode()
        _replace(sidecar, lambda stream: stream.write(record))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _intact(path: Path, sidecar: Path, shape: tuple[int, int]) -> bool:
    try:
        record = json.loads(sidecar.read_text())
        if record != {"shape": list(shape), "dtype": "float32", "sha256": _checksum(path)}:
            return False
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return matrix.shape == shape and matrix.dtype == np.float32


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _replace(path: Path, write: Callable) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
