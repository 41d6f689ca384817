"""What commands on features and indexes share: the newest of what was written, checks, names of folders, progress."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import check_flags, check_integers
from zoo.commands._ending import usage_errors
from zoo.progress import progress_bar
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger("zoo")


def newest(output_dir: str, kind: str, key: str, how: str) -> Path:
    """Returns the folder in `output_dir`/`kind` that was written last, and says which; UsageError if there is none."""
    from zoo.search.storage import MANIFEST

    folder = Path(output_dir) / kind
    manifests = list(folder.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise UsageError(f"{key} must say which {kind} to use: there are none in {folder}; {how}")
    path = max(manifests, key=lambda manifest: manifest.stat().st_mtime).parent
    others = f", the newest of {len(manifests)} in {folder}" if len(manifests) > 1 else ""
    log.info("%s=%s%s", key, path, others)
    return path


def folder_name(text: str) -> str:
    """Returns a text as the name of a folder that can be typed without quotes."""
    return re.sub(r"[^\w.-]+", "_", text)


def check_count(name: str, value: Any) -> None:
    """Raises UsageError unless `value` is an integer of at least 1."""
    with usage_errors():
        check_integers(1, **{name: value})


def check_switch(name: str, value: Any) -> None:
    """Raises UsageError unless `value` is true or false."""
    with usage_errors():
        check_flags(**{name: value})


def in_blocks(items: Sequence[Any], size: int, doing: str) -> Iterator[Sequence[Any]]:
    """Yields `size` items at a time, showing on stderr how many are done and for how long it still goes on."""
    with progress_bar(doing, len(items)) as advance:
        for start in range(0, len(items), size):
            block = items[start : start + size]
            yield block
            advance(len(block))
