"""Tables of real pairs in CSV: a query image and its box, a positive image and its box."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from zoo.files import BadFile, csv_rows

if TYPE_CHECKING:
    from pathlib import Path

Box = tuple[float, ...]

SPLITS = ("train", "val", "test")
QUERY_BOX, POSITIVE_BOX = ("qx0", "qy0", "qx1", "qy1"), ("px0", "py0", "px1", "py1")
COLUMNS = ("query_image", *QUERY_BOX, "positive_image", *POSITIVE_BOX)


class PairRow(NamedTuple):
    """A query image with its box (None for all of it), a positive image with its box, x0, y0, x1, y1 px.

    `label` says which object the pair shows, `split` where it belongs; both None where the table leaves it open.
    """

    query: str
    query_box: Box | None
    positive: str
    positive_box: Box
    label: str | None
    split: str | None


def read_pairs(file: Path) -> list[PairRow]:
    """Returns the rows of a CSV with the columns `COLUMNS` and, as one likes, object and split.

    A query's box may be empty, that of a positive may not. Raises FileNotFoundError, or BadFile that names file, row
    and column.
    """
    if not file.is_file():
        raise FileNotFoundError(f"table must be a CSV file of pairs, got {file}, which doesn't exist")
    rows, columns = csv_rows(file, "table")
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise BadFile(f"table {file} must have the columns {', '.join(COLUMNS)}, it lacks {', '.join(missing)}")
    if not rows:
        raise BadFile(f"table {file} must have a row for each pair, got none")
    return [_row(row, f"table {file}, row {number}") for number, row in enumerate(rows, start=1)]


def _row(row: dict[str, str], where: str) -> PairRow:
    cells = {name: value.strip() for name, value in row.items()}
    for name in ("query_image", "positive_image"):
        if not cells[name]:
            raise BadFile(f"{where}, column {name} must name an image, got nothing")
    split = cells.get("split") or None
    if split not in (None, *SPLITS):
        raise BadFile(f"{where}, column split must be one of {', '.join(SPLITS)}, or empty, got {split!r}")
    query_box = _box(cells, QUERY_BOX, where) if any(cells[name] for name in QUERY_BOX) else None
    positive_box = _box(cells, POSITIVE_BOX, where)
    label = cells.get("object") or None
    return PairRow(cells["query_image"], query_box, cells["positive_image"], positive_box, label, split)


def _box(cells: dict[str, str], names: tuple[str, ...], where: str) -> Box:
    box = []
    for name in names:
        try:
            box.append(float(cells[name]))
        except ValueError:
            raise BadFile(f"{where}, column {name} must be a number, got {cells[name]!r}") from None
        if not math.isfinite(box[-1]):
            raise BadFile(f"{where}, column {name} must be finite, got {cells[name]!r}")
    for low, high in ((0, 2), (1, 3)):
        if not box[low] < box[high]:
            raise BadFile(f"{where}, column {names[low]} must be less than {names[high]}, got {box[low]}, {box[high]}")
    return tuple(box)
