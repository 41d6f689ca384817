"""Finds the ground truth of a published data set beside its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data._images import ImageSplits, named_pictures

if TYPE_CHECKING:
    from typing import Any

    from zoo.truth import RelevanceLists


class PublishedImages(ImageSplits):
    """The images below `root`, called by their file name without suffix; shared parameters: `ImageSplits`."""

    def __init__(self, *, root: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.root = Path(root).expanduser()

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists the folder; raises FileNotFoundError for a missing one, ValueError for one without images."""
        return {"gallery": named_pictures("root", [self.root], "stem")}


class ListedImages(PublishedImages):
    """Images of which a ground truth beside them says which are queries, and which the gallery.

    Split gallery holds its `gallery_ids`, split query its query images, each in its order; what is missing is left out,
    and other files below `root` are. `names` says how the ground truth calls files.
    """

    splits = ("gallery", "query")
    names = "stem"
    _truth: RelevanceLists | None = None

    def read(self) -> RelevanceLists:
        """Reads the ground truth; raises FileNotFoundError where there is none, ValueError where it is damaged."""
        raise NotImplementedError

    def ground_truth(self) -> RelevanceLists:
        """Returns what `read` does, read once."""
        if self._truth is None:
            self._truth = self.read()
        return self._truth

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists the folder by the ground truth; raises what `read` does, or ValueError where no listed image is."""
        truth = self.ground_truth()
        there = named_pictures("root", [self.root], self.names)
        listed = {"gallery": truth.gallery_ids, "query": dict.fromkeys(truth.query_images)}
        found = {split: {name: there[name] for name in names if name in there} for split, names in listed.items()}
        for split, files in found.items():
            if not files:
                wanted, got = next(iter(listed[split])), next(iter(there))
                raise ValueError(f"root must hold the images of split '{split}', such as '{wanted}', got '{got}' …")
        return found


def beside(root: Path, patterns: tuple[str, ...], what: str) -> Path:
    """Returns the one file or folder below `root` that holds a ground truth, by the first pattern that matches.

    A pattern of files in a sub-folder stands for the folder. Raises FileNotFoundError for none, ValueError for several.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"root must be a folder, got {root}, which doesn't exist: set data.root")
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        found = sorted({path.parent for path in found}) if pattern.endswith("_query.txt") else found
        if len(found) > 1:
            raise ValueError(f"root must hold one ground truth, got {', '.join(map(str, found))}")
        if found:
            return found[0]
    raise FileNotFoundError(f"root must hold {what}, got {root} without: put it there, or set data.root")
