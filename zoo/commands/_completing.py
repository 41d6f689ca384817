"""What the tab key offers where Hydra reads the command line: from the YAMLs alone, in a third of Hydra's time."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Any

from zoo import config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_FLAGS = ("--help", "--hydra-help", "--multirun", "--cfg", "--info", "--resolve", "--package")
_NO_KEYS = {"_target_", "_convert_", "kind", "name", "defaults", "hydra"}


def candidates(verb: str, before: Sequence[str], word: str) -> list[str]:
    """Returns what `word` may become behind the words `before`: flags, groups, their options, keys, files."""
    if word.startswith("-"):
        return [flag for flag in _FLAGS if flag.startswith(word)]
    main = _read(config.conf_dir() / f"{verb}.yaml")
    chosen = _chosen(main, before)
    key, equals, value = word.partition("=")
    if not equals:
        offered = {*(f"{group}=" for group in chosen), *(f"{each}=" for each in _keys(main, chosen))}
        return sorted({_cut(each, len(word)) for each in offered if each.startswith(word)})
    if key in chosen:
        done, _, begun = value.rpartition("," if "," in value else "[")
        start = value[: len(value) - len(begun)] if done or value.startswith("[") else ""
        return [f"{key}={start}{name}" for name in config.options(key) if name.startswith(begun)]
    return [f"{key}={path}{'/' if os.path.isdir(path) else ''}" for path in sorted(glob.glob(f"{glob.escape(value)}*"))]


def _cut(offered: str, length: int) -> str:
    """Returns a key up to its next dot: one level at a time."""
    dot = offered.find(".", length)
    return offered if dot < 0 else offered[: dot + 1]


def _chosen(main: dict[str, Any], before: Sequence[str]) -> dict[str, list[str]]:
    """Returns group → the names that are chosen: by the command's defaults, the experiment's, the words so far."""
    chosen = dict(_defaults(main))
    typed = {}
    for word in before:
        key, _, value = word.partition("=")
        if key in chosen:
            typed[key] = [name for name in value.strip("[]").split(",") if name]
    for name in typed.get("experiment", []):
        node = _read(config.config_file("experiment", name))
        chosen |= {group: names for group, names in _defaults(node) if group in chosen}
    return {**chosen, **typed}


def _defaults(node: dict[str, Any]) -> Iterable[tuple[str, list[str]]]:
    """Yields group and names of a defaults list."""
    for entry in node.get("defaults", []):
        for key, names in entry.items() if isinstance(entry, dict) else ():
            group = key.removeprefix("override ").removeprefix("optional ").lstrip("/")
            yield group, names if isinstance(names, list) else [] if names is None else [names]


def _keys(main: dict[str, Any], chosen: dict[str, list[str]]) -> Iterable[str]:
    """Yields every key, with dots, of the command's own config and of what is chosen."""
    yield from _flat(main, "")
    for group, names in chosen.items():
        for name in names:
            path = config.config_file(group, name)
            if path is None or group in ("hydra", "experiment"):
                continue
            node = _read(path)
            for former in (each for each in node.get("defaults", []) if isinstance(each, str)):
                node = {**_read(config.config_file(group, former)), **node}
            yield from _flat(node, f"{_package(path, group)}.")


def _flat(node: dict[str, Any], prefix: str) -> Iterable[str]:
    for key, value in node.items():
        if prefix.count(".") < 2 and key in _NO_KEYS:
            continue
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


def _package(path: Path, group: str) -> str:
    with path.open(encoding="utf-8") as lines:
        first = lines.readline().strip()
    return first.removeprefix("# @package ") if first.startswith("# @package ") else group


def _read(path: Path | None) -> dict[str, Any]:
    """Returns a YAML as plain values; nothing for a file that isn't there or can't be read."""
    import yaml

    try:
        text = "" if path is None else path.read_text(encoding="utf-8")
        node = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return {}
    return node if isinstance(node, dict) else {}
