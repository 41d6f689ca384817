"""Relevance lists of Oxford, Paris and their revisited forms, of vpr_bench, and for one's own images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.truth.readers.files import naming, read_json
from zoo.truth.readers.json_lists import lists_from_json
from zoo.truth.readers.plain_pickle import PlainArray, read_plain_pickle
from zoo.truth.relevance import RelevanceLists

if TYPE_CHECKING:
    from pathlib import Path

CLASSIC = ("ok", "junk")
REVISITED = ("easy", "hard", "junk")
OXFORD_PREFIX = "oxc1_"  # in Oxford's query files before the image's name; Paris has none


def read_gnd(path: Path) -> RelevanceLists:
    """Reads relevance lists in whichever of the published forms `path` has.

    - a folder: Oxford's and Paris' text files, `<name>_query.txt` ("oxc1_<image> x0 y0 x1 y1"), `<name>_good.txt`,
      `<name>_ok.txt` and `<name>_junk.txt`;
    - `.pkl`: the gnd_*.pkl of Radenović et al. (cnnimageretrieval-pytorch; Revisiting Oxford and Paris, CVPR 2018)
      with `imlist`, `qimlist` and `gnd`, classic (ok, junk) or revisited (easy, hard, junk); nothing is executed;
    - `.json`: the forms of `lists_from_json`.

    Raises FileNotFoundError, or ValueError that names the file, the query and the rule.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of ground truth")
    with naming(path):
        if path.is_dir():
            return _lists_from_texts(path)
        if path.suffix == ".pkl":
            return _lists_from_gnd(read_plain_pickle(path))
        if path.suffix == ".json":
            return lists_from_json(read_json(path))
        raise ValueError(f"ground truth must be a folder of text files, a .pkl or a .json, got {path.suffix!r}")


def _lists_from_texts(folder: Path) -> RelevanceLists:
    files = sorted(folder.glob("*_query.txt"))
    if not files:
        raise ValueError("the folder must hold <name>_query.txt files, found none")
    names = tuple(file.name.removesuffix("_query.txt") for file in files)
    queries = [_query_line(file) for file in files]
    groups = {group: tuple(_ids(folder / f"{name}_{group}.txt") for name in names) for group in ("good", "ok", "junk")}
    return RelevanceLists(names, tuple(image for image, _ in queries), groups, [box for _, box in queries], None)


def _query_line(file: Path) -> tuple[str, list[float]]:
    words = file.read_text(encoding="utf-8").split()
    try:
        box = [float(word) for word in words[1:]]
    except ValueError:
        box = []
    if len(box) != 4:
        raise ValueError(f"{file.name} must read '<image> x0 y0 x1 y1', got {' '.join(words)[:80]!r}")
    return words[0].removeprefix(OXFORD_PREFIX), box


def _ids(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        raise ValueError(f"{file.name} is missing")
    # Oxford's own compute_ap reads the lists into sets, so a repeated line counts once.
    return tuple(dict.fromkeys(file.read_text(encoding="utf-8").split()))


def _lists_from_gnd(content: Any) -> RelevanceLists:
    if not isinstance(content, dict):
        raise ValueError(f"the pickle must hold a dict, got {type(content).__name__}")
    missing = [key for key in ("imlist", "qimlist", "gnd") if key not in content]
    if missing:
        raise ValueError(f"the keys {missing} are missing, found {[str(key) for key in content]}")
    images, shown, queries = (_sequence(key, content[key]) for key in ("imlist", "qimlist", "gnd"))
    for key, names in (("imlist", images), ("qimlist", shown)):
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key} must hold image names")
    if len(shown) != len(queries):
        raise ValueError(f"qimlist and gnd must be of one length, got {len(shown)} and {len(queries)}")
    ids = _query_names(shown)
    form = REVISITED if queries and isinstance(queries[0], dict) and "easy" in queries[0] else CLASSIC
    groups = {name: tuple(map(_group, ids, queries, [name] * len(ids), [images] * len(ids))) for name in form}
    boxes = [_box(query, entry) for query, entry in zip(ids, queries, strict=True)]
    return RelevanceLists(ids, tuple(shown), groups, boxes, tuple(images))


def _query_names(images: Sequence[str]) -> tuple[str, ...]:
    """Names queries by their image, and by their position too where several queries share one."""
    counts = Counter(images)
    return tuple(image if counts[image] == 1 else f"{image}#{place}" for place, image in enumerate(images))


def _group(query: str, entry: Any, name: str, images: Sequence[str]) -> tuple[str, ...]:
    """Turns the positions in `imlist` of one query's group into names."""
    if not isinstance(entry, dict) or (name not in entry and name != "junk"):
        found = [str(key) for key in entry] if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"query {query!r}: gnd must be a dict with {name!r}, got {found}")
    positions = _sequence(f"query {query!r}: {name}", entry.get(name, ()))
    for position in positions:
        whole = isinstance(position, int | float) and not isinstance(position, bool) and position == position // 1
        if not (whole and 0 <= position < len(images)):
            rule = f"{name} must hold positions in imlist (0 … {len(images) - 1})"
            raise ValueError(f"query {query!r}: {rule}, got {position!r}")
    return tuple(images[int(position)] for position in positions)


def _box(query: str, entry: dict) -> list[float]:
    box = _sequence(f"query {query!r}: bbx", entry.get("bbx", [float("nan")] * 4))
    if len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        raise ValueError(f"query {query!r}: bbx must be four numbers x0, y0, x1, y1, got {box}")
    return list(map(float, box))


def _sequence(name: str, value: Any) -> list:
    plain = value.tolist() if isinstance(value, PlainArray) else value
    if not isinstance(plain, list | tuple):
        raise ValueError(f"{name} must be a list, got {type(value).__name__}")
    return list(plain)
