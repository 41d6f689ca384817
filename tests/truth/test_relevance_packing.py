from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.truth.packing import PackedGains, PackedRelevance

WIDTH = 7


@st.composite
def relevance(draw):
    """Draws two or three disjoint groups over some queries, rows to ask for and a shortlist with padding."""
    queries = draw(st.integers(1, 5))
    assigned = draw(
        st.lists(
            st.lists(st.sampled_from(["", "good", "ok", "junk"]), min_size=WIDTH, max_size=WIDTH), min_size=queries
        )
    )
    groups = {
        name: [draw(st.permutations([item for item in range(WIDTH) if row[item] == name])) for row in assigned]
        for name in ("good", "ok", "junk")
    }
    rows = draw(st.lists(st.integers(0, len(assigned) - 1), max_size=6))
    k = draw(st.integers(0, 9))
    items = [draw(st.lists(st.integers(-1, WIDTH - 1), min_size=k, max_size=k)) for _ in rows]
    names = draw(st.lists(st.sampled_from(["good", "ok", "junk"]), min_size=1, max_size=3))
    return groups, rows, np.array(items, np.int64).reshape(len(rows), k), names


@given(relevance())
def test_a_mask_is_set_membership(drawn):
    groups, rows, items, names = drawn
    packed = PackedRelevance(groups, WIDTH)
    listed = [{item for name in names for item in groups[name][row]} for row in rows]
    dense = packed.mask(names, np.array(rows, np.int64))
    assert dense.dtype == torch.bool
    assert dense.shape == (len(rows), WIDTH)
    assert dense.tolist() == [[item in ids for item in range(WIDTH)] for ids in listed]
    short = packed.mask(names, torch.tensor(rows, dtype=torch.int64), torch.from_numpy(items))
    assert short.shape == items.shape
    assert short.tolist() == [[item in ids for item in asked] for ids, asked in zip(listed, items, strict=True)]


@given(relevance())
def test_counts(drawn):
    groups, _, _, names = drawn
    counts = PackedRelevance(groups, WIDTH).count(names)
    assert counts.dtype == torch.int64
    queries = range(len(groups["good"]))
    assert counts.tolist() == [sum(len(groups[name][query]) for name in set(names)) for query in queries]


@given(relevance(), st.data())
def test_gains_are_looked_up(drawn, data):
    groups, rows, items, _ = drawn
    gain = st.floats(0, 10, width=32)
    lists = [{item: data.draw(gain) for item in ids} for ids in groups["good"]]
    packed = PackedGains(lists, WIDTH)
    dense = packed.gains(np.array(rows, np.int64))
    assert dense.dtype == torch.float64
    assert dense.shape == (len(rows), WIDTH)
    assert dense.tolist() == [[lists[row].get(item, 0) for item in range(WIDTH)] for row in rows]
    short = packed.gains(np.array(rows, np.int64), torch.from_numpy(items))
    assert short.shape == items.shape
    assert short.tolist() == [[lists[row].get(i, 0) for i in asked] for row, asked in zip(rows, items, strict=True)]
    for k in (1, 3, WIDTH + 2):
        best = [(sorted(gains.values(), reverse=True) + [0.0] * k)[:k] for gains in lists]
        assert packed.ideal(k).tolist() == best


def test_what_does_not_exist_is_refused():
    packed = PackedRelevance({"good": [[1], [0]], "junk": [[], [2]]}, 3)
    assert packed.names == ("good", "junk")
    with pytest.raises(ValueError, match=r"groups \['good', 'junk'\], got \['easy'\]"):
        packed.mask(["easy"], np.array([0]))
    with pytest.raises(ValueError, match=r"names must be some of the groups"):
        packed.count([])
    with pytest.raises(ValueError, match=r"rows must lie in 0 … 1, got -1 … 0"):
        packed.mask(["good"], np.array([0, -1]))
    with pytest.raises(ValueError, match=r"rows must be integers, got float64"):
        packed.mask(["good"], np.array([0.5]))
    with pytest.raises(ValueError, match=r"items must lie in -1 … 2, got 0 … 3"):
        packed.mask(["good"], np.array([0]), torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match=r"items must have shape \(q, K\) with q = 1 rows, got \(2, 1\)"):
        packed.mask(["good"], np.array([0]), torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match=r"positions must lie in 0 … 2, got 3 … 3"):
        PackedRelevance({"good": [[3]]}, 3)
    with pytest.raises(ValueError, match=r"rows must lie in 0 … 0, got 1 … 1"):
        PackedGains([{0: 1.0}], 1).gains(np.array([1]))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        PackedGains([{0: 1.0}], 1).ideal(0)


def test_memory_follows_what_is_listed():
    wide = PackedRelevance({"relevant": [[10**9 - 1], [0, 5]]}, 10**9)
    items = torch.tensor([[10**9 - 1, -1, 0], [0, 5, 10**9 - 1]])
    assert wide.mask(["relevant"], np.array([0, 1]), items).tolist() == [[True, False, False], [True, True, False]]


def test_a_block_of_masks_takes_milliseconds():
    chance = np.random.default_rng(0)
    packed = PackedRelevance({"relevant": [chance.choice(5000, 50, replace=False) for _ in range(500)]}, 5000)
    rows = np.arange(500)
    times = []
    for _ in range(5):
        start = time.process_time()
        packed.mask(["relevant"], rows)
        times.append(time.process_time() - start)
    assert min(times) < 0.05  # measured: 1 ms
