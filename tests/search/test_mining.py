"""Mining in tiles against faiss."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from zoo.search import mining


def made_up(count, seed):
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tile", [7, 64, 1000])
def test_tiles_find_what_faiss_finds(monkeypatch, tile):
    monkeypatch.setattr(mining, "_QUERIES", 5)
    monkeypatch.setattr(mining, "_ITEMS", tile)
    queries, gallery = made_up(13, 0), made_up(150, 1)
    places, scores = mining.nearest(queries, gallery, 10)
    unit = [(x / x.norm(dim=1, keepdim=True)).numpy() for x in (queries, gallery)]
    index = faiss.IndexFlatIP(12)
    index.add(unit[1])
    wanted, found = index.search(unit[0], 10)
    assert np.array_equal(places.numpy(), found)
    assert np.allclose(scores.numpy(), wanted, atol=1e-6)


def test_fewer_items_than_asked_for_are_all_returned():
    places, _ = mining.nearest(made_up(2, 0), made_up(3, 1), 10)
    assert sorted(places[0].tolist()) == [0, 1, 2]


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="k must be"):
        mining.nearest(made_up(2, 0), made_up(3, 1), 0)
    with pytest.raises(ValueError, match=r"queries and gallery must be \(Q, D\) and \(N, D\)"):
        mining.nearest(made_up(2, 0), torch.zeros(3, 5), 1)
