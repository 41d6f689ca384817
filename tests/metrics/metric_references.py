"""The definitions of the metrics as loops over one query, and inputs on which to compare."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zoo.metrics.functional import ranking

NAN = float("nan")
ELEMENTS = {
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "float16": st.floats(width=16, allow_nan=False),
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    "int32": st.sampled_from([-(2**31), 2**31 - 1, 0, -1, 1]),
    "uint8": st.integers(0, 255),
    "bool": st.booleans(),
    "ties": st.sampled_from([-1.5, -0.0, 0.0, 0.5, math.inf, -math.inf]),
    # Neighbours that float32 can't tell apart.
    "near": st.integers(-3, 3).map(lambda i: -1.0 + i * 2.0**-50),
}
DTYPES = {"ties": "float32", "near": "float64"}


@st.composite
def rankings(draw, max_items=25):
    """Draws scores, relevance and junk, (Q, N) each."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=max_items))
    shape = (min(shape[0], 4), shape[1])
    kind = draw(st.sampled_from(sorted(ELEMENTS)))
    scores = torch.from_numpy(draw(hnp.arrays(DTYPES.get(kind, kind), shape, elements=ELEMENTS[kind])))
    if kind == "float32" and draw(st.booleans()):
        scores = scores.to(torch.bfloat16)
    relevant, ignore = (torch.from_numpy(draw(hnp.arrays(bool, shape))) for _ in range(2))
    return scores, relevant, ignore


@contextmanager
def batched():
    """Makes CPU tensors take the path of the devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_retrieved_by_row", ranking._retrieved_batched)
        patch.setattr(ranking, "_discounted_by_row", ranking._discounted_batched)
        yield


def ranked(scores, values, ignore=None):
    """Lists the values of one query's items in the order of their scores, junk removed."""
    junk = [False] * len(scores) if ignore is None else ignore
    kept = [(-score, place) for place, (score, drop) in enumerate(zip(scores, junk, strict=True)) if not drop]
    return [values[place] for _, place in sorted(kept)]


def average_precision(hits, total, k=None):
    if total == 0:
        return NAN
    found, area = 0, 0.0
    for rank, hit in enumerate(hits[:k], start=1):
        found += hit
        area += hit * found / rank
    return area / (total if k is None else min(k, total))


def trapezoid(hits, total):
    """Walks down the ranking and adds a strip of the precision-recall curve at each item."""
    if total == 0:
        return NAN
    found, area, recall_above, precision_above = 0, 0.0, 0.0, 1.0
    for rank, hit in enumerate(hits, start=1):
        found += hit
        recall, precision = found / total, found / rank
        area += (recall - recall_above) * (precision + precision_above) / 2
        recall_above, precision_above = recall, precision
    return area


def precision(hits, total, k, capped):
    if total == 0:
        return NAN
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    cutoff = min(k, max(ranks)) if capped and len(ranks) == total else k
    return sum(rank <= cutoff for rank in ranks) / cutoff


def recall(hits, total, k, any_hit):
    if total == 0:
        return NAN
    return float(any(hits[:k])) if any_hit else sum(hits[:k]) / total


def discounted(grades, gain, k):
    values = [float(grade) if gain == "linear" else 2.0**grade - 1 for grade in grades]
    return sum(value / math.log2(rank + 1) for rank, value in enumerate(values[:k], start=1))


def ndcg(grades, gain, k=None, everything=None):
    best = discounted(sorted(grades if everything is None else everything, reverse=True), gain, k)
    return discounted(grades, gain, k) / best if best > 0 else NAN


def by_query(function, scores, values, ignore=None, total=None, **settings):
    """Applies one of the definitions to each row; `total` is None, a number, or one per row."""
    found = []
    for q in range(len(scores)):
        row = ranked(scores[q].tolist(), values[q].tolist(), None if ignore is None else ignore[q].tolist())
        extra = [] if function is ndcg else [sum(row) if total is None else int(total[q])]
        found.append(function(row, *extra, **settings))
    return np.array(found)
