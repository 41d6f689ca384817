"""What tools/make_shuffled_distractors.py makes and writes, once its options are read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import zoo
from zoo.data._table import read_table
from zoo.data.distractors import (
    affine,
    generator,
    mirror,
    random_affine,
    separate_pairs,
    shuffle_patches,
    swap_boxes,
)
from zoo.evaluation.pictures import SheetRow, Tile, contact_sheet
from zoo.evaluation.report import write_json
from zoo.files import BadFile, replacing
from zoo.progress import tracked
from zoo.truth import RelevanceLists, read_gnd
from zoo.truth.extending import positives, with_copies, with_distractors
from zoo.truth.readers.json_lists import lists_to_json
from zoo.truth.readers.streaming import iter_items

WORDS = {"patches": "shuffled", "affine": "affine", "mirror": "mirrored", "swap": "swapped"}
QUALITY = 95
SHEET_ROWS, SHEET_COPIES, SHEET_SIDE = 8, 5, 220


@dataclass(frozen=True)
class Made:
    """What is to be made: image → names of its copies, and of how many images there are none, and why."""

    copies: Mapping[str, Sequence[str]]
    listed: int
    absent: int
    without_pairs: int


# --- what there is


def opened(options: argparse.Namespace) -> Any:
    """Returns the images as `data=folder` names them, with the table if the truth is one."""
    table = str(options.truth) if options.truth.suffix == ".csv" else None
    shared = {"names": options.names, "table": table, "upright": options.upright}
    data = zoo.create("data", "folder", root=options.images, queries=options.queries, **shared)
    data.setup()
    return data


def truth_of(options: argparse.Namespace, data: Any) -> RelevanceLists:
    """Returns the ground truth by names, be it a table, a file or a folder."""
    if options.truth.suffix == ".csv":
        return data.ground_truth()
    truth = read_gnd(options.truth)
    if truth.positional:
        truth = truth.name_positions(data.ids(data.query_split), data.ids("gallery"))
    return truth


def boxes_of(file: Path, data: Any) -> dict[str, list[Sequence[float]]]:
    """Returns the boxes (x0, y0, x1, y1 px) of every image of a table or a COCO file; raises BadFile for none."""
    known, found = set(data.ids("gallery")), {}
    pairs = _table_boxes(file) if file.suffix == ".csv" else _coco_boxes(file)
    for image, box in pairs:
        path = Path(image)
        names = (image, str(path.with_suffix("")), path.name, path.stem)
        name = next((name for name in names if name in known), None)
        if name is not None:
            found.setdefault(name, []).append(box)
    if not found:
        raise BadFile(f"boxes: {file} has none for the images, which are called like '{min(known)}'")
    return found


def _table_boxes(file: Path) -> Iterator[tuple[str, Sequence[float]]]:
    yield from ((row.image, row.box) for row in read_table(file) if row.box is not None)


def _coco_boxes(file: Path) -> Iterator[tuple[str, Sequence[float]]]:
    try:
        images = {item["id"]: str(item["file_name"]) for item in iter_items(file, "images")}
        for item in iter_items(file, "annotations"):
            x, y, width, height = map(float, item["bbox"])
            if not item.get("iscrowd", 0) and width > 0 and height > 0:
                yield images[item["image_id"]], (x, y, x + width, y + height)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{file} isn't a COCO file with images and boxes ({type(error).__name__}: {error})") from error


# --- what is to be made


def planned(options: argparse.Namespace, data: Any, truth: RelevanceLists, pairs: Mapping[str, Sequence]) -> Made:
    """Returns the names of all copies; raises ValueError where relevant images are missing or a name is taken."""
    listed, known = positives(truth), set(data.ids("gallery"))
    there = [name for name in listed if name in known]
    if len(there) < len(listed) and options.incomplete == "refuse":
        absent = next(name for name in listed if name not in known)
        raise ValueError(
            f"{len(listed) - len(there)} of {len(listed)} relevant images are not in {options.images}, '{absent}' "
            f"first (what is there is called like '{min(known)}'); --incomplete restrict leaves them out"
        )
    there = there[: options.limit]
    number = {name: min(options.copies, len(pairs.get(name, ()))) for name in there} if options.kind == "swap" else {}
    end = f".{options.format}" if options.names == "file" else ""
    copies = {
        name: [f"{name}__{WORDS[options.kind]}_{copy}{end}" for copy in range(number.get(name, options.copies))]
        for name in there
    }
    taken = [name for names in copies.values() for name in names if name in known]
    if taken:
        raise ValueError(f"an image is called '{taken[0]}' already: are copies among the images?")
    made = {name: names for name, names in copies.items() if names}
    if not made:
        raise ValueError("no copy can be made: no relevant image is there, or none has two separate boxes")
    return Made(made, len(listed), len(listed) - sum(name in known for name in listed), len(copies) - len(made))


def pairs_of(options: argparse.Namespace, data: Any) -> dict[str, list]:
    """Returns for swapping the pairs of boxes of every image, in an order of its own; nothing for other kinds."""
    if options.kind != "swap":
        return {}
    file = options.boxes or (options.truth if options.truth.suffix == ".csv" else None)
    if file is None:
        raise ValueError("kind swap needs boxes of the objects: --boxes FILE, a table (.csv) or a COCO file (.json)")
    shuffled = {}
    for name, boxes in boxes_of(file, data).items():
        pairs = separate_pairs(boxes)
        order = generator(name, 0, options.seed).permutation(len(pairs))
        shuffled[name] = [pairs[place] for place in order]
    return shuffled


def changed(pixels: np.ndarray, name: str, copy: int, options: argparse.Namespace, pairs: Mapping) -> np.ndarray:
    """Returns one copy of a picture (H, W, 3)."""
    rng = generator(name, copy, options.seed)
    if options.kind == "patches":
        return shuffle_patches(pixels, options.grid, rng)
    if options.kind == "affine":
        return affine(pixels, random_affine(rng))
    return mirror(pixels) if options.kind == "mirror" else swap_boxes(pixels, *pairs[name][copy])


# --- files


def file_of(options: argparse.Namespace, copy: str) -> Path:
    """Returns where a copy is written."""
    return options.output / "images" / (copy if options.names == "file" else f"{copy}.{options.format}")


def claim(folder: Path, parameters: dict[str, Any]) -> None:
    """Writes the parameters into a new folder; raises ValueError for one of other parameters, or of other files."""
    file = folder / "made.json"
    if file.is_file():
        try:
            there = json.loads(file.read_text(encoding="utf-8"))["parameters"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{file} is damaged ({error}): choose another --output, or remove the folder") from error
        unlike = [name for name in parameters if there.get(name) != parameters[name]]
        if unlike:
            name = unlike[0]
            raise ValueError(
                f"{folder} was made with {name} {there.get(name)!r}, not {parameters[name]!r}: choose another --output"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"output must be a new folder or one that this tool made, got {folder}, which holds other files"
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, {"parameters": parameters, "counts": None})


def write_images(options: argparse.Namespace, data: Any, made: Made, pairs: Mapping) -> None:
    """Makes the copies that aren't there, behind a progress bar."""
    for name, copies in tracked(list(made.copies.items()), "making"):
        files = {copy: file_of(options, name) for copy, name in enumerate(copies)}
        missing = {copy: file for copy, file in files.items() if not file.is_file()}
        pixels = data.picture_by_id("gallery", name) if missing else None
        for copy, file in missing.items():
            try:
                picture = Image.fromarray(changed(pixels, name, copy, options, pairs))
            except ValueError as error:
                raise ValueError(f"image '{name}': {error}") from error
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as target:
                picture.save(target, **({"format": "PNG"} if options.format == "png" else _jpeg()))


