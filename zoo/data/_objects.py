"""Where objects come from: instance masks, COCO annotations, drawn shapes, photos, tables and folders of real pairs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.checks import check_integers, check_positive
from zoo.data._coco_masks import check_segmentation, compact, draw_segmentation
from zoo.data._compose import RECIPE
from zoo.data._images import named_pictures
from zoo.data._pairs_table import PairRow, read_pairs
from zoo.data._pictures import read_picture
from zoo.data._procedural import drawn_object
from zoo.files import BadFile
from zoo.truth.readers.streaming import iter_items

IGNORED = 255  # value of a mask's pixels that belong to nobody knows what (VOC's borders)
KEYS = {
    "procedural": ("count",),
    "coco": ("annotations", "images"),
    "masks": ("images", "masks"),
    "photos": ("images",),
    "folders": ("images",),
    "pairs": ("table", "root"),
}
UNALTERED = ("pairs", "folders")  # kinds whose photos are shown as they are


@dataclass(frozen=True)
class Source:
    """One entry of `sources`: its kind, the weight with which pairs are drawn from it, a name, and its own keys.

    `recipe` holds the values in which its recipe differs from that of the others.
    """

    kind: str
    weight: float
    name: str
    keys: Mapping[str, Any]
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Masked:
    """An object of a photo: `path` is the photo's file, `mask` gives its mask (L) for a size."""

    source: str
    name: str
    image: str
    split: str
    path: Path
    area: float
    mask: Callable[[tuple[int, int]], Image.Image]

    @property
    def photo(self) -> str:
        """Returns a name for the photo, which its objects share."""
        return f"{self.source}-{_flat(self.image)}"

    def layers(self) -> tuple[Image.Image, Image.Image]:
        """Returns the photo and the object's mask; raises BadFile where they don't fit each other."""
        picture = read_picture(self.path, upright=False)
        try:
            mask = self.mask(picture.size)
        except ValueError as error:
            raise BadFile(f"the mask of {self.name} doesn't fit {self.path} ({error})") from error
        if mask.size != picture.pixels.size:
            mask = mask.resize(picture.pixels.size, Image.Resampling.NEAREST)
        if mask.getbbox() is None:
            raise BadFile(f"the mask of {self.name} covers no pixel of {self.path}")
        return picture.pixels, mask


@dataclass(frozen=True)
class Drawn:
    """A procedural object: number `number` of a seed."""

    source: str
    name: str
    image: str
    split: str
    seed: int
    number: int

    def layers(self) -> tuple[Image.Image, Image.Image]:
        """Returns the object's pixels and its mask."""
        return drawn_object(self.seed, self.number)


@dataclass(frozen=True)
class Photographed:
    """An object of a table: real pairs that show it."""

    source: str
    name: str
    image: str
    split: str
    root: Path
    rows: tuple[PairRow, ...]


@dataclass(frozen=True)
class Gathered:
    """An object whose photos lie in a folder of their own; each shows all of it."""

    source: str
    name: str
    image: str
    split: str
    photos: tuple[Path, ...]


Object = Masked | Drawn | Photographed | Gathered


@dataclass(frozen=True)
class Selection:
    """Which objects count: the least area in px, whether one per image, and the shares of val and test."""

    min_area: float
    one_per_image: bool
    val_share: float
    test_share: float

    def split(self, image: str) -> str:
        """Returns the split of an image, by a hash of its name alone: all its objects go there, whatever the source."""
        digest = hashlib.blake2b(image.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "little") / 2**64
        return "test" if place < self.test_share else "val" if place < self.test_share + self.val_share else "train"


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
    for item in (_from_coco if source.kind == "coco" else _from_masks)(source, selection):
        seen += 1
        key = item.image if selection.one_per_image else item.name
        if item.area >= selection.min_area and (key not in kept or item.area > kept[key].area):
            kept[key] = item
    if not kept:
        rule = f"must have an object of min_area {selection.min_area:g} px"
        raise ValueError(f"source {source.name} {rule}, got {seen} objects, all smaller")
    return list(kept.values())


@dataclass(frozen=True)
class _Value:
    """The pixels of one value in a file of instance masks."""

    path: Path
    value: int

    def __call__(self, size: tuple[int, int]) -> Image.Image:
        values = _instances(self.path)
        if values.shape != size[::-1]:
            raise ValueError(
                f"mask {self.path} has {values.shape[1]} × {values.shape[0]} px, not {size[0]} × {size[1]}"
            )
        return Image.fromarray(((values == self.value) * 255).astype(np.uint8))


