from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from zoo.files import BadFile
from zoo.truth import box_graph, edit_distances, read_coco, read_scenes
from zoo.truth.boxes import BELOW, INSIDE, OVERLAP, RIGHT


def a_box(size=40):
    side = st.integers(1, size)
    return st.tuples(st.integers(0, size), st.integers(0, size), side, side).map(
        lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    )


BOXES = st.lists(a_box(), max_size=7).map(lambda rows: np.array(rows, float).reshape(-1, 4))


def edges(boxes, relation=None, **shares):
    found = box_graph(boxes, np.zeros(len(boxes), int), **shares).edges.tolist()
    return {(i, j) for i, j, r in found if r == relation} if relation is not None else {*map(tuple, found)}


@given(BOXES)
def test_relations_follow_their_rules_by_shapely(boxes):
    shapes = [shapely.box(*row) for row in boxes]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(len(boxes)) if i != j]
    inside, overlap, right, below = set(), set(), set(), set()
    for i, j in pairs:
        a, b = shapes[i], shapes[j]
        shared, smaller = a.intersection(b).area, min(a.area, b.area)
        if b.area < a.area and shared >= 0.9 * b.area:
            inside.add((i, j))
        if shared >= 0.1 * smaller and not (a.area != b.area and shared >= 0.9 * smaller):
            overlap.add((i, j))
        for axis, found in ((0, right), (1, below)):
            mean = (boxes[i, axis + 2] - boxes[i, axis] + boxes[j, axis + 2] - boxes[j, axis]) / 2
            apart = b.centroid.coords[0][axis] - a.centroid.coords[0][axis]
            if apart > 0.25 * mean + 1e-9:
                found.add((i, j))
    for relation, expected in ((INSIDE, inside), (OVERLAP, overlap), (RIGHT, right), (BELOW, below)):
        assert edges(boxes, relation) == expected


def turned(pairs):
    return {(j, i) for i, j in pairs}


@given(BOXES)
def test_a_mirrored_picture_swaps_right_and_left_alone(boxes):
    mirrored = np.stack([100 - boxes[:, 2], boxes[:, 1], 100 - boxes[:, 0], boxes[:, 3]], axis=1)
    assert edges(mirrored, RIGHT) == turned(edges(boxes, RIGHT))
    for relation in (BELOW, INSIDE, OVERLAP):
        assert edges(mirrored, relation) == edges(boxes, relation)


@given(BOXES)
def test_a_transposed_picture_swaps_right_and_below(boxes):
    transposed = boxes[:, [1, 0, 3, 2]]
    assert edges(transposed, RIGHT) == edges(boxes, BELOW)
    assert edges(transposed, BELOW) == edges(boxes, RIGHT)
    assert edges(transposed, INSIDE) == edges(boxes, INSIDE)


@given(BOXES, st.sampled_from([0.5, 2, 8]), st.integers(-64, 64))
def test_scale_and_place_change_nothing(boxes, scale, shift):
    assert edges(boxes * scale + shift) == edges(boxes)


@given(BOXES)
def test_inside_and_overlap_exclude_each_other_and_overlap_is_symmetric(boxes):
    overlap, inside = edges(boxes, OVERLAP), edges(boxes, INSIDE)
    assert overlap == turned(overlap)
    assert not overlap & (inside | turned(inside))


