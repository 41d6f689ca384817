"""Relevance lists in JSON: Oxford's, one's own, and those of vpr_bench by position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.truth.relevance import DISTRACTOR, RelevanceLists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OXFORD_KEYS = {"query", "bbox", "good", "ok", "junk"}
OWN_KEYS = {"junk", DISTRACTOR, "image", "box"}  # that may be absent
WHOLE_IMAGE = [float("nan")] * 4


def lists_from_json(content: Any) -> RelevanceLists:
    """Turns one of these forms into relevance lists.

    - `{query: {"query": image, "bbox": [x0, y0, x1, y1], "good": [ids], "ok": [ids], "junk": [ids]}}`;
    - `{query: {"relevant": [ids], "junk": [ids], "image": name, "box": [x0, y0, x1, y1]}}`, all but "relevant" may be
      absent, or `{query: [ids]}`, mixed as one likes; without "image" the query's name is its image; in place of
      "relevant" all queries may have "easy" and "hard";
    - `[[query position, [gallery positions]], …]`, which gives positional lists (VPR-Bench).

    Objects may also have "distractor": [ids], made to be taken for relevant; the lists have this group where any has.
    `lists_to_json` writes the first two. Raises ValueError that names the query and the rule.
    """
    if isinstance(content, list):
        return _positional(content)
    if not isinstance(content, dict) or not content:
        raise ValueError("JSON ground truth must be an object of queries or a list of [position, [positions]]")
    first = next(iter(content.values()))
    if isinstance(first, dict) and "query" in first:
        return _oxford(content)
    return _own(content)


def _oxford(content: dict[str, Any]) -> RelevanceLists:
    for query, entry in content.items():
        if not isinstance(entry, dict) or set(entry) - {DISTRACTOR} != OXFORD_KEYS:
            found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
            raise ValueError(f"query {query!r}: the keys must be {sorted(OXFORD_KEYS)}, got {found}")
    groups = _groups(content, ("good", "ok", "junk"))
    images = tuple(_image(query, entry["query"]) for query, entry in content.items())
    boxes = [_box(query, entry["bbox"]) for query, entry in content.items()]
    return RelevanceLists(tuple(content), images, groups, boxes, None)


def _own(content: dict[str, Any]) -> RelevanceLists:
    first = next(iter(content.values()))
    levels = ("easy", "hard") if isinstance(first, dict) and {"easy", "hard"} <= set(first) else ("relevant",)
    entries = {query: _own_entry(query, entry, levels) for query, entry in content.items()}
    groups = _groups(entries, (*levels, "junk"))
    images = tuple(_image(query, entry.get("image", query)) for query, entry in entries.items())
    boxes = None
    if any("box" in entry for entry in entries.values()):
        boxes = [_box(query, entry["box"]) if "box" in entry else WHOLE_IMAGE for query, entry in entries.items()]
    return RelevanceLists(tuple(content), images, groups, boxes, None)


def _own_entry(query: str, entry: Any, levels: Sequence[str]) -> dict[str, Any]:
    plain = {"relevant": entry} if isinstance(entry, list) else entry
    if not isinstance(plain, dict) or not set(levels) <= set(plain) <= OWN_KEYS | set(levels):
        found = sorted(plain) if isinstance(plain, dict) else type(plain).__name__
        needed = " and ".join(map(repr, levels))
        form = f"a list of ids or an object with {needed}" if len(levels) == 1 else f"an object with {needed}"
        keys = sorted(OWN_KEYS | set(levels))
        raise ValueError(f"query {query!r}: {form} is needed, the keys may be {keys}, got {found}")
    return plain


def _groups(entries: Mapping[str, dict[str, Any]], names: Sequence[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns the groups `names` of every query, and distractors where any query has some."""
    if any(DISTRACTOR in entry for entry in entries.values()):
        names = (*names, DISTRACTOR)
    return {name: tuple(_ids(query, name, entry.get(name, [])) for query, entry in entries.items()) for name in names}


def _positional(content: list) -> RelevanceLists:
    for row in content:
        good = isinstance(row, list) and len(row) == 2 and isinstance(row[1], list)
        if not (good and all(type(value) is int and value >= 0 for value in (row[0], *row[1]))):
            raise ValueError(f"a row must read [query position, [gallery positions]], got {str(row)[:80]}")
    queries = tuple(str(query) for query, _ in content)
    groups = {"relevant": tuple(tuple(map(str, items)) for _, items in content)}
    return RelevanceLists(queries, queries, groups, None, None, positional=True)


def lists_to_json(lists: RelevanceLists) -> dict[str, Any]:
    """Returns lists as plain values, which `lists_from_json` reads again; whole-image boxes are left out.

    Groups of Oxford's names become its form where every query has a box, others one's own. What only a pickle states,
    the gallery's names, is not kept. Raises ValueError for positional lists.
    """
    if lists.positional:
        raise ValueError("lists_to_json: the ids are positions; name them first by name_positions")
    boxes = [None] * len(lists.query_ids) if lists.boxes is None else lists.boxes.tolist()
    boxes = [box if box is not None and box[0] == box[0] else None for box in boxes]
    empty = ((),) * len(lists.query_ids)
    oxford = set(lists.groups) <= {"good", "ok", "junk", DISTRACTOR} and None not in boxes
    groups = {**({"good": empty, "ok": empty, "junk": empty} if oxford else {}), **lists.groups}
    content = {}
    for place, (query, image, box) in enumerate(zip(lists.query_ids, lists.query_images, boxes, strict=True)):
        about = {"query": image, "bbox": box} if oxford else {"image": image, **({} if box is None else {"box": box})}
        content[query] = {**about, **{name: list(rows[place]) for name, rows in groups.items()}}
    return content


def _ids(query: str, name: str, ids: Any) -> tuple[str, ...]:
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise ValueError(f"query {query!r}: {name} must be a list of strings, got {str(ids)[:80]}")
    return tuple(ids)


def _image(query: str, image: Any) -> str:
    if not isinstance(image, str):
        raise ValueError(f"query {query!r}: the image must be a name, got {image!r}")
    return image


def _box(query: str, box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        raise ValueError(f"query {query!r}: a box must be four numbers x0, y0, x1, y1, got {str(box)[:80]}")
    return box
