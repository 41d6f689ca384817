"""Which gallery items are right answers to which queries, by id: groups of equal relevance, and graded gains.

Shapes: Q queries, N gallery items.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zoo.checks import is_number

if TYPE_CHECKING:
    from zoo.truth.packing import PackedGains, PackedRelevance

JUNK = "junk"  # the group that is taken out of a ranking before anything is counted
DISTRACTOR = "distractor"  # the group of what was made to be taken for relevant, and is not


@dataclass(frozen=True, eq=False)
class RelevanceLists:
    """Per query the gallery ids of each relevance group, checked on construction.

    query_ids: Q unique names. query_images: Q names of the images that show the queries; may equal `query_ids`.
    groups: group name → per query the gallery ids; "good", "ok", "junk" (Oxford), "easy", "hard", "junk" (revisited)
    or "relevant", "junk"; and "distractor" where some were made. boxes: (Q, 4) float x0, y0, x1, y1 pixels of the query
    in its image, or None; a row of NaN means the whole image. gallery_ids: N unique names, or None where the source
    does not say. positional: ids are positions "0", "1", … in a query list and a gallery that someone else names.
    excluded: ids outside the gallery that predictions may name and that count as junk (the panoramas of MSLS). notes:
    what was left out, in words.

    Raises ValueError that names the query, the rule and the value.
    """

    query_ids: tuple[str, ...]
    query_images: tuple[str, ...]
    groups: Mapping[str, tuple[tuple[str, ...], ...]]
    boxes: np.ndarray | None
    gallery_ids: tuple[str, ...] | None
    positional: bool = False
    excluded: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        groups = {name: tuple(tuple(ids) for ids in lists) for name, lists in self.groups.items()}
        _check_queries(self.query_ids)
        if not groups:
            raise ValueError("groups must hold at least one group, got none")
        lengths = {"query_images": len(self.query_images), **{name: len(lists) for name, lists in groups.items()}}
        for name, length in lengths.items():
            if length != len(self.query_ids):
                raise ValueError(f"{name} must have one entry per query ({len(self.query_ids)}), got {length}")
        for query, lists in zip(self.query_ids, zip(*groups.values(), strict=True), strict=True):
            _check_disjoint(query, dict(zip(groups, lists, strict=True)))
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "boxes", _checked_boxes(self.boxes, self.query_ids))
        _check_gallery(self.gallery_ids, self)

    def name_positions(self, query_ids: Sequence[str], gallery_ids: Sequence[str]) -> RelevanceLists:
        """Replaces positions by the names at those positions; the lists may cover a part of `query_ids` only.

        Raises ValueError where the ids are names already or a position lies outside the names given.
        """
        if not self.positional:
            raise ValueError("name_positions: these lists name their queries and items, nothing is left to name")
        queries = _named("query", self.query_ids, query_ids)
        lists = {
            name: tuple(_named("gallery", ids, gallery_ids) for ids in group) for name, group in self.groups.items()
        }
        changes = {"query_ids": queries, "query_images": queries, "groups": lists, "gallery_ids": tuple(gallery_ids)}
        return replace(self, positional=False, **changes)

    def missing(self, gallery_ids: Iterable[str]) -> tuple[str, ...]:
        """Returns the listed ids that `gallery_ids` lacks, sorted."""
        listed = {item for lists in self.groups.values() for ids in lists for item in ids}
        return tuple(sorted(listed.difference(gallery_ids)))

    def restrict(
        self, gallery_ids: Sequence[str], query_images_available: Collection[str] | None = None
    ) -> RelevanceLists:
        """Drops what the gallery lacks, and the queries whose image is not available; `notes` says how much that was.

        A query that loses all its positives stays. Raises ValueError where no query is left.
        """
        self._require_names("restrict")
        available = set(self.query_images if query_images_available is None else query_images_available)
        keep = [place for place, image in enumerate(self.query_images) if image in available]
        if not keep:
            raise ValueError(f"restrict: none of the {len(self.query_ids)} query images is available")
        before = {name: [lists[place] for place in keep] for name, lists in self.groups.items()}
        gallery = frozenset(gallery_ids)
        groups = {name: tuple(_inside(ids, gallery) for ids in lists) for name, lists in before.items()}
        return replace(
            self,
            query_ids=tuple(self.query_ids[place] for place in keep),
            query_images=tuple(self.query_images[place] for place in keep),
            groups=groups,
            boxes=None if self.boxes is None else self.boxes[keep],
            gallery_ids=tuple(gallery_ids),
            notes=(*self.notes, *_losses(len(self.query_ids) - len(keep), before, groups)),
        )

    def pack(self, gallery_ids: Sequence[str]) -> PackedRelevance:
        """Turns ids into positions in `gallery_ids`.

        Raises ValueError, naming the query, for a listed id that `gallery_ids` lacks (`restrict` drops those).
        """
        from zoo.truth.packing import PackedRelevance

        self._require_names("pack")
        place = _places(gallery_ids)
        groups = {
            name: [_located(query, ids, place) for query, ids in zip(self.query_ids, lists, strict=True)]
            for name, lists in self.groups.items()
        }
        return PackedRelevance(groups, len(place))

    def fingerprint(self) -> str:
        """Hashes queries, boxes, groups and excluded ids to 16 hex digits, whatever the order of queries and ids."""
        boxes = [None] * len(self.query_ids) if self.boxes is None else self.boxes.tolist()
        rows = [
            [query, image, None if box is None or math.isnan(box[0]) else box, self._sorted_groups(place)]
            for place, (query, image, box) in enumerate(zip(self.query_ids, self.query_images, boxes, strict=True))
        ]
        return _hash([sorted(rows, key=lambda row: row[0]), sorted(self.excluded)])

    def _sorted_groups(self, place: int) -> dict[str, list[str]]:
        return {name: sorted(lists[place]) for name, lists in self.groups.items() if lists[place]}

    def _require_names(self, method: str) -> None:
        if self.positional:
            raise ValueError(f"{method}: the ids are positions; name them first by name_positions")


@dataclass(frozen=True, eq=False)
class GradedLists:
    """Per query the gain of each judged gallery item, checked on construction; an item that is not listed gains 0.

    query_ids: Q unique names. gains: Q mappings gallery id → gain ≥ 0. gallery_ids: N unique names, or None where the
    source does not say. notes: what was left out, in words. Raises ValueError that names the query and the value.
    """

    query_ids: tuple[str, ...]
    gains: tuple[Mapping[str, float], ...]
    gallery_ids: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    # What files of gains never state.
    boxes: ClassVar[None] = None
    positional: ClassVar[bool] = False
    excluded: ClassVar[frozenset[str]] = frozenset()

    @property
    def query_images(self) -> tuple[str, ...]:
        """Names of the images that show the queries: the queries' own."""
        return self.query_ids

    def __post_init__(self) -> None:
        _check_queries(self.query_ids)
        if len(self.gains) != len(self.query_ids):
            raise ValueError(f"gains must have one entry per query ({len(self.query_ids)}), got {len(self.gains)}")
        for query, gains in zip(self.query_ids, self.gains, strict=True):
            for item, gain in gains.items():
                if not is_number(gain) or gain < 0:
                    raise ValueError(f"query {query!r}: the gain of {item!r} must be a number ≥ 0, got {gain!r}")
        _check_gallery(self.gallery_ids, self)

    def missing(self, gallery_ids: Iterable[str]) -> tuple[str, ...]:
        """Returns the judged ids that `gallery_ids` lacks, sorted."""
        return tuple(sorted({item for gains in self.gains for item in gains}.difference(gallery_ids)))

    def restrict(self, gallery_ids: Sequence[str], query_ids_available: Collection[str] | None = None) -> GradedLists:
        """Drops judgements on what the gallery lacks, and queries that are not available; `notes` says how many.

        Raises ValueError where no query is left.
        """
        available = set(self.query_ids if query_ids_available is None else query_ids_available)
        keep = [place for place, query in enumerate(self.query_ids) if query in available]
        if not keep:
            raise ValueError(f"restrict: none of the {len(self.query_ids)} queries is available")
        gallery = frozenset(gallery_ids)
        before = [self.gains[place] for place in keep]
        gains = tuple({item: gain for item, gain in row.items() if item in gallery} for row in before)
        notes = _losses(len(self.query_ids) - len(keep), {"judged": before}, {"judged": gains})
        queries = tuple(self.query_ids[place] for place in keep)
        return GradedLists(queries, gains, tuple(gallery_ids), (*self.notes, *notes))

    def pack(self, gallery_ids: Sequence[str]) -> PackedGains:
        """Turns ids into positions in `gallery_ids`.

        Raises ValueError, naming the query, for a judged id that `gallery_ids` lacks (`restrict` drops those).
        """
        from zoo.truth.packing import PackedGains

        place = _places(gallery_ids)
        lists = [
            dict(zip(_located(query, gains, place), gains.values(), strict=True))
            for query, gains in zip(self.query_ids, self.gains, strict=True)
        ]
        return PackedGains(lists, len(place))

    def fingerprint(self) -> str:
        """Hashes queries and positive gains to 16 hex digits, whatever the order of queries and ids."""
        rows = zip(self.query_ids, self.gains, strict=True)
        return _hash(sorted([query, sorted([i, float(g)] for i, g in gains.items() if g > 0)] for query, gains in rows))


