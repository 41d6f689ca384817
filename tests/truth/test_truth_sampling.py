from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from zoo.truth import sample_clevr_graphs

MANY = 6_000


@pytest.fixture(scope="module")
def sampled():
    return sample_clevr_graphs(MANY, seed=0)


def test_counts_and_attributes_are_those_of_the_real_scenes(sampled, all_clevr_graphs):
    """Both agree with uniform draws, at 1 in 10,000; sizes are compared with each other: large objects fit worse."""
    for graphs in (sampled, all_clevr_graphs):
        assert chisquare(np.bincount(graphs.sizes)[3:]).pvalue > 1e-4
        for column, words in ((0, 8), (1, 3), (2, 2)):
            assert chisquare(np.bincount(graphs.attributes[:, column], minlength=words)).pvalue > 1e-4
    small = [(graphs.attributes[:, 3] == 0).mean() for graphs in (sampled, all_clevr_graphs)]
    assert abs(small[0] - small[1]) < 4 * np.sqrt(0.25 / len(all_clevr_graphs.attributes))
    assert min(small) > 0.5


def test_every_pair_is_related_once_as_in_the_real_scenes(sampled, all_clevr_graphs):
    for graphs in (sampled, all_clevr_graphs):
        edges = np.bitwise_count(graphs.adjacency).sum(axis=0)
        assert edges.tolist() == [(graphs.sizes * (graphs.sizes - 1) // 2).sum()] * 2
        assert graphs.antisymmetric == (0, 1)


def agreement(graphs):
    """Share of pairs that are right of and in front of each other the same way round, per graph."""
    shares = []
    for graph in graphs[:1_500]:
        right, front = ({(i, j) for i, j, r in graph.edges.tolist() if r == relation} for relation in (0, 1))
        shares.append(len(right & front) / len(right))
    return np.array(shares)


def test_right_and_front_are_as_independent_as_in_the_real_scenes(sampled, all_clevr_graphs):
    own, real = agreement(sampled), agreement(all_clevr_graphs)
    error = np.hypot(own.std(), real.std()) / np.sqrt(1_500)
    assert abs(own.mean() - real.mean()) < 4 * error
    assert own.std() == pytest.approx(real.std(), rel=0.1)


def test_a_seed_gives_the_same_graphs_again(sampled):
    again, other = sample_clevr_graphs(50, seed=3), sample_clevr_graphs(50, seed=4)
    assert again.fingerprint == sample_clevr_graphs(50, seed=3).fingerprint != other.fingerprint


def test_fewer_than_one_is_refused():
    with pytest.raises(ValueError, match="graphs must be at least 1, got 0"):
        sample_clevr_graphs(0, seed=0)
