"""Gives the images of an index their captions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands._searching import in_blocks, log
from zoo.registry import UsageError
from zoo.search.captions import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.search.caption_files import Captions
    from zoo.search.features import Features
    from zoo.search.index import Index

_BLOCK = 10_000  # payloads that are read at a time


def captions_file(asked: Any, built: Index) -> str | None:
    """Returns the file that was named, or the one that an earlier run was told if it is still there, else None.

    Raises UsageError for an index that can't be searched by text.
    """
    if asked is None:
        known = dict(built.about).get(KEY)
        if known is not None and not Path(known).is_file():
            log.warning("captions: %s is gone; images keep what captions they have, new ones get none", known)
            return None
        return known
    if not isinstance(asked, str):
        raise UsageError(f"captions must be one file, got {asked}")
    if not built.reads_captions:
        name = built.registered["name"]
        raise UsageError(f"captions are for an index that text can search, which {name} can't: choose another index=")
    return str(Path(asked).expanduser().resolve())


def check_some_fit(captions: Captions, *places: Index | Features) -> None:
    """Raises UsageError where a file knows none of the images of these places, before anything is written."""
    from zoo.search._names import named

    for place in places:
        ids = list(place.ids)
        for start in range(0, len(ids), _BLOCK):
            block = ids[start : start + _BLOCK]
            pairs = zip(block, place.payloads(block), strict=True)
            if any(captions.find(id_, payload.get("path")) is not None for id_, payload in pairs):
                return
    there, known = named(ids), named(captions.files)
    raise UsageError(f"captions must name images of the index, such as {there}, got {len(captions)} of {known}")


def attach(built: Index, captions: Captions, file: str) -> int:
    """Puts captions into the payloads of the items that have some; returns how many payloads have changed.

    Says of how many images file and index don't share. Items that the file doesn't know lose what captions they had;
    of several items that fit the same image none gets any.
    """
    from zoo.search._names import named

    ids = built.ids
    owners = _owners(built, captions, ids)
    changed, without = 0, []
    for block in in_blocks(ids, _BLOCK, "captions"):
        todo = {}
        for id_, payload in zip(block, built.payloads(block), strict=True):
            texts = captions.texts[owners[id_]] if id_ in owners else []
            without += [] if texts else [id_]
            if texts != payload.get(KEY, []):
                rest = {key: value for key, value in payload.items() if key != KEY}
                todo[id_] = {**rest, **({KEY: texts} if texts else {})}
        if todo:
            built.annotate(list(todo), list(todo.values()))
        changed += len(todo)
    log.info("captions: %s of %s images have some", f"{len(ids) - len(without):,}", f"{len(ids):,}")
    if without:
        log.warning("captions: %s images have none (%s)", f"{len(without):,}", named(without))
    taken = set(owners.values())
    unused = [captions.files[number] for number, texts in enumerate(captions.texts) if texts and number not in taken]
    if unused:
        log.warning("captions: those of %s images fit no image of the index (%s)", f"{len(unused):,}", named(unused))
    return changed


def _owners(built: Index, captions: Captions, ids: Sequence[Any]) -> dict[Any, int]:
    """Returns id → number of its captions, for those that have some of their own; says which share theirs."""
    from zoo.search._names import named

    numbers = {}
    for start in range(0, len(ids), _BLOCK):
        block = ids[start : start + _BLOCK]
        for id_, payload in zip(block, built.payloads(block), strict=True):
            number = captions.find(id_, payload.get("path"))
            if number is not None:
                numbers[id_] = number
    counts = Counter(numbers.values())
    shared = [id_ for id_, number in numbers.items() if counts[number] > 1]
    if shared:
        log.warning(
            "captions: %s images share the file name by which theirs are found, and get none (%s): name them by id or "
            "path",
            f"{len(shared):,}",
            named(shared),
        )
    return {id_: number for id_, number in numbers.items() if counts[number] == 1}
