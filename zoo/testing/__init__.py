"""Contract tests for what has a name in the zoo, its own and that of plugin authors: a check for every kind.

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
    "check_benchmark": "benchmarks",
    "check_data": "data",
    "check_index": "indexes",
    "check_metric": "metrics",
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
