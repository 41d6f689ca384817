"""Writes cut-and-paste pictures (data=cut_paste) as files: to look at, to train from, to search.

    python tools/make_cut_paste.py OUT [--split test] [--objects N] [--format jpg] [key=value ...]

For every object of the split: the original and its pasted copies. `key=value` are parameters of data=cut_paste, values
in YAML; what isn't given comes from conf/data/cut_paste.yaml. Written are

    OUT/images/     the pictures
    OUT/pairs.csv   every two views of an object: a source of data=cut_paste
    OUT/table.csv   image, label and box: the table of data=folder, every row a query
    OUT/sheet.png   some objects: query crops, and whole pictures with boxes drawn
    OUT/recipe.json, OUT/objects.jsonl   what was asked for, and what is done

Objects come from `sources`, a list of entries, each of a kind and with a `weight` and recipe of its own if you like:

    {kind: procedural, count: 2000}              drawn shapes
    {kind: masks, images: DIR, masks: DIR}       instance masks, a picture of numbers for each photo
    {kind: coco, annotations: FILE, images: DIR}
    {kind: photos, images: DIR}                  whole photos
    {kind: folders, images: DIR}                 real pairs: two photos of one folder

A run that was stopped goes on where it was. Afterwards, for example:

    zoo train data=cut_paste 'data.sources=[{kind: pairs, table: OUT/pairs.csv, root: OUT/images}]' ...
    zoo eval model=global_descriptor data=folder data.root=OUT/images data.table=OUT/table.csv benchmark=instances
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zoo.config import complete, create
from zoo.evaluation.pictures import Outline, SheetRow, Tile, contact_sheet
from zoo.files import BadFile, replacing
from zoo.progress import tracked

SHEET_OBJECTS, SHEET_SIDE, GREEN = 10, 170, (60, 220, 90)
PAIR_COLUMNS = (
    *("object", "split", "query_image", "qx0", "qy0", "qx1", "qy1"),
    *("positive_image", "px0", "py0", "px1", "py1"),
)
TABLE_COLUMNS = ("image", "label", "x0", "y0", "x1", "y1")
SUFFIXES = {"jpg": ("JPEG", {"quality": 92, "subsampling": 0}), "png": ("PNG", {"compress_level": 3})}

Boxes = dict[str, list[int]]  # of an object: file name → x0, y0, x1, y1 px


def main(words: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code, 2 where it was asked for what can't be done."""
    arguments = _arguments(words)
    try:
        write(arguments.out, arguments.split, arguments.objects, arguments.format, _parameters(arguments.parameters))
    except (ValueError, FileNotFoundError) as error:  # BadFile and UsageError among them
        print(error, file=sys.stderr)
        return 2
    return 0


def write(out: Path, split: str, objects: int | None, suffix: str, parameters: dict[str, Any]) -> None:
    """Writes the pictures, tables and sheet of the first `objects` of a split (None: of all)."""
    data = create("data", "cut_paste", **parameters)
    if any(source.kind == "pairs" for source in data.sources):
        raise ValueError("sources must hold no real pairs: these are files already")
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    _keep_recipe(out / "recipe.json", {"split": split, "format": suffix, **complete("data", "cut_paste", parameters)})
    data.setup()
    chosen = data.objects(split)[:objects]
    if not chosen:
        raise ValueError(f"split {split} must have an object, got none: add sources or enlarge its share")
    done = _read_done(out / "objects.jsonl")
    with (out / "objects.jsonl").open("a", encoding="utf-8") as journal:
        for item in tracked(chosen, f"cut_paste {split}"):
            if item.name not in done:
                done[item.name] = _write_views(data, item, images, suffix)
                journal.write(json.dumps({"object": item.name, "boxes": done[item.name]}) + "\n")
                journal.flush()
    boxes = {item.name: done[item.name] for item in chosen}
    _write_csv(out / "pairs.csv", PAIR_COLUMNS, _pairs(boxes, split))
    rows = ((image, name, *box) for name, own in boxes.items() for image, box in own.items())
    _write_csv(out / "table.csv", TABLE_COLUMNS, rows)
    buffer = io.BytesIO()
    _sheet(data, chosen[:SHEET_OBJECTS]).save(buffer, "PNG")
    _replace(out / "sheet.png", buffer.getvalue())
    count = len({image for own in boxes.values() for image in own})
    print(f"{len(boxes):,} objects, {count:,} pictures in {images}; look at {out / 'sheet.png'}")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into, made where it is missing")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument("--objects", type=int, metavar="N", help="how many objects, default: all of the split")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="jpg", help="png keeps every pixel; default: jpg")
    parser.add_argument("parameters", nargs="*", metavar="key=value", help="parameters of data=cut_paste")
    arguments = parser.parse_intermixed_args(words)
    if arguments.objects is not None and arguments.objects < 1:
        parser.error(f"--objects must be at least 1, got {arguments.objects}")
    return arguments


def _parameters(words: Sequence[str]) -> dict[str, Any]:
    parameters = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"a parameter must be written key=value, got {word!r}")
        try:
            parameters[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"the value of {key} must be YAML, got {value!r} ({error})") from error
    return parameters


def _keep_recipe(path: Path, recipe: dict[str, Any]) -> None:
    """Writes what was asked for; raises ValueError where the folder holds pictures of another recipe."""
    recipe = json.loads(json.dumps(recipe))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in recipe if before.get(key) != recipe[key]]
        if other:
            change = ", ".join(f"{key}={before.get(key)}" for key in other)
            raise ValueError(f"{path.parent} holds pictures of another recipe ({change}): choose another folder")
    elif any(path.parent.joinpath("images").iterdir()):
        raise ValueError(
            f"{path.parent / 'images'} must be empty, it holds files of other origin: choose another folder"
        )
    _replace(path, json.dumps(recipe, indent=2).encode())


def _read_done(path: Path) -> dict[str, Boxes]:
    """Returns the boxes of the objects that are written; a line that a stop has torn is cut off."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        _replace(path, whole)
    try:
        lines = [json.loads(line) for line in whole.decode().splitlines()]
        return {line["object"]: line["boxes"] for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} is damaged ({error}): remove it, and everything is written again") from error


def _write_views(data: Any, item: Any, images: Path, suffix: str) -> Boxes:
    boxes: Boxes = {}
    for variant in range(data.variants(item)):
        view, name = data.view(item, variant), f"{data.view_name(item, variant)}.{suffix}"
        buffer = io.BytesIO()
        form, options = SUFFIXES[suffix]
        view.picture.save(buffer, form, **options)
        _replace(images / name, buffer.getvalue())
        boxes[name] = list(view.box)
    return boxes


def _pairs(boxes: dict[str, Boxes], split: str) -> Iterator[Sequence[Any]]:
    for name, own in boxes.items():
        for query, positive in permutations(own, 2):
            yield name, split, query, *own[query], positive, *own[positive]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    _replace(path, buffer.getvalue().encode())


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _sheet(data: Any, objects: Sequence[Any]) -> Any:
    rows = []
    for item in objects:
        tiles = []
        for variant in range(data.variants(item)):
            view = data.view(item, variant)
            x0, y0, x1, y1 = view.box
            outline = Outline([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], GREEN)
            picture = np.array(view.picture)
            tiles += [Tile(picture[y0:y1, x0:x1], "query"), Tile(picture, f"view {variant}", None, [outline])]
        rows.append(SheetRow(item.name, tiles))
    return contact_sheet(rows, SHEET_SIDE)


if __name__ == "__main__":
    sys.exit(main())
