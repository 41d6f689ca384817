"""Contract tests for the zoo's own models, indexes and re-rankers, and for plugin authors.

A plugin's whole test may be:

    from zoo.testing import check_model

    def test_my_model(tmp_path):
        check_model("acme_rank", tmp_path)
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "check_affinity": "affinities",
    "check_index": "indexes",
    "check_model": "models",
    "check_reranker": "rerankers",
    "check_signature": "models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.testing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
