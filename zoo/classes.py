"""Names and colours of the classes that label maps tell apart, fixed, so that a class id means the same everywhere."""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.files import BadFile

Colour = tuple[int, int, int]

_FOLDER = Path(__file__).parent / "class_lists"
_SUFFIXES = (".csv", ".txt")
_NUMBERED = re.compile(r"(\d+)\s*[:\t]\s*(.+)")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_COLOURS = 1 << 24


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their ids: `names`, the `colours` (R, G, B) that they are drawn in, and their `ids`.

    `ids` are the numbers that stand for the classes in files of label maps; elsewhere a class is its position. Raises
    ValueError where there is no class, or a name or an id comes twice, or numbers of names, colours and ids differ.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"classes {self.name} must hold at least one class, got none")
        for what, values in (("name", self.names), ("id", self.ids)):
            value, count = Counter(values).most_common(1)[0]
            if count > 1:
                raise ValueError(f"classes {self.name} must have a {what} of its own each, got {value!r} {count} times")
        if not len(self.names) == len(self.colours) == len(self.ids):
            counts = f"{len(self.names)} names, {len(self.colours)} colours, {len(self.ids)} ids"
            raise ValueError(f"classes {self.name} need as many colours and ids as names, got {counts}")

    def __len__(self) -> int:
        """Returns C."""
        return len(self.names)

    def position(self, name: str) -> int:
        """Returns the position of a class; raises ValueError, with the nearest name, for another one."""
        if name not in self.names:
            near = difflib.get_close_matches(str(name), self.names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"class must be one of the {len(self)} of {self.name}, got {name!r}.{hint}")
        return self.names.index(name)

    def plain(self) -> list[dict[str, str]]:
        """Returns names and colours as plain values, of which `class_list` makes the same classes again."""
        return [
            {"name": name, "colour": hex_colour(colour)} for name, colour in zip(self.names, self.colours, strict=True)
        ]


def class_list(source: str | Path | Sequence[str | Mapping[str, str]]) -> ClassList:
    """Returns the classes of a packaged list ("camvid11"), of a file, or of a list of names.

    A `.csv` has the columns name and, as one likes, colour (#rrggbb) and id; a `.txt` has a name a line, perhaps behind
    its id ("17: horse"). A list holds names, or mappings with name and, as one likes, colour. Ids that aren't stated
    count from 0, colours are those of `palette`. Raises ValueError for anything else, BadFile for a damaged file.
    """
    if isinstance(source, (list, tuple)):
        return _of_entries(source)
    packaged = _files()
    if isinstance(source, str) and source in packaged:
        return _packaged(source)
    if isinstance(source, (str, Path)) and str(source).endswith(_SUFFIXES):
        return _read(Path(source).expanduser())
    raise ValueError(
        f"classes must be one of {', '.join(packaged)}, a {' or '.join(_SUFFIXES)} file, or a list of names, got "
        f"{source!r}"
    )


def class_lists() -> tuple[str, ...]:
    """Returns the names of the packaged lists."""
    return tuple(_files())


def palette(count: int) -> tuple[Colour, ...]:
    """Returns so many different colours, none of them black: entries 1 … `count` of PASCAL VOC's colour map.

    Bit 3k of a number becomes bit 7 - k of its red, the next one of its green, the third of its blue.
    """
    if not 0 <= count < _COLOURS:
        raise ValueError(f"count must lie in 0 … {_COLOURS - 1:,}, got {count}")
    return tuple(
        tuple(sum((number >> 3 * k + channel & 1) << 7 - k for k in range(8)) for channel in range(3))
        for number in range(1, count + 1)
    )


def hex_colour(colour: Colour) -> str:
    """Returns (R, G, B) as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@cache
def _files() -> dict[str, Path]:
    return {file.stem: file for file in sorted(_FOLDER.glob("*.csv"))}


@cache
def _packaged(name: str) -> ClassList:
    return _read(_files()[name])


def _of_entries(entries: Sequence[Any]) -> ClassList:
    rows = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str) or set(row) - {"name", "colour"}:
            raise ValueError(f"classes must list names, or mappings with name and colour, got {row!r}")
    return _made("given", rows)


def _read(file: Path) -> ClassList:
    if not file.is_file():
        raise ValueError(f"classes: there is no file {file}")
    try:
        return _made(file.stem, _csv_rows(file) if file.suffix == ".csv" else _text_rows(file))
    except (ValueError, csv.Error) as error:  # of text that isn't UTF-8, too
        raise BadFile(f"class list {file}: {error}") from error


def _csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        rows, columns = list(reader), reader.fieldnames or ()
    if "name" not in columns or set(columns) - {"name", "colour", "id"}:
        raise ValueError(f"columns must be name and, as one likes, colour and id, got {', '.join(columns) or 'none'}")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("every row must have as many cells as there are columns")
    return rows


def _text_rows(file: Path) -> list[dict[str, str]]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if all(found):
        return [{"id": match[1], "name": match[2]} for match in found]
    return [{"name": line} for line in lines]


def _made(name: str, rows: Sequence[Mapping[str, str]]) -> ClassList:
    """Makes the list of rows with a name each, and a colour and an id where these are stated."""
    names = tuple(row["name"].strip() for row in rows)
    if not all(names):
        raise ValueError("every class must have a name, got an empty one")
    colours = [
        _parsed(row["colour"].strip()) if row.get("colour") else given
        for row, given in zip(rows, palette(len(rows)), strict=True)
    ]
    ids = [_number(row["id"].strip()) if row.get("id") else number for number, row in enumerate(rows)]
    return ClassList(name, names, tuple(colours), tuple(ids))


def _parsed(text: str) -> Colour:
    if not _COLOUR.fullmatch(text):
        raise ValueError(f"colour must be written #rrggbb, got {text!r}")
    return tuple(int(text[place : place + 2], 16) for place in (1, 3, 5))


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 16:
        raise ValueError(f"id must be a whole number below 65,536, got {text!r}")
    return int(text)
