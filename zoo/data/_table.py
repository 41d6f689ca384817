"""Tables of labels and boxes in CSV."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from zoo.files import BadFile, csv_rows

if TYPE_CHECKING:
    from pathlib import Path

_BOX = ("x0", "y0", "x1", "y1")


class TableRow(NamedTuple):
    """An image's name, its label if it has one, and the box (x0, y0, x1, y1 px) of what is meant, None for all."""

    image: str
    label: str | None
    box: tuple[float, ...] | None


def read_table(file: Path) -> list[TableRow]:
    """Returns the rows of a CSV with the columns image and, as one likes, label, and x0, y0, x1, y1.

    An image may have several rows; an empty label or box is none. Raises FileNotFoundError, or BadFile that names the
    line and the rule.
    """
    if not file.is_file():
        raise FileNotFoundError(f"table must be a CSV file, got {file}, which doesn't exist: set data.table")
    rows, columns = csv_rows(file, "table")
    boxed = [name for name in _BOX if name in columns]
    if "image" not in columns or len(boxed) not in (0, 4) or not (boxed or "label" in columns):
        wanted = "image, and label or x0, y0, x1, y1 or both"
        raise BadFile(f"table {file} must have the columns {wanted}, got {', '.join(columns) or 'none'}")
    if not rows:
        raise BadFile(f"table {file} must have a row for each image or query, got none")
    return [_row(row, f"table {file}, row {number}", bool(boxed)) for number, row in enumerate(rows, start=1)]


def _row(row: dict[str, str], where: str, boxed: bool) -> TableRow:
    image = row["image"].strip()
    if not image:
        raise BadFile(f"{where} must name an image, got {list(row.values())}")
    cells = [row[name].strip() for name in _BOX] if boxed else []
    return TableRow(image, row.get("label", "").strip() or None, _box(cells, where) if any(cells) else None)


def _box(cells: list[str], where: str) -> tuple[float, ...]:
    try:
        box = tuple(map(float, cells))
    except ValueError:
        box = ()
    if not (len(box) == 4 and all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3]):
        raise BadFile(f"{where}: a box must be four numbers with x0 < x1 and y0 < y1, got {', '.join(cells)}")
    return box