def _check_queries(query_ids: Sequence[str]) -> None:
    if not query_ids:
        raise ValueError("query_ids must hold at least one query, got none")
    repeated = first_repeated(query_ids)
    if repeated is not None:
        raise ValueError(f"query_ids must be unique, got {repeated!r} twice")


def _check_disjoint(query: str, groups: Mapping[str, Sequence[str]]) -> None:
    repeated = first_repeated([item for ids in groups.values() for item in ids])
    if repeated is not None:
        homes = [name for name, ids in groups.items() for item in ids if item == repeated]
        raise ValueError(f"query {query!r}: an id may be listed once, got {repeated!r} in {' and '.join(homes)}")


def _check_gallery(gallery_ids: Sequence[str] | None, lists: RelevanceLists | GradedLists) -> None:
    if gallery_ids is None:
        return
    _places(gallery_ids)
    missing = lists.missing(gallery_ids)
    if missing:
        raise ValueError(f"gallery_ids must hold every listed id, {len(missing)} are missing: {', '.join(missing[:3])}")


def _checked_boxes(boxes: Any, query_ids: Sequence[str]) -> np.ndarray | None:
    if boxes is None:
        return None
    array = np.array(boxes, np.float64)
    if array.shape != (len(query_ids), 4):
        raise ValueError(f"boxes must have shape (Q, 4) with Q = {len(query_ids)}, got {array.shape}")
    whole = np.isnan(array).all(axis=1)
    # NaN fails every comparison, so a half-given box is refused as well.
    ordered = (array[:, 0] < array[:, 2]) & (array[:, 1] < array[:, 3]) & np.isfinite(array).all(axis=1)
    for place in np.flatnonzero(~(whole | ordered)):
        raise ValueError(f"query {query_ids[place]!r}: a box needs x0 < x1 and y0 < y1, got {array[place].tolist()}")
    array.setflags(write=False)
    return array


