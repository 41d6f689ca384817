"""Captions of images as files hold them: COCO's JSON, or a CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.files import BadFile


class Captions:
    """Captions of images that are found by any of their names: `texts` (n,) lists, those without a caption empty.

    `ids` and `files` hold for each image what it is called, None for one that has no such name; a file may be a path.
    """

    def __init__(self, ids: list[str | None], files: list[str | None], texts: list[list[str]]) -> None:
        self.texts, self.files = texts, [file or id_ or "" for id_, file in zip(ids, files, strict=True)]
        self._exact = {name: number for names in (files, ids) for number, name in enumerate(names) if name}
        self._bare: dict[str, int | None] = {}
        self._tails: dict[str, int | None] = {}
        for number, name in enumerate(files):
            path = PurePosixPath(name or "")
            for short in {path.name, path.stem} - {""}:
                for table in (self._tails, self._bare) if path.name == name else (self._tails,):
                    # A file name that several images share tells none of them.
                    table[short] = number if table.get(short, number) == number else None

    def __len__(self) -> int:
        """Returns the number of images that have captions."""
        return sum(map(bool, self.texts))

    def find(self, id_: str | int, path: str | None) -> int | None:
        """Returns the number of the image, in `texts`, that an item is: by its id, its path, or its file name alone.

        Of a path the end will do ("train/7.jpg"). A file name, with or without suffix, counts where one image alone has
        it, and where either side tells no folder: those that both tell have to agree.
        """
        own = PurePosixPath(str(id_))
        parts = PurePosixPath(path).parts if path else ()
        ends = [str(PurePosixPath(*parts[start:])) for start in range(len(parts))]
        known = next((self._exact[name] for name in (str(id_), *ends) if name in self._exact), None)
        if known is not None:
            return known
        table = self._bare if len(own.parts) > 1 or len(parts) > 1 else self._tails
        short = [*([parts[-1], PurePosixPath(parts[-1]).stem] if parts else []), own.name]
        return next((table[name] for name in short if table.get(name) is not None), None)


def read_captions(file: Path | str) -> Captions:
    """Returns the captions of a `.json` as COCO has them, or of a `.csv` with the columns `id` or `file` and `caption`.

    JSON names each image in "images" (id, file_name) and each caption in "annotations" (image_id, caption). A CSV has a
    line for each caption, any number of an image; with both `id` and `file` either is its name. Other keys and columns
    may be there. Captions of nothing but white space are left out. Raises BadFile naming the file, the place, the rule
    and the value.
    """
    file = Path(file).expanduser()
    readers = {".json": _of_json, ".csv": _of_csv}
    if file.suffix not in readers:
        raise BadFile(f"captions must be a .json or .csv file, got {file}")
    try:
        return readers[file.suffix](file)
    except OSError as error:
        raise BadFile(f"captions {file} can't be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:  # of text that isn't UTF-8 and JSON that isn't any, too
        raise BadFile(f"captions {file}: {error}") from error


def _of_json(file: Path) -> Captions:
    content = json.loads(file.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"it must hold a mapping with images and annotations, got {_short(content)}")
    images, annotations = _list_of(content, "images"), _list_of(content, "annotations")
    numbers, names = {}, {}
    for place, image in enumerate(images):
        id_, name = _value(image, "id", int, f"images[{place}]"), _value(image, "file_name", str, f"images[{place}]")
        if id_ in numbers or name in names:
            raise ValueError(
                f"images[{place}]: id and file_name must be each image's own, got {id_} and {name!r} again"
            )
        numbers[id_], names[name] = place, place
    texts: list[list[str]] = [[] for _ in images]
    for place, annotation in enumerate(annotations):
        where = f"annotations[{place}]"
        id_, caption = _value(annotation, "image_id", int, where), _value(annotation, "caption", str, where)
        if id_ not in numbers:
            raise ValueError(f"{where}: image_id must be the id of one of images, got {id_}")
        _add(texts[numbers[id_]], caption)
    return Captions([str(id_) for id_ in numbers], list(names), texts)


def _of_csv(file: Path) -> Captions:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        columns = reader.fieldnames or []
        keys = [key for key in ("id", "file") if key in columns]
        if not keys or "caption" not in columns:
            raise ValueError(f"its columns must be id or file, and caption, got {', '.join(columns) or 'none'}")
        texts: dict[tuple[str, ...], list[str]] = {}
        owners: dict[str, tuple[str, ...]] = {}
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num}: there must be as many cells as columns, {len(columns)}")
            names = tuple(row[key].strip() for key in keys)
            for key, name in zip(keys, names, strict=True):
                if not name:
                    raise ValueError(f"line {reader.line_num}: {key} must name an image, got an empty cell")
                if owners.setdefault(name, names) != names:
                    raise ValueError(
                        f"line {reader.line_num}: {key} must belong to one image, got {name!r} of "
                        f"{' / '.join(owners[name])} and of {' / '.join(names)}"
                    )
            _add(texts.setdefault(names, []), row["caption"])
    # An id alone may well be a file's name without its suffix.
    ids, files = ([names[keys.index(key)] for names in texts] for key in (keys[0], keys[-1]))
    return Captions(ids, files, list(texts.values()))


def _list_of(content: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(content.get(key), list):
        raise ValueError(f"{key} must be a list, got {_short(content.get(key))}")
    return content[key]


def _value(entry: Any, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: {key} must be {'text' if kind is str else 'a whole number'}, got {_short(value)}")
    return value


def _add(texts: list[str], caption: str) -> None:
    if "\0" in caption:
        raise ValueError(f"a caption must not hold the character NUL, got {_short(caption)}")
    if caption.strip():
        texts.append(caption.strip())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
