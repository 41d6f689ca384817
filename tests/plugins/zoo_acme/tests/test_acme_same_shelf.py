from __future__ import annotations

import numpy as np
import pytest

import zoo
from zoo.testing import check_reranker


def test_contract():
    check_reranker("acme_same_shelf")


def test_hits_of_the_same_shelf_come_first():
    rerank = zoo.create("reranker", "acme_same_shelf", bonus=0.5)
    hits = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    shelves = [{"id": name, "shelf": shelf} for name, shelf in zip("abc", (1, 2, 2), strict=True)]
    found = rerank([1.0, 0.0], hits, {"shelf": 2}, shelves)
    assert list(found.ids) == ["b", "a", "c"]
    assert found.scores.tolist() == pytest.approx([1.3, 1.0, 0.5])
    assert [shown["same shelf"] for shown in found.evidence] == [True, False, True]
    assert list(rerank([1.0, 0.0], hits, None, shelves).ids) == ["a", "b", "c"]
