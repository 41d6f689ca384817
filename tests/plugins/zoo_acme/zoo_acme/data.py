"""Photos of shelves, whose names tell the shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.data.base import ImageSplits, named_pictures
from zoo.truth import RelevanceLists
from zoo.truth.regroup import from_labels


class Photos(ImageSplits):
    """Photos called `<shelf><separator><anything>` below `root`; each asks for the others of its shelf.

    Raises ValueError for an empty separator.
    """

    def __init__(self, *, root: str, separator: str, **shared: Any) -> None:
        super().__init__(**shared)
        if not separator:
            raise ValueError(f"separator must be a text that isn't empty, got {separator!r}")
        self.root, self.separator = Path(root).expanduser(), separator

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists the folder; raises FileNotFoundError for a missing one, ValueError for one without photos."""
        return {"gallery": named_pictures("root", [self.root], "stem")}

    def labels(self, split: str) -> list[str]:
        """Returns the shelf of each photo."""
        return [name.split(self.separator)[0] for name in self.ids(split)]

    def ground_truth(self) -> RelevanceLists:
        """Returns for each photo the others of its shelf."""
        return from_labels(self.ids("gallery"), self.labels("gallery"))
