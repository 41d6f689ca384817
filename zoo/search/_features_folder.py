"""A features folder that a run begins or goes on with: whether it may, and what is left to do."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.files import replacing
from zoo.registry import UsageError
from zoo.search._features_shards import Shards
from zoo.search.features import FORMAT, MANIFEST, SHARDS, VERSION, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REFUSED = "choose another out=, or remove that folder"


@dataclass(frozen=True)
class Plan:
    """`todo` are the images to embed, `changed` of them replace older ones; `gone` are embedded and no longer there."""

    todo: list[str]
    changed: list[str]
    gone: list[str]
    run: int


def begin(folder: Path, kinds: Sequence[str], fingerprint: str, about: Mapping[str, Any]) -> None:
    """Makes the folder, or checks that what it holds was made by the same model from the same images in the same way.

    Raises UsageError naming both values and what to do.
    """
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        _compare(folder, manifest["about"], about, manifest["fingerprint"], fingerprint)
    elif folder.exists() and not (folder.is_dir() and all(path.suffix == ".tmp" for path in folder.iterdir())):
        raise UsageError(f"out must be a folder of zoo embed, a new or an empty one, got {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    written = {"format": FORMAT, "version": VERSION, "kinds": list(kinds), "fingerprint": fingerprint, "about": about}
    with replacing(folder / MANIFEST) as file:
        file.write(json.dumps(written, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape"))
    (folder / SHARDS).mkdir(exist_ok=True)  # behind the manifest, without which a folder that isn't empty is refused
    Shards(folder / SHARDS).clean()


def _compare(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], before: str, now: str) -> None:
    new = json.loads(json.dumps(new))  # tuples are lists in a file
    for key in ("roots", "preprocessing"):
        if old.get(key) != new[key]:
            was, asked = differing(old.get(key), new[key])
            raise UsageError(f"out {folder} holds features with {key} {was}, not {asked}: {_REFUSED}")
    if before != now:
        was, asked = (f"{about['model'].get('name')} {about['model'].get('parameters')}" for about in (old, new))
        was, asked = differing(_described(old), _described(new)) if was != asked else ("other weights", "these")
        raise UsageError(
            f"out {folder} holds features of a model with fingerprint {before} ({was}), not {now} ({asked}): {_REFUSED}"
        )


def _described(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": about["model"].get("name"), **(about["model"].get("parameters") or {})}


def differing(old: Any, new: Any) -> tuple[str, str]:
    """Returns both values as text; of mappings, what differs alone."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return tuple(", ".join(f"{key}={side.get(key)}" for key in keys) for side in (old, new))
    return str(old), str(new)


def check_prune(folder: Path, plan: Plan, stamps: Mapping[str, Mapping[str, Any]], roots: Sequence[Path]) -> None:
    """Raises UsageError where all embedded images of a root are gone and no other is there: as on a missing disk."""
    shards = Shards(folder / SHARDS)
    ids, owners, rows = shards.locate()
    gone = set(plan.gone)
    lost = [
        shards.payloads(int(owner))[int(row)]["path"]
        for id_, owner, row in zip(ids, owners, rows, strict=True)
        if id_ in gone
    ]
    there = [stamp["path"] for stamp in stamps.values()]
    for root in roots:
        below = os.path.join(root.absolute(), "")
        if any(path.startswith(below) for path in lost) and not any(path.startswith(below) for path in there):
            raise UsageError(f"prune=true would drop all images of {root}, where there is none now: is the disk there?")


def plan(folder: Path, stamps: Mapping[str, Mapping[str, Any]]) -> Plan:
    """Compares the images that there are, `stamps` id → size and time of its file, with those that shards hold."""
    shards = Shards(folder / SHARDS)
    ids, owners, rows = shards.locate()
    held = {id_: shards.payloads(int(owner))[int(row)] for id_, owner, row in zip(ids, owners, rows, strict=True)}
    changed = [id_ for id_, stamp in stamps.items() if id_ in held and not stamp.items() <= held[id_].items()]
    again = set(changed)
    todo = [id_ for id_ in stamps if id_ not in held or id_ in again]
    return Plan(todo, changed, [id_ for id_ in ids if id_ not in stamps], shards.next_run())
