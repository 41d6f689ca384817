from __future__ import annotations

import numpy as np

import zoo
from zoo.testing import check_affinity


def test_contract():
    check_affinity("acme_floor")


def test_a_model_is_built_with_it_and_reads_floors():
    model = zoo.create_model("gnn_rerank", projection=None, anchors=3, width=8, heads=2, affinities=["acme_floor"])
    hits = np.random.default_rng(0).normal(size=(5, 12))
    order, _ = model.eval().rerank(hits[0], hits, {"floor": [1, 1, 2, 5, 1]})
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
