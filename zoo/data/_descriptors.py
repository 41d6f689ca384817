"""Descriptors by the key of an image, from whatever file holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1024  # descriptors read at a time


class KeyedDescriptors:
    """Vectors by key: the last part of an image's id, without its suffix.

    Raises BadFile for a file that can't be read, ValueError for one that holds no vectors.
    """

    def __init__(self, file: Path) -> None:
        from zoo.search.features import open_features

        self._file, self._features = file, open_features(file)
        if "vector" not in self._features.kinds:
            raise ValueError(f"descriptors {file} must hold vectors, got {', '.join(self._features.kinds)}")
        ids = map(str, self._features.ids)
        self._place = {id_.rsplit("/", 1)[-1].partition(".")[0]: position for position, id_ in enumerate(ids)}
        self.dimension = self._features.rows([0]).vector.shape[1]
        described = file.stat()
        self.stamp = f"{file.absolute()} {described.st_size} {described.st_mtime_ns}"

    def fill(self, rows: Tensor, keys: Sequence[str], what: str, advance: Callable[[int], None]) -> None:
        """Writes the descriptors of these images into rows (n, D), telling `advance` how many are done.

        Raises ValueError, naming one, where some lack.
        """
        missing = [key for key in keys if key not in self._place]
        if missing:
            raise ValueError(
                f"descriptors {self._file} must hold every {what}, {len(missing)} of {len(keys)} are missing, such as "
                f"'{missing[0]}'"
            )
        if rows.shape[1] != self.dimension:
            raise ValueError(
                f"descriptors {self._file} must have D = {rows.shape[1]} as the others, got {self.dimension}"
            )
        for start in range(0, len(keys), _BLOCK):
            places = [self._place[key] for key in keys[start : start + _BLOCK]]
            rows[start : start + len(places)] = self._features.rows(places).vector
            advance(len(places))
