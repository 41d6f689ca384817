"""Which queries and gallery items there are to judge, by data or by a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.truth import read_gnd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoo.evaluation.predictions import Predictions
    from zoo.truth.relevance import RelevanceLists


@dataclass(frozen=True)
class Source:
    """Names of queries and gallery items, None where nobody says; and the data module with their pictures, if any.

    `query_images` are the names of the images that can be queries, None without data; `queries_in_gallery` tells
    whether a query's image is the gallery's image of the same name. A matrix of scores may leave queries or items
    unnamed: positions stand for them until the ground truth gives their names.
    """

    query_ids: Sequence[str] | None
    gallery_ids: Sequence[str] | None
    query_images: Sequence[str] | None
    queries_in_gallery: bool
    data: Any = None
    unnamed_queries: bool = False
    unnamed_items: bool = False

    @classmethod
    def of_data(cls, data: Any, user: str) -> Source:
        """Reads a data module; raises ValueError, in the name of `user`, if its images can't be found by name."""
        if not hasattr(data, "selection"):
            kind = type(data).__name__
            raise ValueError(f"benchmark '{user}' finds images by name: choose data=folder, got data of type {kind}")
        data.setup("test")
        split, gallery = data.query_split, data.gallery_split
        return cls(data.ids(split), data.ids(gallery), data.ids(split), split == gallery, data)

    @classmethod
    def of_predictions(cls, predictions: Predictions, data: Any, user: str) -> Source:
        """Reads a file of predictions, whose own names come first, and the data beside it, if there is any."""
        beside = cls.of_data(data, user) if data is not None else cls(None, None, None, True)
        queries, gallery = predictions.query_ids, predictions.gallery_ids
        alone = predictions.scores is not None and beside.data is None
        bare = alone and not queries, alone and not gallery
        if bare[0]:
            queries = tuple(map(str, range(predictions.scores.shape[0])))
        if bare[1]:
            gallery = tuple(map(str, range(predictions.scores.shape[1])))
        names = queries or beside.query_ids, gallery or beside.gallery_ids
        return cls(*names, beside.query_images, beside.queries_in_gallery, data, *bare)

    def named(self, query_ids: Sequence[str], gallery_ids: Sequence[str] | None) -> Source:
        """Returns the source with the names of the ground truth, in its order, for what the matrix leaves unnamed.

        Raises ValueError where their numbers differ.
        """
        sides = {"query_ids": (self.unnamed_queries, query_ids), "gallery_ids": (self.unnamed_items, gallery_ids)}
        changes = {}
        for field, (unnamed, given) in sides.items():
            if unnamed and (given is None or len(given) != len(getattr(self, field))):
                raise ValueError(_unfit(field, len(getattr(self, field)), given))
            if unnamed:
                changes[field] = given
        return replace(self, **changes)


def _unfit(field: str, count: int, given: Sequence[str] | None) -> str:
    what = field.removesuffix("_ids")
    known = "nothing names them" if given is None else f"{len(given)} are known"
    file = ", or set benchmark.gallery to a file of names in its order" if what == "gallery" else ""
    return (
        f"predictions: the matrix has {count} {what} items without names, and {known}; "
        f"write an .npz with a string array {field}{file}"
    )


def own_lists(
    source: Source,
    ground_truth: Path | None,
    user: str,
    read: Callable[[Path], RelevanceLists] = read_gnd,
    argument: str = "ground_truth",
) -> RelevanceLists:
    """Returns the lists of a file, or where none is named, by `argument`, the data's own.

    Raises ValueError, in the name of `user`, where there are neither.
    """
    if ground_truth is not None:
        return read(ground_truth)
    own = getattr(source.data, "ground_truth", lambda: None)()
    if own is None:
        wanted = f"set benchmark.{argument}, or choose data that brings its own (zoo list data)"
        raise ValueError(f"benchmark '{user}' needs a ground truth: {wanted}")
    return own


def optional_path(argument: str, value: str | None) -> Path | None:
    """Returns what `input_path` does, None for None."""
    return None if value is None else input_path(argument, value)


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
