"""The nearest of distances that come block by block are those of a stable sort of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.search.top import _SAMPLE, Nearest


def found_in_blocks(distances, k, block):
    best = Nearest(k)
    for start in range(0, len(distances), block):
        best.add(distances[start : start + block], start)
    return best.found()


def assert_nearest(distances, k, block):
    order = distances.argsort(kind="stable")
    order = order[np.isfinite(distances[order])][:k]
    positions, found = found_in_blocks(distances, k, block)
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(found, distances[order])


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0, np.inf]), max_size=40), st.integers(1, 12), st.integers(1, 50))
def test_ties_keep_their_order_and_infinite_ones_stay_out(distances, k, block):
    assert_nearest(np.array(distances, np.float32), k, block)


@pytest.mark.parametrize("k", [1, 100, _SAMPLE, 3 * _SAMPLE])
@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal", "few values", "mostly left out"])
def test_of_many(order, k):
    distances = np.random.default_rng(0).random(50_000).astype(np.float32)
    distances = {
        "random": distances,
        "rising": np.sort(distances),
        "falling": np.sort(distances)[::-1],
        "equal": np.zeros_like(distances),
        "few values": np.floor(5 * distances),
        "mostly left out": np.where(distances < 0.999, np.inf, distances).astype(np.float32),
    }[order]
    assert_nearest(distances, k, 20_001)
