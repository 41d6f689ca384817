"""What was read from a large file, kept on disk in compact arrays until that file changes."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data._cache import cache_path
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def cached_arrays(
    folder: Path, kind: str, source: Path, parameters: dict[str, Any], read: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns the arrays that `read()` makes of the file `source`, from `folder` where they are already known.

    They are known by the source's path, size and time of change, and by `parameters`. Nothing is written where `read`
    fails. Warns when it replaces a damaged cache file (zip archives hold checksums).
    """
    status = source.stat()
    about = {"source": str(source.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    path = cache_path(folder, kind, {**parameters, **about}).with_suffix(".npz")
    arrays = _load(path)
    if arrays is None:
        arrays = read()
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **arrays)
    return arrays


def _load(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        warnings.warn(f"cache file {path} is damaged ({error}); it is made again", stacklevel=3)
        return None
