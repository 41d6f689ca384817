"""Relevance lists in JSON: Oxford's, one's own, and those of vpr_bench by position."""

from __future__ import annotations

from typing import Any

from zoo.truth.relevance import RelevanceLists

OXFORD_KEYS = {"query", "bbox", "good", "ok", "junk"}
OWN_KEYS = {"relevant", "junk", "image", "box"}
WHOLE_IMAGE = [float("nan")] * 4


def lists_from_json(content: Any) -> RelevanceLists:
    """Turns one of these forms into relevance lists.

    - `{query: {"query": image, "bbox": [x0, y0, x1, y1], "good": [ids], "ok": [ids], "junk": [ids]}}`;
    - `{query: {"relevant": [ids], "junk": [ids], "image": name, "box": [x0, y0, x1, y1]}}`, all but "relevant" may be
      absent, or `{query: [ids]}`, mixed as one likes; without "image" the query's name is its image;
    - `[[query position, [gallery positions]], …]`, which gives positional lists (VPR-Bench).

    Raises ValueError that names the query and the rule.
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
        if not isinstance(entry, dict) or set(entry) != OXFORD_KEYS:
            found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
            raise ValueError(f"query {query!r}: the keys must be {sorted(OXFORD_KEYS)}, got {found}")
    groups = {
        name: tuple(_ids(query, name, entry[name]) for query, entry in content.items())
        for name in ("good", "ok", "junk")
    }
    images = tuple(_image(query, entry["query"]) for query, entry in content.items())
    boxes = [_box(query, entry["bbox"]) for query, entry in content.items()]
    return RelevanceLists(tuple(content), images, groups, boxes, None)


def _own(content: dict[str, Any]) -> RelevanceLists:
    entries = {query: _own_entry(query, entry) for query, entry in content.items()}
    groups = {
        name: tuple(_ids(query, name, entry.get(name, [])) for query, entry in entries.items())
        for name in ("relevant", "junk")
    }
    images = tuple(_image(query, entry.get("image", query)) for query, entry in entries.items())
    boxes = None
    if any("box" in entry for entry in entries.values()):
        boxes = [_box(query, entry["box"]) if "box" in entry else WHOLE_IMAGE for query, entry in entries.items()]
    return RelevanceLists(tuple(content), images, groups, boxes, None)


def _own_entry(query: str, entry: Any) -> dict[str, Any]:
    plain = {"relevant": entry} if isinstance(entry, list) else entry
    if not isinstance(plain, dict) or "relevant" not in plain or not set(plain) <= OWN_KEYS:
        found = sorted(plain) if isinstance(plain, dict) else type(plain).__name__
        rule = f"a list of ids or an object with 'relevant' is needed, the keys may be {sorted(OWN_KEYS)}"
        raise ValueError(f"query {query!r}: {rule}, got {found}")
    return plain


def _positional(content: list) -> RelevanceLists:
    for row in content:
        good = isinstance(row, list) and len(row) == 2 and isinstance(row[1], list)
        if not (good and all(type(value) is int and value >= 0 for value in (row[0], *row[1]))):
            raise ValueError(f"a row must read [query position, [gallery positions]], got {str(row)[:80]}")
    queries = tuple(str(query) for query, _ in content)
    groups = {"relevant": tuple(tuple(map(str, items)) for _, items in content)}
    return RelevanceLists(queries, queries, groups, None, None, positional=True)


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
