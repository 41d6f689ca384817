"""Names of images in messages and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = 5  # images that a message names


def one_line(text: str) -> str:
    """Returns a text in which line ends, and whatever else can't be shown, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def named(ids: Sequence[Any]) -> str:
    """Returns the first few names, for a message."""
    return ", ".join(one_line(str(id_)) for id_ in ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
