"""COCO annotation files (Lin et al. 2014) as scene graphs of boxes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.files import BadFile
from zoo.truth.boxes import BOX_RELATIONS, box_graph
from zoo.truth.graphs import MAX_NODES, PackedGraphs
from zoo.truth.readers.streaming import iter_items, iter_keys
from zoo.truth.scene_words import SceneSet, SceneVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.truth.graphs import SceneGraph

FARTHEST = 1e9  # px; further out, a box vanishes in the rounding


@dataclass
class _Boxes:
    """Boxes of one image, four numbers each, and their category ids."""

    corners: array = field(default_factory=lambda: array("d"))
    categories: array = field(default_factory=lambda: array("q"))


def read_coco(path: Path, vocabulary: SceneVocabulary | None = None) -> SceneSet:
    """Read a COCO annotation file as scene graphs, one per image, named by file name without suffix.

    Objects are the annotated boxes (x, y, width, height in px) with the category as attribute; their relations are
    those of `box_graph`. Crowds and empty boxes are left out, and of more than 64 boxes the smallest; `notes` says how
    many. vocabulary: that of the gallery, for a query; None takes the file's categories. Segmentations are not held in
    memory. Raises OSError, or BadFile which names the file and what is wrong with it.
    """
    path = Path(path)
    categories = _table(path, "categories", lambda item: (_number(item["id"]), str(item["name"])))
    images = _table(path, "images", lambda item: (_number(item["id"]), _stem(item["file_name"])))
    if len(set(images.values())) < len(images):
        raise BadFile(f"{path}: images must have different file names")
    words = vocabulary or SceneVocabulary({"category": tuple(dict.fromkeys(categories.values()))}, BOX_RELATIONS)
    places = _places(path, categories, words)
    boxes, dropped = _read_boxes(path, images, places)
    graphs, cut = [], 0
    for number in images:
        graph, lost = _graph(boxes.get(number, _Boxes()))
        graphs.append(graph)
        cut += lost
    notes = [f"{dropped:,} crowds and empty boxes left out"] if dropped else []
    notes += [f"{cut:,} boxes left out, the smallest of images with more than {MAX_NODES}"] if cut else []
    return SceneSet(tuple(images.values()), PackedGraphs.from_graphs(graphs), words, tuple(notes))


def _table(path: Path, key: str, row: Callable[[dict[str, Any]], tuple[int, str]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for item in iter_items(path, key):
        try:
            number, name = row(item)
        except KeyError as error:
            raise BadFile(f"{path}: an entry of {key!r} lacks {error}, got {str(item)[:60]}") from error
        except (TypeError, ValueError) as error:
            raise BadFile(f"{path}: an entry of {key!r} can't be used ({error}), got {str(item)[:60]}") from error
        if number in found:
            raise BadFile(f"{path}: {key} must have different ids, got {number} twice")
        found[number] = name
    if not found:
        raise BadFile(f'{path}: holds no {key}; a COCO file has "images", "annotations" and "categories"')
    return found


def _places(path: Path, categories: dict[int, str], words: SceneVocabulary) -> dict[int, int]:
    """Place in the vocabulary of every category id; a category that the vocabulary lacks is refused when it is used."""
    if list(words.attributes) != ["category"] or words.relations != BOX_RELATIONS:
        raise BadFile(f"{path}: boxes can only be compared with boxes, the gallery has {', '.join(words.attributes)}")
    known = {word: place for place, word in enumerate(words.attributes["category"])}
    return {number: known[name] for number, name in categories.items() if name in known}


def _number(value: Any) -> int:
    """Reads an id, which some programs write as a string."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).removeprefix("-").isdecimal():
        raise ValueError(f"an id must be a whole number, got {str(value)[:60]!r}")
    return int(value)


def _stem(name: Any) -> str:
    if not isinstance(name, str) or not PurePath(name).name:
        raise ValueError(f"file_name must name a file, got {str(name)[:60]!r}")
    return str(PurePath(name).with_suffix(""))


def _read_boxes(path: Path, images: dict[int, str], places: dict[int, int]) -> tuple[dict[int, _Boxes], int]:
    boxes: dict[int, _Boxes] = {}
    dropped, item = 0, None
    for item in iter_items(path, "annotations"):
        try:
            image, category, (x, y, width, height) = _annotation(item)
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile(
                f"{path}: an annotation needs image_id, category_id, bbox [x, y, width, height], got {str(item)[:60]}"
            ) from error
        if image not in images or category not in places:
            what = f"image_id {image}" if image not in images else f"category_id {category}"
            raise BadFile(f"{path}: annotation {item.get('id')} has {what}, which isn't listed in the file or gallery")
        if item.get("iscrowd", 0) or not (width > 0 and height > 0):
            dropped += 1
            continue
        corners = (x, y, x + width, y + height)
        if max(map(abs, corners)) > FARTHEST or not (corners[0] < corners[2] and corners[1] < corners[3]):
            raise BadFile(
                f"{path}: annotation {item.get('id')} must have a box within {FARTHEST:,.0f} px, got {item['bbox']}"
            )
        own = boxes.setdefault(image, _Boxes())
        own.corners.extend(corners)
        own.categories.append(places[category])
    if item is None and ("annotations", True) not in iter_keys(path):
        raise BadFile(f'{path}: holds no list "annotations", which has the boxes of a COCO file')
    return boxes, dropped


def _annotation(item: dict[str, Any]) -> tuple[int, int, list[float]]:
    if not isinstance(item["bbox"], list) or len(item["bbox"]) != 4:
        raise ValueError("bbox must hold four numbers")
    return _number(item["image_id"]), _number(item["category_id"]), [float(side) for side in item["bbox"]]


def _graph(boxes: _Boxes) -> tuple[SceneGraph, int]:
    """Graph of one image's boxes, the largest 64 of them in the file's order, and how many are left out."""
    corners, categories = np.array(boxes.corners).reshape(-1, 4), np.array(boxes.categories, np.int64)
    lost = max(0, len(corners) - MAX_NODES)
    if lost:
        area = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
        kept = np.sort(np.argsort(-area, kind="stable")[:MAX_NODES])
        corners, categories = corners[kept], categories[kept]
    return box_graph(corners, categories), lost