def test_hand_made_boxes():
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60], [90, 0, 190, 100], [90, 0, 190, 100]], float)
    assert edges(boxes, INSIDE) == {(0, 1)}
    assert edges(boxes, OVERLAP) == {(0, 2), (2, 0), (0, 3), (3, 0), (2, 3), (3, 2)}
    assert edges(boxes, RIGHT) == {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert edges(boxes, BELOW) == set()
    assert edges(boxes[:2], RIGHT, aligned=0.0) == set()


@pytest.mark.parametrize(
    ("boxes", "more", "message"),
    [
        ([[0, 0, 0, 1]], {}, r"x0 < x1 and y0 < y1, got \[0.0, 0.0, 0.0, 1.0\]"),
        ([[0, 0, np.nan, 1]], {}, "x0 < x1"),
        ([[0, 0, 1, 1]], {"inside": 0}, "inside must lie in 0…1 and be above 0, got 0"),
        ([[0, 0, 1, 1]], {"overlap": 1.5}, "overlap must lie in 0…1"),
        ([[0, 0, 1, 1]], {"aligned": -1}, "aligned must be at least 0, got -1"),
        ([[0, 0, 1, 1]] * 2, {}, r"categories must be \(O,\) for boxes \(O, 4\), got 1 and 2"),
    ],
)
def test_refused_boxes(boxes, more, message):
    with pytest.raises(ValueError, match=message):
        box_graph(np.array(boxes), np.zeros(1, int), **more)


COCO = {
    "images": [{"id": 7, "file_name": "kitchen/a.jpg"}, {"id": 3, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 18, "bbox": [0, 0, 10, 10], "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [50, 0, 10, 10]},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 90, 90], "iscrowd": 1},
        {"id": 4, "image_id": 3, "category_id": 2, "bbox": [0, 0, 0, 10]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "bicycle"}],
}


@pytest.fixture
def coco(tmp_path):
    def write(**changes):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps({**COCO, **changes}))
        return path

    return write


def test_a_coco_file_becomes_graphs_with_names(coco):
    scenes = read_coco(coco())
    assert scenes.names == ("kitchen/a", "b")
    assert scenes.vocabulary.attributes == {"category": ("dog", "bicycle")}
    assert [len(graph) for graph in scenes.graphs] == [0, 2]
    assert scenes.graphs[1].attributes.tolist() == [[0], [1]]
    assert scenes.graphs[1].edges.tolist() == [[0, 1, RIGHT]]
    assert scenes.notes == ("2 crowds and empty boxes left out",)


def test_a_coco_file_without_annotations_is_refused_and_an_empty_list_is_not(coco):
    path = coco(annotations=[])
    assert read_scenes(path).graphs.sizes.tolist() == [0, 0]
    path.write_text(json.dumps({key: value for key, value in COCO.items() if key != "annotations"}))
    with pytest.raises(BadFile, match=r'instances\.json: holds no list "annotations"'):
        read_scenes(path)


def test_ids_may_be_strings_in_either_place(coco):
    images = [{**image, "id": str(image["id"])} for image in COCO["images"]]
    boxes = [{**box, "category_id": str(box["category_id"])} for box in COCO["annotations"]]
    expected = read_coco(coco()).graphs.fingerprint
    assert read_coco(coco(images=images, annotations=boxes)).graphs.fingerprint == expected
    boxes = [{**box, "image_id": str(box["image_id"])} for box in boxes]
    assert read_coco(coco(annotations=boxes)).graphs.fingerprint == expected


def test_more_than_64_boxes_lose_the_smallest(coco):
    many = [{"id": n, "image_id": 3, "category_id": 2, "bbox": [20 * n, 0, 10 if n != 5 else 1, 10]} for n in range(65)]
    scenes = read_coco(coco(annotations=many))
    assert len(scenes.graphs[1]) == 64
    assert "1 boxes left out, the smallest of images with more than 64" in scenes.notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "instances.json: holds no categories"),
        ({"images": [{"id": 1}]}, "instances.json: an entry of 'images' lacks 'file_name'"),
        ({"images": COCO["images"] * 2}, "images must have different ids, got 7 twice"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.png"}]}, "different file names"),
        ({"annotations": [{"id": 9, "image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1]}]}, "9 has image_id 4"),
        ({"annotations": [{"id": 9, "image_id": 3, "category_id": 4, "bbox": [0, 0, 1, 1]}]}, "9 has category_id 4"),
        ({"annotations": [{"id": 9, "image_id": 3, "category_id": 2, "bbox": [0, 0, 1]}]}, "bbox .x, y, width, height"),
        ({"annotations": {"1": {}}}, 'holds no list "annotations"'),
        ({"annotations": [{"id": 9, "image_id": [3], "category_id": 2, "bbox": [0, 0, 1, 1]}]}, "an annotation needs"),
        ({"annotations": [{"id": 9, "image_id": 3.5, "category_id": 2, "bbox": [0, 0, 1, 1]}]}, "an annotation needs"),
        ({"annotations": [{"id": 9, "image_id": 3, "category_id": 2, "bbox": "1234"}]}, "an annotation needs"),
        (
            {"annotations": [{"id": 9, "image_id": 3, "category_id": 2, "bbox": [1e17, 0, 1, 1]}]},
            "9 must have a box within",
        ),
        ({"annotations": [{"id": 9, "image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1e200]}]}, "9 must have a box"),
        ({"images": [{"id": True, "file_name": "a.jpg"}]}, "an id must be a whole number, got 'True'"),
        ({"images": [{"id": 1, "file_name": ""}]}, "file_name must name a file, got ''"),
        ({"images": [3]}, "instances.json: an entry of 'images' can't be used"),
    ],
)
def test_refused_coco_files(coco, changes, message):
    with pytest.raises(BadFile, match=message):
        read_scenes(coco(**changes))


def test_real_coco_photos(tmp_path):
    path = (
        Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))
        / "fruits_nuts_coco"
        / "trainval.json"
    )
    if not path.is_file():
        pytest.skip(f"no {path}; set ZOO_DATA to the data folder")
    scenes = read_scenes(path)
    assert (len(scenes), scenes.graphs.sizes.sum(), scenes.graphs.sizes.max()) == (18, 165, 13)
    assert np.all(np.diag(edit_distances(scenes.graphs, scenes.graphs)) == 0)
    with pytest.raises(ValueError, match="'exact' takes at most max_nodes=10 nodes per graph, got 13"):
        edit_distances(scenes.graphs, scenes.graphs, method="exact")
    query = tmp_path / "query.json"
    query.write_text(
        json.dumps({"objects": [{"category": "fig"}, {"category": "date"}], "relations": [[0, "left", 1]]})
    )
    found = edit_distances(read_scenes(query, scenes.vocabulary).graphs, scenes.graphs, method="part")[0]
    for graph, cost in zip(scenes.graphs, found, strict=True):
        figs, dates = (set(np.flatnonzero(graph.attributes[:, 0] == kind)) for kind in (1, 0))
        there = any(i in figs and j in dates for i, j, r in graph.edges.tolist() if r == RIGHT)
        assert (cost == 0) == there
