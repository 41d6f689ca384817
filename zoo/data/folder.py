"""Folders of images: one's own, or those of a benchmark whose ground truth names them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data._images import NAMES, ImageSplits, folders_of, named_pictures
from zoo.data._table import TableRow, read_table
from zoo.files import BadFile
from zoo.truth import RelevanceLists

if TYPE_CHECKING:
    from collections.abc import Sequence

WHOLE_IMAGE = [float("nan")] * 4


class Folder(ImageSplits):
    """Image files below one or several folders: split gallery, and query where queries lie elsewhere.

    `root` is a folder or a list of folders, searched recursively, hidden files and folders left out; `queries`
    likewise, null where the queries are images of the gallery. `names` says what an image is called: "path", its path
    below its folder without suffix, "stem", its file name without suffix, or "file", its path with suffix. `table` is a
    CSV of labels and boxes (see `read_table`) in which each image of a query split that has a row is a query, once for
    every row; images without one are distractors. Shared parameters: `ImageSplits`. Raises ValueError for a value out
    of range.
    """

    def __init__(
        self,
        *,
        root: str | Sequence[str],
        queries: str | Sequence[str] | None,
        names: str,
        table: str | None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if names not in NAMES:
            raise ValueError(f"names must be one of {', '.join(NAMES)}, got {names!r}")
        self.names, self.table = names, None if table is None else Path(table).expanduser()
        self._folders = {"gallery": ("root", folders_of("root", root))}
        if queries is not None:
            self._folders["query"] = ("queries", folders_of("queries", queries))
        self.splits = tuple(self._folders)
        self._rows: dict[str, list[TableRow]] = {}

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists the folders and reads the table; raises FileNotFoundError, BadFile, or ValueError for no images."""
        remedy = "data.names=file tells them apart" if self.names == "path" else ""
        found = {split: named_pictures(*where, self.names, remedy) for split, where in self._folders.items()}
        if self.table is not None:
            self._rows = _assigned(read_table(self.table), found, self.table)
        return found

    def labels(self, split: str) -> list[str]:
        """Returns each image's label in the table ("" for a distractor), or else the folder that it lies in.

        Of several rows of an image the first counts. Raises ValueError if all images lie in one folder.
        """
        if not self._labelled():
            return super().labels(split)
        first: dict[str, str] = {}
        for row in self._rows[split]:
            first.setdefault(row.image, row.label or "")
        return [first.get(name, "") for name in self.ids(split)]

    def ground_truth(self) -> RelevanceLists | None:
        """Returns for each row of the table the gallery images of its label; None without a table.

        A table without labels only says which images are queries, and their boxes; then the folders are the labels.
        Raises ValueError if neither table nor folders tell labels.
        """
        if self.table is None:
            return None
        gallery, asked = self._rows["gallery"], self._rows[self.query_split]
        if not self._labelled():
            folder = self._by_folder(self.query_split)
            asked = [row._replace(label=folder[row.image].label) for row in asked]
            gallery = list(self._by_folder("gallery").values())
        asked = [row for row in asked if row.label]
        if not asked:
            raise BadFile(f"table {self.table} has no row with a label for an image of split '{self.query_split}'")
        members: dict[str, dict[str, None]] = {}
        for row in gallery:
            members.setdefault(row.label or "", {})[row.image] = None
        counts = Counter(row.image for row in asked)
        queries = [row.image if counts[row.image] == 1 else f"{row.image}#{place}" for place, row in enumerate(asked)]
        boxes = [WHOLE_IMAGE if row.box is None else row.box for row in asked]
        relevant = tuple(tuple(members.get(row.label, ())) for row in asked)
        images = tuple(row.image for row in asked)
        return RelevanceLists(tuple(queries), images, {"relevant": relevant}, boxes, tuple(self.ids("gallery")))

    def _labelled(self) -> bool:
        return any(row.label for rows in self._rows.values() for row in rows)

    def _by_folder(self, split: str) -> dict[str, TableRow]:
        """Returns a row for each image of a split, labelled by its folder."""
        labels = super().labels(split)
        return {name: TableRow(name, label, None) for name, label in zip(self.ids(split), labels, strict=True)}


def _assigned(rows: list[TableRow], found: dict[str, dict[str, Path]], table: Path) -> dict[str, list[TableRow]]:
    """Returns the rows of each split, images by their names; raises BadFile for an image that no split has."""
    assigned: dict[str, list[TableRow]] = {split: [] for split in found}
    for row in rows:
        known = False
        for split, files in found.items():
            name = row.image if row.image in files else str(Path(row.image).with_suffix(""))
            if name in files:
                assigned[split].append(row._replace(image=name))
                known = True
        if not known:
            there = next(iter(next(iter(found.values()))))
            raise BadFile(f"table {table} names '{row.image}', which no folder has (images are called like '{there}')")
    return assigned


export = Folder
