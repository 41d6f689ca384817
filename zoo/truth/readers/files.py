"""What readers share: errors that begin with the file's name, and JSON in which no key may occur twice."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts `path` in front of the message of any ValueError raised inside, a malformed CSV's too."""
    try:
        yield
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error


def read_json(path: Path) -> Any:
    """Reads JSON; raises ValueError where it is damaged or a key occurs twice in one object."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply to be read as JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python keeps the last of equal keys and drops the others, which would change the truth without a word.
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"a key may occur once in an object, got {key!r} twice")
        seen[key] = value
    return seen
