from __future__ import annotations

import pytest
import torch

import zoo
from zoo.testing import check_index
from zoo.types import Representation


def test_contract(tmp_path):
    check_index("acme_taxi", tmp_path)


def test_scores_are_distances_in_units_of_the_scale():
    index = zoo.create("index", "acme_taxi", scale=2.0)
    index.add(["far", "near"], Representation(vector=torch.tensor([[4.0, 2.0], [1.0, 1.0]])))
    ranking = index.search(Representation(vector=torch.zeros(1, 2)), k=2)[0]
    assert ranking.ids == ["near", "far"]
    assert ranking.scores.tolist() == [-1, -3]


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        zoo.create("index", "acme_taxi", scale=0)
