"""What `zoo index` does to an index: learn, add, replace, remove, commit."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

from zoo.commands._searching import in_blocks
from zoo.registry import UsageError
from zoo.search.captions import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from zoo.search.features import Features
    from zoo.search.index import Index
    from zoo.types import Representation

log = logging.getLogger("zoo")

_SEED = 0  # of the images that an index learns from


def gone(built: Index, features: Features, prune: bool) -> list[Any]:
    """Returns the items that the features don't hold, after saying what becomes of them.

    Raises UsageError for `prune` where the features hold none of them, as those of other images do.
    """
    from zoo.search._names import named

    held = built.ids
    lost = [id_ for id_ in held if id_ not in features]
    if prune and lost and len(lost) == len(held):
        raise UsageError(f"prune=true would remove all {len(held)} items: features {features.path} hold none of them")
    if lost:
        what = "they are removed" if prune else "they stay: prune=true removes them"
        log.info("%d items of the index aren't in the features (%s); %s", len(lost), named(lost), what)
    return lost


def fill(
    built: Index,
    features: Features,
    folder: Path,
    before: dict[str, Any],
    block: int,
    lost: Sequence[Any],
    captions: str | None,
) -> dict[str, int]:
    """Brings the index up to date and returns how many items were added, replaced, kept and removed.

    `captions`, the file of which images have theirs, is only noted for the next run; images keep what they have.

    Payloads of zoo embed tell which images have changed. Other files say nothing of single items: once such a file
    was written anew, all items that it shares with the index are replaced.
    """
    stamp = _stamp(features.path)
    anew = bool(before) and (before["stamp"] != stamp or before["state"] == "replacing")
    state = {"path": str(features.path.absolute()), "stamp": stamp, "state": "replacing" if anew else "adding"}
    about = {**features.about, **({} if captions is None else {KEY: captions})}
    counts = {"added": 0, "replaced": 0, "kept": 0, **({"removed": len(lost)} if lost else {})}
    if built.immediate and not before:  # a killed build must find the collection again
        built.save(folder, {**about, "features": state})
    if _train(built, features):
        built.fingerprint = features.fingerprint  # what it has learnt is of this model, before there is any item
        built.save(folder, {**about, "features": state})  # what was learnt is kept, whatever comes
    pending = 0
    for ids in in_blocks(features.ids, min(block, built.largest_block or block, features.at_once or block), "indexing"):
        held = built.known(ids)
        known = set(held)
        added = [id_ for id_ in ids if id_ not in known]
        replaced = held if anew else _changed(built, features, held)
        changes = {"added": (added, built.add), "replaced": (replaced, built.replace)}
        for what, (todo, change) in changes.items():
            done, items, payloads = features.described(todo) if todo else ([], None, [])
            if done:
                change(done, items, payloads if what == "added" else _captioned(payloads, built.payloads(done)))
            counts[what] += len(done)
        counts["kept"] += len(held) - len(replaced)
        pending += len(added) + len(replaced)
        if pending >= block and built.ready:
            built.save(folder, {**about, "features": state})
            pending = 0
    if lost:  # last, with the commit that completes the rest
        built.remove(lost)
    if lost or counts["added"] or counts["replaced"] or before.get("state") != "complete":
        built.save(folder, {**about, "features": {**state, "state": "complete"}})
    return counts


def _train(built: Index, features: Features) -> bool:
    """Lets a new index learn from images drawn from all of the features, where it wants to; tells whether it has."""
    one = None if len(built) else _first(features)
    wanted = 0 if one is None else min(built.sample_size(one), len(features))
    if wanted:
        log.info(
            "the index learns from %s of %s images before any is added",
            f"{wanted:,}",
            f"{len(features):,}",
        )
        places = sorted(random.Random(_SEED).sample(range(len(features)), wanted))
        ids = [features.ids[place] for place in places]
        stamp = f"{features.fingerprint} {hashlib.sha256(repr(ids).encode()).hexdigest()}"
        size = min(built.largest_block or wanted, features.at_once or wanted)

        def blocks(start: int) -> Iterator[Representation]:
            for some in in_blocks(ids[start:], size, "describing a sample"):
                _, items, _ = features.described(some)
                if items is not None:
                    yield items

        built.learn(wanted, blocks, stamp)
    return bool(wanted)


def _first(features: Features) -> Representation | None:
    """Returns the first image that can be read."""
    described = (features.described([id_])[1] for id_ in features.ids)
    return next((one for one in described if one is not None), None)


def _stamp(path: Path) -> str | None:
    """Returns what tells whether a file was written anew; a folder's images tell that themselves."""
    return f"{path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else None


def _changed(built: Index, features: Features, ids: list[Any]) -> list[Any]:
    pairs = zip(ids, built.payloads(ids), features.payloads(ids), strict=True)
    return [id_ for id_, old, new in pairs if not features.same(_without_captions(old), new)]


def _without_captions(payload: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != KEY}


def _captioned(payloads: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns payloads with the captions that those before had."""
    return [
        {**new, **{key: value for key, value in old.items() if key == KEY}}
        for new, old in zip(payloads, before, strict=True)
    ]


def keep_model(features: Features, folder: Path) -> None:
    """Puts the model beside the index, so that a search needs nothing else; a link where that can be had."""
    from zoo import checkpoints
    from zoo.search.features import MODEL
    from zoo.search.live import LiveFeatures

    source, target = features.model_file, folder / MODEL
    if isinstance(features, LiveFeatures):
        features.tell_unreadable()
        if not target.is_file():  # else it is this model's: the index has compared fingerprints
            checkpoints.save_weights(features.model, target)
        return
    if source is None or (target.exists() and target.samefile(source)):
        return
    temporary = folder / f".{MODEL}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
