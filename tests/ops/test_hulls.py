"""Hulls and their cells against SciPy and Shapely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from shapely import MultiPoint, Point, Polygon

from zoo.ops.hulls import convex_hull, covered_cells, power_set_hulls, simplified

GRID_POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)


def cloud(seed, count=80):
    return np.random.default_rng(seed).normal((60, 40), (25, 15), (count, 2))


@settings(max_examples=50)
@given(st.integers(0, 500), st.integers(3, 60))
def test_the_hull_is_scipys(seed, count):
    points = cloud(seed, count)
    expected = ConvexHull(points)
    hull = convex_hull(points)
    assert {tuple(corner) for corner in hull} == {tuple(corner) for corner in points[expected.vertices]}
    assert Polygon(hull).area == pytest.approx(expected.volume)


@given(GRID_POINTS)
def test_points_on_sides_and_equal_points_are_no_corners(points):
    hull = convex_hull(np.array(points, float).reshape(-1, 2))
    expected = MultiPoint(points).convex_hull
    if not points:
        assert hull.shape == (0, 2)
    elif expected.geom_type == "Polygon":
        assert {tuple(corner) for corner in hull} == set(expected.exterior.simplify(0).coords)
        assert Polygon(hull).exterior.is_ccw
    else:
        assert {tuple(corner) for corner in hull} == set(expected.coords)


@settings(max_examples=25)
@given(st.integers(0, 500), st.integers(1, 4))
def test_hulls_of_sets_of_clusters(seed, clusters):
    points = cloud(seed)
    labels = np.arange(len(points)) % clusters
    hulls = power_set_hulls(points, labels, clusters)
    assert len(hulls) == 2**clusters - 1
    for number, hull in enumerate(hulls, 1):
        members = [bool(number >> label & 1) for label in labels]
        np.testing.assert_array_equal(hull, convex_hull(points[members]))


@settings(max_examples=25)
@given(st.integers(0, 500), st.integers(1, 12), st.integers(1, 12))
def test_covered_cells_are_shapelys(seed, height, width):
    hull = convex_hull(cloud(seed, 8))
    got = covered_cells(hull, (height, width), (90, 120))
    polygon = Polygon(hull)
    centres = [[Point((x + 0.5) * 120 / width, (y + 0.5) * 90 / height) for x in range(width)] for y in range(height)]
    assume(all(polygon.exterior.distance(centre) > 1e-5 for row in centres for centre in row))
    assert np.array_equal(got, np.array([[polygon.contains(centre) for centre in row] for row in centres]))


@pytest.mark.parametrize("size", [(90, 120), (77, 131), (224, 1)])
def test_centres_on_the_border_are_covered(size):
    y, x = ((np.arange(count) + 0.5) * side / count for count, side in zip((6, 9), size, strict=True))
    centres = np.stack(np.meshgrid(x, y), 2).reshape(-1, 2)
    assert covered_cells(convex_hull(centres), (6, 9), size).all()
    assert not covered_cells(centres[:2], (6, 9), size).any()


@settings(max_examples=25)
@given(st.integers(0, 500), st.integers(3, 12))
def test_a_simplified_hull_lies_inside_and_is_almost_as_large(seed, corners):
    hull = convex_hull(cloud(seed, 400))
    kept = simplified(hull, corners)
    assert len(kept) == min(corners, len(hull))
    assert {tuple(corner) for corner in kept} <= {tuple(corner) for corner in hull}
    assert Polygon(hull).buffer(1e-9).contains(Polygon(kept))
    assert Polygon(kept).area >= Polygon(hull).area * (0.3 if corners < 6 else 0.7)
