"""Search: indexes, features on disk, query expansion, re-ranking; each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Pipeline": "pipeline",
    "ProductQuantizer": "quantizer",
    "augment_database": "expansion",
    "expand_query": "expansion",
    "find_object": "geometry",
    "match_keypoints": "geometry",
    "open_features": "features",
    "open_index": "index",
    "rank_fusion": "fusion",
    "regional_qe": "expansion",
    "superglobal": "refinement",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.search' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.search.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
