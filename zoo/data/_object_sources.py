"""Where objects come from: instance masks, COCO annotations, drawn shapes, photos, tables and folders of real pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from zoo.checks import check_integers, check_positive
from zoo.data._compose import RECIPE
from zoo.data._object_masks import from_coco, from_masks
from zoo.data._objects import Drawn, Gathered, Masked, Object, Photographed, Selection, Source
from zoo.data._pairs_table import PairRow, read_pairs
from zoo.files import BadFile

KEYS = {
    "procedural": ("count",),
    "coco": ("annotations", "images"),
    "masks": ("images", "masks"),
    "photos": ("images",),
    "folders": ("images",),
    "pairs": ("table", "root"),
}
UNALTERED = ("pairs", "folders")  # kinds whose photos are shown as they are


def check_sources(sources: Sequence[Mapping[str, Any]]) -> list[Source]:
    """Returns the entries of `sources`, each with a name of its own; raises ValueError for one that can't be used."""
    if not isinstance(sources, (list, tuple)) or not sources:
        raise ValueError(f"sources must be a list of at least one mapping, got {sources!r}")
    found: list[Source] = []
    for entry in sources:
        if not isinstance(entry, Mapping) or entry.get("kind") not in KEYS:
            raise ValueError(f"an entry of sources must have a kind, one of {', '.join(KEYS)}, got {entry!r}")
        kind, weight = entry["kind"], entry.get("weight", 1)
        recipe = {key: entry[key] for key in RECIPE if key in entry and kind not in UNALTERED}
        keys = {key: value for key, value in entry.items() if key not in ("kind", "weight", *recipe)}
        _check_keys(kind, keys)
        check_positive(**{"the weight of a source": weight})
        again = sum(source.kind == kind for source in found)
        found.append(Source(kind, float(weight), f"{kind}{again + 1}" if again else kind, keys, recipe))
    return found


def _check_keys(kind: str, keys: Mapping[str, Any]) -> None:
    liked = ("weight",) if kind in UNALTERED else ("weight", *RECIPE)
    rule = f"a source of kind {kind} must have the keys {', '.join(('kind', *KEYS[kind]))}"
    if missing := [key for key in KEYS[kind] if key not in keys]:
        raise ValueError(f"{rule}, got none for {', '.join(missing)}")
    if unknown := [str(key) for key in keys if key not in KEYS[kind]]:
        raise ValueError(f"{rule}, and may have {', '.join(liked)}; got {', '.join(unknown)} as well")


def find_objects(source: Source, selection: Selection, seed: int) -> list[Object]:
    """Returns the objects of a source, in an order that depends on its files alone.

    `min_area` and `one_per_image` (the largest) hold for instance masks. Raises FileNotFoundError, BadFile, or
    ValueError where nothing is left.
    """
    if source.kind == "procedural":
        return _drawn(source, selection, seed)
    whole = {"pairs": _photographed, "photos": _whole_photos, "folders": _gathered}.get(source.kind)
    if whole is not None:
        return whole(source, selection)
    seen, kept = 0, {}
    for item in (from_coco if source.kind == "coco" else from_masks)(source, selection):
        seen += 1
        key = item.image if selection.one_per_image else item.name
        if item.area >= selection.min_area and (key not in kept or item.area > kept[key].area):
            kept[key] = item
    if not kept:
        rule = f"must have an object of min_area {selection.min_area:g} px"
        raise ValueError(f"source {source.name} {rule}, got {seen} objects, all smaller")
    return list(kept.values())


class _Whole:
    """The mask of a whole photo."""

    def __call__(self, size: tuple[int, int]) -> Image.Image:
        return Image.new("L", size, 255)


def _whole_photos(source: Source, selection: Selection) -> list[Masked]:
    photos = source.pictures("images")
    return [
        Masked(source.name, source.object_name(image), image, selection.split(image), path, math.inf, _Whole())
        for image, path in photos.items()
    ]


def _gathered(source: Source, selection: Selection) -> list[Gathered]:
    folders: dict[str, list[Path]] = {}
    root = source.keys["images"]
    for image, path in source.pictures("images").items():
        folders.setdefault(Path(image).parent.as_posix(), []).append(path)
    found = [
        Gathered(source.name, source.object_name(folder), folder, selection.split(folder), tuple(photos))
        for folder, photos in folders.items()
        if len(photos) > 1 and folder != "."
    ]
    if not found:
        raise ValueError(f"images of source {source.name} must hold folders of two photos or more, got none in {root}")
    return found


def _drawn(source: Source, selection: Selection, seed: int) -> list[Drawn]:
    count = source.keys["count"]
    check_integers(1, **{"count of a procedural source": count})
    names = [f"{source.name}-{number:06d}" for number in range(count)]
    return [Drawn(source.name, name, name, selection.split(name), seed, number) for number, name in enumerate(names)]


def _photographed(source: Source, selection: Selection) -> list[Photographed]:
    table, root = (source.path(key) for key in ("table", "root"))
    rows = read_pairs(table)
    for number, row in enumerate(rows, start=1):
        for column, image in (("query_image", row.query), ("positive_image", row.positive)):
            if not (root / image).is_file():
                raise BadFile(f"table {table}, row {number}, column {column}: {root / image} doesn't exist")
    groups = _connected([(row.query, row.positive, *([f"\0{row.label}"] if row.label else [])) for row in rows])
    objects: dict[str, list[PairRow]] = {}
    given: dict[str, set[str]] = {}
    for row in rows:
        objects.setdefault(row.label or groups[row.query], []).append(row)
        given.setdefault(groups[row.query], set()).update({row.split} - {None})
    found = []
    for label, members in objects.items():
        group = groups[members[0].query]
        if len(given[group]) > 1:
            splits = ", ".join(sorted(given[group]))
            raise BadFile(
                f"table {table}: pairs that share images or objects must be of one split, {label} has {splits}"
            )
        split = next(iter(given[group]), None) or selection.split(Path(group).with_suffix("").as_posix())
        found.append(Photographed(source.name, source.object_name(label), group, split, root, tuple(members)))
    return found


def _connected(links: Sequence[Sequence[str]]) -> dict[str, str]:
    """Returns of every name the least name that a chain of links leads to."""
    leader: dict[str, str] = {}

    def first(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for names in links:
        tops = sorted({first(name) for name in names}, key=lambda name: (name[0] == "\0", name))
        for name in tops[1:]:
            leader[name] = tops[0]
    return {name: first(name) for name in leader}
