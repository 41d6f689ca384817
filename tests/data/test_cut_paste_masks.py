"""Masks of COCO annotations against an encoder, a published vector, Shapely and the areas that a real file states."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely import contains_xy, distance, points
from shapely.geometry import Polygon

from zoo.data._coco_masks import check_segmentation, compact, draw_segmentation

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
FRUITS = DATA / "fruits_nuts_coco" / "trainval.json"


def runs(mask):
    """Lists the lengths of runs down the columns, beginning with one outside."""
    counts, before = [0], 0
    for value in mask.T.reshape(-1).tolist():
        if value != before:
            counts.append(0)
            before = value
        counts[-1] += 1
    return counts


def text(counts):
    """Writes run lengths as COCO's maskApi.c does."""
    characters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(chr(48 + (bits | 32 * more)))
            if not more:
                break
    return "".join(characters)


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.booleans(), fill=st.booleans()))
def test_run_lengths_come_back_as_the_mask(mask):
    height, width = mask.shape
    counts = runs(mask)
    for form in (counts, text(counts)):
        segmentation = {"size": [height, width], "counts": form}
        assert check_segmentation(segmentation) == mask.sum()
        assert np.array_equal(np.asarray(draw_segmentation(segmentation, (width, height))) == 255, mask)


def test_long_runs_take_several_characters():
    mask = np.zeros((300, 200), bool)
    mask[3:290, 40:44] = True
    mask[:, 150] = True
    drawn = draw_segmentation({"size": [300, 200], "counts": text(runs(mask))}, (200, 300))
    assert np.array_equal(np.asarray(drawn) == 255, mask)


def test_a_string_that_pycocotools_wrote():
    mask = np.zeros((9, 10), bool)
    mask[2:6, 5:8] = True
    mask[6, 0] = True
    drawn = draw_segmentation({"size": [9, 10], "counts": "61X13mN000`0"}, (10, 9))
    assert np.array_equal(np.asarray(drawn) == 255, mask)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 45)), min_size=3, max_size=8))
def test_a_polygon_covers_the_pixels_whose_centres_shapely_finds_inside(corners):
    polygon = Polygon(corners).convex_hull
    if polygon.geom_type != "Polygon" or polygon.area < 0.1:
        return
    ring = [value for corner in polygon.exterior.coords for value in corner]
    drawn = np.asarray(draw_segmentation(compact([ring]), (60, 45))) == 255
    x, y = np.meshgrid(np.arange(60) + 0.5, np.arange(45) + 0.5)
    wrong = drawn != contains_xy(polygon, x, y)
    assert (distance(polygon.exterior, points(x[wrong], y[wrong])) <= 1e-4).all()  # corners are held in 32 bits
    assert check_segmentation([ring]) == pytest.approx(polygon.area, abs=1e-6)


def test_a_polygon_may_be_hollow_and_reach_beyond_the_image():
    star = [value for k in range(5) for value in (20 + 30 * np.cos(0.3 + k * 2.513), 20 + 30 * np.sin(0.3 + k * 2.513))]
    drawn = np.asarray(draw_segmentation([star], (40, 40))) == 255
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5)
    corners = np.array(star).reshape(-1, 2)
    crossings = np.zeros((40, 40), int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossings += ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    assert np.array_equal(drawn, crossings % 2 == 1)
    assert not drawn[20, 20]


def test_several_polygons_are_one_mask():
    drawn = np.asarray(draw_segmentation([[1, 1, 4, 1, 4, 4, 1, 4], [6, 6, 9, 6, 9, 9, 6, 9]], (10, 10)))
    expected = np.zeros((10, 10), bool)
    expected[1:4, 1:4] = expected[6:9, 6:9] = True
    assert np.array_equal(drawn == 255, expected)


@pytest.mark.skipif(not FRUITS.is_file(), reason=f"needs fruits_nuts_coco, absent in {DATA} (ZOO_DATA)")
def test_areas_are_those_that_a_real_file_states():
    for item in json.loads(FRUITS.read_text())["annotations"][:40]:
        drawn = np.asarray(draw_segmentation(item["segmentation"], (640, 480))) == 255
        assert check_segmentation(item["segmentation"]) == pytest.approx(item["area"], rel=0.02)
        assert drawn.sum() == pytest.approx(item["area"], rel=0.01)
        x, y, width, height = item["bbox"]
        rows, columns = drawn.any(axis=1).nonzero()[0], drawn.any(axis=0).nonzero()[0]
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(found - [x, y, x + width, y + height]).max() <= 1.5  # no pixel's centre lies in a sharp corner


@pytest.mark.parametrize(
    ("segmentation", "rule"),
    [
        ([], "polygons or run lengths"),
        ([[1, 2, 3, 4]], "at least three corners"),
        ([[1, 2, 3, 4, 5, "6"]], "must hold numbers"),
        ({"counts": [4]}, r"size must be \[height, width\]"),
        ({"size": [2, 2], "counts": [3]}, "add up to 2 × 2 px, got 3"),
        ({"size": [2, 2], "counts": [5, -1]}, "counts must be run lengths"),
        ({"size": [2, 2], "counts": "4~"}, "characters from '0' to 'o', got '~'"),
        ({"size": [2, 2], "counts": "T"}, "end within a number"),
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation, rule):
    with pytest.raises(ValueError, match=rule):
        check_segmentation(segmentation)


def test_run_lengths_of_another_size_are_refused():
    with pytest.raises(ValueError, match="run lengths are of 2 × 3 px, the image has 5 × 3"):
        draw_segmentation({"size": [3, 2], "counts": [0, 6]}, (5, 3))
