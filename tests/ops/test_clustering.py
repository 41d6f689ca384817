"""Global k-means against a literal transcription, scikit-learn's Lloyd from the same start, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from zoo.ops.clustering import global_kmeans

SEEDS = st.integers(0, 200)


def cloud(seed, count=120, groups=4):
    rng = np.random.default_rng(seed)
    middles = rng.uniform(0, 500, (groups, 2))
    return middles[rng.integers(0, groups, count)] + rng.normal(0, 30, (count, 2))


def inertia(points, labels, centres):
    return ((points - centres[labels]) ** 2).sum()


def literal(points, clusters):
    """Transcribes the fast variant: the start of each new centre by loops, Lloyd by scikit-learn."""
    centres = points.mean(0, keepdims=True)
    for _ in range(clusters - 1):
        nearest = np.min([((points - centre) ** 2).sum(1) for centre in centres], axis=0)
        gains = [sum(max(d - ((p - q) ** 2).sum(), 0) for d, p in zip(nearest, points, strict=True)) for q in points]
        start = np.vstack([centres, points[int(np.argmax(gains))]])
        fitted = KMeans(len(start), init=start, n_init=1, tol=0, algorithm="lloyd", max_iter=300).fit(points)
        centres = fitted.cluster_centers_
    return centres


@settings(max_examples=8)
@given(SEEDS, st.integers(2, 4))
def test_equals_the_definition(seed, clusters):
    points = cloud(seed, count=60)
    labels, centres = (part.numpy() for part in global_kmeans(torch.from_numpy(points), clusters))
    np.testing.assert_allclose(centres, literal(points, clusters), rtol=1e-6)
    assert np.array_equal(labels, ((points[:, None] - centres) ** 2).sum(2).argmin(1))


@settings(max_examples=10)
@given(SEEDS)
def test_scikit_learn_finds_nothing_to_improve(seed):
    points = cloud(seed)
    labels, centres = (part.numpy() for part in global_kmeans(torch.from_numpy(points), 3))
    again = KMeans(3, init=centres, n_init=1, tol=0, algorithm="lloyd").fit(points)
    assert again.inertia_ == pytest.approx(inertia(points, labels, centres), rel=1e-9)


def test_clear_groups_are_found():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(middle, 3, (50, 2)) for middle in ((0, 0), (100, 0), (0, 100))])
    labels, _ = global_kmeans(torch.from_numpy(points), 3)
    groups = labels.view(3, 50)
    assert (groups == groups[:, :1]).all()
    assert len(set(groups[:, 0].tolist())) == 3


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 5))
def test_more_clusters_never_fit_worse_and_repeat_exactly(seed, clusters):
    points = torch.from_numpy(cloud(seed))
    fewer, more = (global_kmeans(points, count) for count in (clusters, clusters + 1))
    assert inertia(points, *more) <= inertia(points, *fewer) * (1 + 1e-12)
    again = global_kmeans(points.clone(), clusters)
    assert all(torch.equal(old, new) for old, new in zip(fewer, again, strict=True))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=8), st.integers(1, 4))
def test_repeated_and_few_points(points, clusters):
    labels, centres = global_kmeans(torch.tensor(points, dtype=torch.float32).reshape(-1, 2), clusters)
    assert len(labels) == len(points)
    assert len(centres) <= min(clusters, len(set(points)))
    assert centres.isfinite().all()
    assert sorted(set(labels.tolist())) == list(range(len(centres)))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"points must be \(N, D\), got shape \(4,\)"):
        global_kmeans(torch.zeros(4), 2)
    with pytest.raises(ValueError, match="clusters must be at least 1, got 0"):
        global_kmeans(torch.zeros(4, 2), 0)
