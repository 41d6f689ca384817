"""Matrices on disk: written whole or not at all, checked before they are believed, memory-mapped when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo.files import replacing


def stored_matrix(path: Path, shape: tuple[int, int], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Read the float32 matrix at `path` (.npy), or compute and store it first; read-only and memory-mapped.

    A sidecar of the same name ending in .json holds the file's SHA-256. Where either file is missing, or checksum,
    shape or dtype are not what they should be, the matrix is computed again.
    """
    sidecar = path.with_suffix(".json")
    if not _intact(path, sidecar, shape):
        matrix = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            np.save(stream, matrix, allow_pickle=False)
        record = json.dumps({"shape": list(shape), "dtype": "float32", "sha256": _checksum(path)}).encode()
        with replacing(sidecar) as stream:
            stream.write(record)
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
