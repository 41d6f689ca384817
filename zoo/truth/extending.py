"""Relevance lists of a gallery to which images were added that were made from its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoo.truth.relevance import DISTRACTOR, JUNK, RelevanceLists

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def positives(lists: RelevanceLists) -> tuple[str, ...]:
    """Returns every item that is relevant to any query, whatever the group, once, in the order of the lists."""
    groups = [rows for name, rows in lists.groups.items() if name not in (JUNK, DISTRACTOR)]
    return tuple(dict.fromkeys(item for rows in zip(*groups, strict=True) for ids in rows for item in ids))


def with_distractors(lists: RelevanceLists, names: Iterable[str]) -> RelevanceLists:
    """Adds items to the gallery and to the group "distractor" of every query (OxfShf, Sec. 4.1 of Chen et al. 2019).

    Raises ValueError for one that a query lists otherwise.
    """
    names = tuple(names)
    before = lists.groups.get(DISTRACTOR, ((),) * len(lists.query_ids))
    rows = tuple(tuple(dict.fromkeys((*ids, *names))) for ids in before)
    return replace(lists, groups={**lists.groups, DISTRACTOR: rows}, gallery_ids=_joined(lists, names))


def with_copies(lists: RelevanceLists, copies: Mapping[str, Sequence[str]]) -> RelevanceLists:
    """Adds copies of items, name → names, to the gallery and to their groups: what shows the same is judged the same.

    Raises ValueError for a copy that a query lists already.
    """
    groups = {
        name: tuple(tuple(each for item in ids for each in (item, *copies.get(item, ()))) for ids in rows)
        for name, rows in lists.groups.items()
    }
    added = [name for names in copies.values() for name in names]
    return replace(lists, groups=groups, gallery_ids=_joined(lists, added))


def _joined(lists: RelevanceLists, names: Iterable[str]) -> tuple[str, ...] | None:
    return None if lists.gallery_ids is None else tuple(dict.fromkeys((*lists.gallery_ids, *names)))
