"""Objects of files that say which pixels of a photo are theirs: instance masks, and COCO's annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data._coco_masks import check_segmentation, compact, draw_segmentation
from zoo.data._objects import Masked, Selection, Source
from zoo.files import BadFile
from zoo.truth.readers.streaming import iter_items

IGNORED = 255  # value of a mask's pixels that belong to nobody knows what (VOC's borders)


def from_masks(source: Source, selection: Selection) -> Iterator[Masked]:
    """Yields the objects of a folder of instance masks: pixels of one number. Raises BadFile for one that is none."""
    photos, masks = (source.pictures(key) for key in ("images", "masks"))
    for image in photos:
        if image not in masks:
            continue  # only some of a set's photos are segmented
        areas = np.bincount(_instances(masks[image]).reshape(-1))
        for value in areas.nonzero()[0].tolist():
            if value not in (0, IGNORED):
                name, split = source.object_name(image, value), selection.split(image)
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


def from_coco(source: Source, selection: Selection) -> Iterator[Masked]:
    """Yields the objects of COCO's annotations, crowds aside. Raises FileNotFoundError, or BadFile that names one."""
    path, root = (source.path(key) for key in ("annotations", "images"))
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
        name, split = source.object_name(plain, item.get("id", number)), selection.split(plain)
        yield Masked(source.name, name, plain, split, root / image, area, mask)


def _coco_files(path: Path) -> dict[Any, str]:
    """Returns the file name of every image id."""
    try:
        return {item["id"]: str(item["file_name"]) for item in iter_items(path, "images")}
    except (KeyError, TypeError) as error:
        raise BadFile(f"{path}: an image must have id and file_name, got one without ({error})") from error


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