@dataclass(frozen=True)
class _Segmentation:
    """The segmentation of a COCO annotation."""

    segmentation: Any

    def __call__(self, size: tuple[int, int]) -> Image.Image:
        return draw_segmentation(self.segmentation, size)


class _Whole:
    """The mask of a whole photo."""

    def __call__(self, size: tuple[int, int]) -> Image.Image:
        return Image.new("L", size, 255)


def _whole_photos(source: Source, selection: Selection) -> list[Masked]:
    photos = _pictures(source, "images")
    return [
        Masked(source.name, _name(source, image, None), image, selection.split(image), path, math.inf, _Whole())
        for image, path in photos.items()
    ]


def _gathered(source: Source, selection: Selection) -> list[Gathered]:
    folders: dict[str, list[Path]] = {}
    root = source.keys["images"]
    for image, path in _pictures(source, "images").items():
        folders.setdefault(Path(image).parent.as_posix(), []).append(path)
    found = [
        Gathered(source.name, _name(source, folder, None), folder, selection.split(folder), tuple(photos))
        for folder, photos in folders.items()
        if len(photos) > 1 and folder != "."
    ]
    if not found:
        raise ValueError(f"images of source {source.name} must hold folders of two photos or more, got none in {root}")
    return found


def _pictures(source: Source, key: str) -> dict[str, Path]:
    """Returns the pictures of the folder that a source's key names, as `named_pictures` does."""
    return named_pictures(
        f"{key} of source {source.name}", [Path(source.keys[key]).expanduser()], "path", key="sources"
    )


def _drawn(source: Source, selection: Selection, seed: int) -> list[Drawn]:
    count = source.keys["count"]
    check_integers(1, **{"count of a procedural source": count})
    names = [f"{source.name}-{number:06d}" for number in range(count)]
    return [Drawn(source.name, name, name, selection.split(name), seed, number) for number, name in enumerate(names)]


def _from_masks(source: Source, selection: Selection) -> Iterator[Masked]:
    photos, masks = (_pictures(source, key) for key in ("images", "masks"))
    for image in photos:
        if image not in masks:
            continue  # only some of a set's photos are segmented
        areas = np.bincount(_instances(masks[image]).reshape(-1))
        for value in areas.nonzero()[0].tolist():
            if value not in (0, IGNORED):
                name, split = _name(source, image, value), selection.split(image)
                mask = _Value(masks[image], value)
                yield Masked(source.name, name, image, split, photos[image], float(areas[value]), mask)


def _instances(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFile(f"mask {path} can't be read ({error})") from error
    if values.ndim != 2 or not 0 <= values.min() <= values.max() < 2**16:
        raise BadFile(f"mask {path} must hold one number a pixel, 0 … 65,535, got a picture of mode {mode}")
    return values


def _from_coco(source: Source, selection: Selection) -> Iterator[Masked]:
    path, root = (Path(source.keys[key]).expanduser() for key in ("annotations", "images"))
    if not path.is_file():
        raise FileNotFoundError(f"annotations of source {source.name} must be a file, got {path}, which isn't one")
    files = _coco_files(path)
    for number, item in enumerate(iter_items(path, "annotations")):
        try:
            if int(item.get("iscrowd", 0)):
                continue
            image, area = files[item["image_id"]], check_segmentation(item["segmentation"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"can't be used ({error})"
            raise BadFile(f"{path}: annotation {item.get('id', number)} {what}: {str(item)[:60]}") from error
        if not (root / image).is_file():
            raise BadFile(f"{path}: image {image} isn't in {root}")
        plain = Path(image).with_suffix("").as_posix()
        mask = _Segmentation(compact(item["segmentation"]))
        name, split = _name(source, plain, item.get("id", number)), selection.split(plain)
        yield Masked(source.name, name, plain, split, root / image, area, mask)


def _coco_files(path: Path) -> dict[Any, str]:
    """Returns the file name of every image id."""
    try:
        return {item["id"]: str(item["file_name"]) for item in iter_items(path, "images")}
    except (KeyError, TypeError) as error:
        raise BadFile(f"{path}: an image must have id and file_name, got one without ({error})") from error


def _photographed(source: Source, selection: Selection) -> list[Photographed]:
    table, root = (Path(source.keys[key]).expanduser() for key in ("table", "root"))
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
        found.append(Photographed(source.name, _name(source, label, None), group, split, root, tuple(members)))
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


def _name(source: Source, image: str, instance: Any) -> str:
    return f"{source.name}-{_flat(image)}" if instance is None else f"{source.name}-{_flat(image)}-{instance}"


def _flat(name: str) -> str:
    return name.replace("/", "-")