def _jpeg() -> dict[str, Any]:
    return {"format": "JPEG", "quality": QUALITY, "subsampling": 0}  # full colour: patches have hard borders


def sheet(options: argparse.Namespace, data: Any, made: Made) -> Image.Image:
    """Returns some images, spread over all, beside their copies."""
    names = list(made.copies)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(SHEET_ROWS, len(names))).round().astype(int))
    rows = []
    for name in (names[place] for place in chosen):
        tiles = [Tile(data.picture_by_id("gallery", name), "original")]
        for copy in made.copies[name][:SHEET_COPIES]:
            tiles.append(Tile(np.array(Image.open(file_of(options, copy)).convert("RGB")), copy.rpartition("__")[2]))
        rows.append(SheetRow(name, tiles))
    return contact_sheet(rows, SHEET_SIDE)


# --- all of it


def make(options: argparse.Namespace) -> str:
    """Writes everything, made.json with its counts last, and returns what to say."""
    data = opened(options)
    truth = truth_of(options, data)
    pairs = pairs_of(options, data)
    made = planned(options, data, truth, pairs)
    names = ("kind", "copies", "seed", "names", "upright", "format", "limit", *(["grid"] * (options.kind == "patches")))
    parameters = {**{name: getattr(options, name) for name in names}, "truth": truth.fingerprint()}
    claim(options.output, parameters)
    write_images(options, data, made, pairs)
    copies = [copy for each in made.copies.values() for copy in each]
    extended = with_copies(truth, made.copies) if options.kind == "affine" else with_distractors(truth, copies)
    write_json(options.output / "ground_truth.json", lists_to_json(extended), indent=None)
    with replacing(options.output / "sheet.png") as file:
        sheet(options, data, made).save(file, format="PNG")
    counts = {
        "queries": len(truth.query_ids),
        "relevant images": made.listed,
        "missing": made.absent,
        "without two separate boxes": made.without_pairs,
        "made": len(copies),
        "gallery": len(data.ids("gallery")) + len(copies),
    }
    write_json(options.output / "made.json", {"parameters": parameters, "counts": counts})
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f"{options.output}: {said}. Look at {options.output / 'sheet.png'}"
