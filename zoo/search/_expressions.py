"""Filter expressions of Milvus, with everything that a user may have written in them escaped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zoo.search.rows import wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Milvus Lite knows these only; what pymilvus makes of a list of ids escapes nothing.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def literal(value: str | int | float | bool) -> str:
    """Returns a value as an expression writes it."""
    return f'"{value.translate(_ESCAPES)}"' if isinstance(value, str) else json.dumps(value)


def among(field: str, values: Sequence[str] | Sequence[int]) -> str:
    """Returns the condition that a field has one of some values."""
    return f"{field} in [{', '.join(map(literal, values))}]"


def payload_filter(where: Mapping[str, Any]) -> str | None:
    """Returns the condition that a payload fulfils `where`, "" for an empty one, None where nothing can fulfil it."""
    conditions = []
    for key, values in wanted(where).items():
        if not values:
            return None
        # Not `in`: Milvus Lite 3 knows it for fields only, not for the keys of a JSON field.
        either = " or ".join(f"payload[{literal(key)}] == {literal(value)}" for value in values)
        conditions.append(f"({either})")
    return " and ".join(conditions)
