from __future__ import annotations

import importlib.util

import pytest

from zoo import registry
from zoo.testing import check_index


@pytest.mark.parametrize("name", registry.entries("index"))
def test_every_index_keeps_the_contract(name, tmp_path):
    if name == "milvus":
        for package in ("pymilvus", "milvus_lite"):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed (extra milvus)")
    check_index(name, tmp_path)


def test_a_plugins_index_is_held_to_it_too(plugins, tmp_path):
    check_index("acme_taxi", tmp_path)


@pytest.mark.parametrize(
    ("method", "broken", "clause"),
    [
        ("remove", lambda self, ids: None, "removing what is not there must raise ValueError"),
        ("payloads", lambda self, ids: [{} for _ in ids], "payloads must be those of the ids"),
        ("check_model", lambda self, items, what: None, "items of another model must raise ValueError"),
        (
            "segment",
            lambda self, start: {"vector": -self._rows()[start:]},
            "an opened index must return the same lists",
        ),
    ],
)
def test_a_broken_clause_is_named(method, broken, clause, tmp_path, monkeypatch):
    from zoo.search.indexes.flat import FlatIndex

    monkeypatch.setattr(FlatIndex, method, broken)
    with pytest.raises(AssertionError, match=clause):
        check_index("flat", tmp_path)
