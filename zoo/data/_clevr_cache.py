"""What was read from a large file, kept on disk in compact arrays until that file changes."""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data._cache import cache_path
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIGEST = 16  # bytes


def cached_arrays(
    folder: Path, kind: str, source: Path, parameters: dict[str, Any], read: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns the arrays that `read()` makes of the file `source`, from `folder` where they are already known.

    They are known by the source's path, size and time of change, and by `parameters`. Nothing is written where `read`
    fails. A cache file is a NumPy archive with a digest of its name and content behind it, so that any damage is found;
    warns when it replaces such a file.
    """
    status = source.stat()
    about = {"source": str(source.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    path = cache_path(folder, kind, {**parameters, **about}).with_suffix(".npz")
    arrays = _load(path)
    if arrays is None:
        arrays = read()
        folder.mkdir(parents=True, exist_ok=True)
        archive = io.BytesIO()
        np.savez(archive, **arrays)
        with replacing(path) as file:
            file.write(archive.getbuffer())
            file.write(_digest(path, archive.getbuffer()))
    return arrays


def _load(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if content[-_DIGEST:] != _digest(path, memoryview(content)[:-_DIGEST]):
        warnings.warn(f"cache file {path} is damaged (it lacks its checksum); it is made again", stacklevel=3)
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _digest(path: Path, content: memoryview) -> bytes:
    """Returns the digest of a cache file, which another one under its name doesn't have."""
    digest = hashlib.blake2b(path.name.encode(), digest_size=_DIGEST)
    digest.update(content)
    return digest.digest()
