"""`zoo index`: make features searchable."""

from __future__ import annotations

import logging
import os
import random
import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._searching import check_count, check_switch, folder_name, in_blocks, newest
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from zoo.search.features import Features
    from zoo.search.index import Index

log = logging.getLogger("zoo")

_SEED = 0  # of the images that an index learns from


def main() -> None:
    """Runs the command."""
    _app.run("index", index, files="features")


def index(cfg: DictConfig) -> None:
    """Adds what the index lacks, replaces what has changed, commits block by block, and says what there is now."""
    from zoo.commands._setup import usage_errors
    from zoo.search.features import open_features

    check_count("block", cfg.block)
    check_switch("prune", cfg.prune)
    start = time.perf_counter()
    source = cfg.features or newest(cfg.paths.output_dir, "features", "features", "zoo embed FOLDER makes some")
    if not isinstance(source, (str, Path)):
        raise UsageError(f"features must be one folder or file, got {list(source)}")
    features = open_features(source)
    folder = _folder(cfg, features)
    built, before = _opened(cfg, folder, features)
    gone = _gone(built, features, cfg.prune)
    with usage_errors():
        counts = _fill(built, features, folder, before, cfg.block, gone if cfg.prune else ())
    _link_model(features, folder)
    _print(built, folder, counts, time.perf_counter() - start)


def _folder(cfg: DictConfig, features: Features) -> Path:
    if cfg.out is not None:
        return Path(cfg.out).expanduser()
    name = features.path.name if features.path.is_dir() else features.path.stem
    return Path(cfg.paths.output_dir) / "indexes" / folder_name(f"{name}-{cfg.index.name}")


def _opened(cfg: DictConfig, folder: Path, features: Features) -> tuple[Index, dict[str, Any]]:
    """Returns the index, as it is in `folder` or new, and what it says of an earlier run's features.

    Raises UsageError where it is of another kind, of another model, or needs fields that the features lack.
    """
    from zoo.commands import _setup
    from zoo.search.index import open_index
    from zoo.search.storage import MANIFEST, is_unused

    built = _setup.build(cfg.index)
    built.place(folder)
    missing = [field for field in built.needs if field not in features.kinds]
    if missing:
        raise UsageError(
            f"index '{cfg.index.name}' needs {', '.join(built.needs)}; features {features.path} hold "
            f"{', '.join(features.kinds)}: choose another index=, or embed with another model"
        )
    if not (folder / MANIFEST).exists():
        if not is_unused(folder):
            raise UsageError(f"out must be an index, a new or an empty folder, got {folder}")
        return built, {}
    there = open_index(folder)
    _compare(there, built, features, folder)
    return there, dict(there.about.get("features") or {})


def _compare(there: Index, asked: Index, features: Features, folder: Path) -> None:
    from zoo.search._features_folder import differing

    otherwise = "choose another out=, or remove that folder"
    old, new = ({"index": index.registered["name"], **index.registered["parameters"]} for index in (there, asked))
    if old != new:
        was, wanted = differing(old, new)
        raise UsageError(f"out {folder} holds an index with {was}, not {wanted}: {otherwise}")
    if len(there) and there.fingerprint != features.fingerprint:
        raise UsageError(
            f"out {folder} holds vectors of the model {there.fingerprint}, features {features.path} are of "
            f"{features.fingerprint}: {otherwise}"
        )
    old, new = (about.get("preprocessing") for about in (there.about, features.about))
    if len(there) and old != new and old and new:
        was, given = differing(old, new)
        raise UsageError(f"out {folder} holds images with preprocessing {was}, {features.path} {given}: {otherwise}")


def _gone(built: Index, features: Features, prune: bool) -> list[Any]:
    """Returns the items that the features don't hold, after saying what becomes of them.

    Raises UsageError for `prune` where the features hold none of them, as those of other images do.
    """
    from zoo.search._names import named

    held = built.ids
    gone = [id_ for id_ in held if id_ not in features]
    if prune and gone and len(gone) == len(held):
        raise UsageError(f"prune=true would remove all {len(held)} items: features {features.path} hold none of them")
    if gone:
        what = "they are removed" if prune else "they stay: prune=true removes them"
        log.info("%d items of the index aren't in the features (%s); %s", len(gone), named(gone), what)
    return gone