def first_repeated(ids: Sequence[str]) -> str | None:
    """Returns the first id that occurs a second time, None where all are unique."""
    if len(set(ids)) == len(ids):
        return None
    seen: set[str] = set()
    return next(item for item in ids if item in seen or seen.add(item))


def _named(kind: str, positions: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    outside = [text for text in positions if not (text.isdecimal() and int(text) < len(names))]
    if outside:
        raise ValueError(f"{kind} position {outside[0]} lies outside the {len(names)} {kind} names given")
    return tuple(names[int(text)] for text in positions)


def _inside(ids: Sequence[str], gallery: frozenset[str]) -> tuple[str, ...]:
    return tuple(item for item in ids if item in gallery)


def _losses(queries: int, before: Mapping[str, Sequence], after: Mapping[str, Sequence]) -> list[str]:
    """Says in words what a restriction dropped."""
    notes = [f"queries left out because their image is not available: {queries}"] if queries else []
    for name in before:
        total, left = (sum(map(len, lists)) for lists in (before[name], after[name]))
        if left < total:
            notes.append(f"{name} items left out because the gallery lacks them: {total - left} of {total}")
    had, have = (
        [
            any(rows)
            for rows in zip(*(lists for name, lists in side.items() if name not in (JUNK, DISTRACTOR)), strict=True)
        ]
        for side in (before, after)
    )
    if sum(have) < sum(had):
        notes.append(f"queries that have no positive left: {sum(had) - sum(have)}")
    return notes


def _places(gallery_ids: Sequence[str]) -> dict[str, int]:
    place = {item: position for position, item in enumerate(gallery_ids)}
    if len(place) < len(gallery_ids):
        raise ValueError(f"gallery_ids must be unique, got {first_repeated(gallery_ids)!r} twice")
    return place


def _located(query: str, ids: Iterable[str], place: Mapping[str, int]) -> list[int]:
    try:
        return [place[item] for item in ids]
    except KeyError as error:
        raise ValueError(f"query {query!r}: {error.args[0]!r} is listed but not among the gallery ids") from None


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
