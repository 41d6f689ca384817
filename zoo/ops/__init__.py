"""Functions on tensors that models share; each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "relate_pairs": "relations",
    "rmac": "pooling",
    "rmac_regions": "pooling",
    "soft_spearman_loss": "losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.ops' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.ops.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