def _fill(
    built: Index, features: Features, folder: Path, before: dict[str, Any], block: int, gone: Sequence[Any]
) -> dict[str, int]:
    """Brings the index up to date and returns how many items were added, replaced, kept and removed.

    Payloads of zoo embed tell which images have changed. Other files say nothing of single items: once such a file
    was written anew, all items that it shares with the index are replaced.
    """
    stamp = _stamp(features.path)
    anew = bool(before) and (before["stamp"] != stamp or before["state"] == "replacing")
    state = {"path": str(features.path.absolute()), "stamp": stamp, "state": "replacing" if anew else "adding"}
    counts = {"added": 0, "replaced": 0, "kept": 0, **({"removed": len(gone)} if gone else {})}
    if built.immediate and not before:  # a killed build must find the collection again
        built.save(folder, {**features.about, "features": state})
    _train(built, features)
    pending = 0
    for ids in in_blocks(features.ids, min(block, built.largest_block or block), "indexing"):
        held = built.known(ids)
        known = set(held)
        added = [id_ for id_ in ids if id_ not in known]
        replaced = held if anew else _changed(built, features, held)
        for todo, change in ((added, built.add), (replaced, built.replace)):
            if todo:
                change(todo, features.get(todo), features.payloads(todo))
        counts["added"] += len(added)
        counts["replaced"] += len(replaced)
        counts["kept"] += len(held) - len(replaced)
        pending += len(added) + len(replaced)
        if pending >= block and built.ready:
            built.save(folder, {**features.about, "features": state})
            pending = 0
    if gone:  # last, with the commit that completes the rest
        built.remove(gone)
    if gone or counts["added"] or counts["replaced"] or before.get("state") != "complete":
        built.save(folder, {**features.about, "features": {**state, "state": "complete"}})
    return counts


def _train(built: Index, features: Features) -> None:
    """Lets a new index learn from images drawn from all of the features, where it wants to."""
    wanted = 0 if len(built) or not len(features) else min(built.sample_size(features.rows([0])), len(features))
    if wanted:
        log.info(
            "the index learns from %s of %s images, which may take a minute or two", f"{wanted:,}", f"{len(features):,}"
        )
        built.train(features.rows(sorted(random.Random(_SEED).sample(range(len(features)), wanted))))


def _stamp(path: Path) -> str | None:
    """Returns what tells whether a file was written anew; a folder's images tell that themselves."""
    return f"{path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else None


def _changed(built: Index, features: Features, ids: list[Any]) -> list[Any]:
    pairs = zip(ids, built.payloads(ids), features.payloads(ids), strict=True)
    return [id_ for id_, old, new in pairs if old != new]


def _link_model(features: Features, folder: Path) -> None:
    """Puts the model beside the index, so that a search needs nothing else; a link where that can be had."""
    from zoo.search.features import MODEL

    source, target = features.model_file, folder / MODEL
    if source is None or (target.exists() and target.samefile(source)):
        return
    temporary = folder / f".{MODEL}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _print(built: Index, folder: Path, counts: dict[str, int], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo.search.features import MODEL

    row = {"items": f"{len(built):,}", **{what: f"{count:,}" for what, count in counts.items()}}
    if len(built):
        items = built.get(built.ids[:1])
        row["dimension"] = str(getattr(items, built.needs[0]).shape[-1])
        if items.local_codes is not None:
            codes = items.local_codes[0]
            log.info("local maps: %d x %d codes of %d B, %.1f KB an item", *codes.shape, codes.numel() / 1e3)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MODEL]
    row |= {
        "kind": built.registered["name"],
        "on disk": f"{sum(path.stat().st_size for path in files) / 1e6:,.1f} MB",
        "seconds": f"{seconds:.1f}",
    }
    table = Table(*row)
    table.add_row(*row.values())
    Console().print(table)
    pictures = (folder / MODEL).is_file() and "data" in built.about  # else none can be described
    how = "PICTURE" if pictures else "query_id=ID"
    log.info("written: %s; next: zoo search %s %s", folder, how, shlex.quote(f"index_path={folder}"))


if __name__ == "__main__":
    main()
