"""Which queries and gallery items there are to judge, by data or by a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Source:
    """Names of queries and gallery items, None where nobody says; and the data module with their pictures, if any.

    `query_images` are the names of the images that can be queries, None without data; `queries_in_gallery` tells
    whether a query's image is the gallery's image of the same name. `unnamed` is the shape (Q, N) of a matrix of scores
    that lacks names, for which positions stand until the ground truth gives them.
    """

    query_ids: Sequence[str] | None
    gallery_ids: Sequence[str] | None
    query_images: Sequence[str] | None
    queries_in_gallery: bool
    data: Any = None
    unnamed: tuple[int, int] | None = None

    @classmethod
    def of_data(cls, data: Any, user: str) -> Source:
        """Reads a data module; raises ValueError, in the name of `user`, if its images can't be found by name."""
        if not hasattr(data, "selection"):
            kind = type(data).__name__
            raise ValueError(f"benchmark '{user}' finds images by name: choose data=images, got data of type {kind}")
        data.setup("test")
        split, gallery = data.query_split, data.gallery_split
        return cls(data.ids(split), data.ids(gallery), data.ids(split), split == gallery, data)

    @classmethod
    def of_predictions(cls, predictions: Predictions, data: Any, user: str) -> Source:
        """Reads a file of predictions, whose own names come first, and the data beside it, if there is any."""
        beside = cls.of_data(data, user) if data is not None else cls(None, None, None, True)
        queries, gallery = predictions.query_ids, predictions.gallery_ids
        unnamed = None
        if predictions.scores is not None and beside.data is None and not (queries and gallery):
            unnamed = predictions.scores.shape
            queries = queries or tuple(map(str, range(unnamed[0])))
            gallery = gallery or tuple(map(str, range(unnamed[1])))
        names = queries or beside.query_ids, gallery or beside.gallery_ids
        return cls(*names, beside.query_images, beside.queries_in_gallery, data, unnamed)

    def named(self, query_ids: Sequence[str], gallery_ids: Sequence[str] | None) -> Source:
        """Returns the source with the names of the ground truth, in its order, for a matrix of its shape without names.

        Raises ValueError for a matrix without names that doesn't fit.
        """
        if self.unnamed is None or query_ids[0] in self.query_ids:
            return self
        own = len(query_ids), len(gallery_ids or ())
        if own != tuple(self.unnamed):
            raise ValueError(
                f"predictions: a matrix of {self.unnamed[0]} × {self.unnamed[1]} scores that names neither queries nor "
                f"items fits no ground truth of {own[0]} queries and {own[1] or 'unnamed'} items; write an .npz with "
                "string arrays query_ids and gallery_ids, or set benchmark.gallery to a file of names in its order"
            )
        return replace(self, query_ids=query_ids, gallery_ids=gallery_ids)


def input_path(argument: str, value: str) -> Path:
    """Returns the path that an argument names, ~ expanded; raises ValueError for what is no path."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError(f"{argument} must be a path, got {value!r}")
    return Path(value).expanduser()


def read_ids(path: str) -> tuple[str, ...]:
    """Returns the names in a text file, one a line; FileNotFoundError, or ValueError for none or repeated ones."""
    file = input_path("gallery", path)
    if not file.is_file():
        raise FileNotFoundError(f"gallery must be a text file with a name a line, got {file}, which doesn't exist")
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"gallery file {file} must hold different names, got {len(names)}, {len(set(names))} different"
        )
    return names
