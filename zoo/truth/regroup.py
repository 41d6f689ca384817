"""Relevance lists from labels, and lists regrouped for a protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, overload

from zoo.files import csv_rows
from zoo.truth.relevance import DISTRACTOR, GradedLists, RelevanceLists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def from_labels(names: Sequence[str], labels: Sequence[str]) -> RelevanceLists:
    """Makes every item a query for the others of its label; the gallery is all of them."""
    members: dict[str, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        members.setdefault(label, []).append(name)
    others = tuple(
        tuple(other for other in members[label] if other != name) for name, label in zip(names, labels, strict=True)
    )
    queries = tuple(names)
    return RelevanceLists(queries, queries, {"relevant": others}, boxes=None, gallery_ids=queries)


def read_labels(file: Path) -> tuple[list[str], list[str]]:
    """Returns the columns image and label of a CSV file; raises FileNotFoundError, or ValueError for another layout."""
    if not file.is_file():
        raise FileNotFoundError(f"labels must be a CSV file, got {file}, which doesn't exist")
    rows, _ = csv_rows(file, "labels file")
    if not rows or any(not row.get("image") or not row.get("label") for row in rows):
        raise ValueError(f"labels file {file} must have the columns image and label, filled in every row")
    return [row["image"] for row in rows], [row["label"] for row in rows]


def merged(lists: RelevanceLists, groups: Mapping[str, Sequence[str]]) -> RelevanceLists:
    """Returns the lists with new groups, each the union of old ones; old groups that the lists lack count as empty.

    Distractors that none of the new ones takes up are as irrelevant as what is not listed. Raises ValueError if the
    lists have another group that none takes up.
    """
    wanted = {old for names in groups.values() for old in names}
    strange = [name for name in lists.groups if name not in wanted and name != DISTRACTOR]
    if strange:
        raise ValueError(
            f"ground truth must have the groups {', '.join(sorted(wanted))}, got {', '.join(lists.groups)}: "
            "is it another benchmark's?"
        )
    empty: tuple[tuple[str, ...], ...] = ((),) * len(lists.query_ids)
    united = {
        new: tuple(sum(parts, ()) for parts in zip(*(lists.groups.get(old, empty) for old in names), strict=True))
        for new, names in groups.items()
    }
    return replace(lists, groups=united)


def in_turn(lists: RelevanceLists) -> RelevanceLists:
    """Makes every item of the group "relevant" a query, the whole image, for what is relevant with it.

    The published queries of a landmark agree. An item of several asks for all of theirs; of their other groups it gets
    what no earlier group names.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    names = ["relevant", *(name for name in lists.groups if name != "relevant")]
    for place, asking in enumerate(lists.groups["relevant"]):
        for item in asking:
            own = found.setdefault(item, {name: {} for name in names})
            for name in names:
                own[name].update(dict.fromkeys(lists.groups[name][place]))
    for own in found.values():
        taken: set[str] = set()
        for name in names:
            own[name] = {item: None for item in own[name] if item not in taken}
            taken.update(own[name])
    queries = tuple(sorted(found))
    groups = {name: tuple(tuple(found[query][name]) for query in queries) for name in names}
    return replace(lists, query_ids=queries, query_images=queries, groups=groups, boxes=None)


@overload
def without_own(lists: RelevanceLists) -> RelevanceLists: ...
@overload
def without_own(lists: GradedLists) -> GradedLists: ...
def without_own(lists: RelevanceLists | GradedLists) -> RelevanceLists | GradedLists:
    """Takes each query's own image out of its lists."""
    if isinstance(lists, GradedLists):
        pairs = zip(lists.query_ids, lists.gains, strict=True)
        gains = tuple({item: gain for item, gain in row.items() if item != query} for query, row in pairs)
        return replace(lists, gains=gains)
    groups = {
        name: tuple(
            tuple(item for item in ids if item != image) for image, ids in zip(lists.query_images, rows, strict=True)
        )
        for name, rows in lists.groups.items()
    }
    return replace(lists, groups=groups)
