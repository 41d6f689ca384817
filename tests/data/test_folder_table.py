"""Tables of labels and boxes: who asks, what is relevant, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.files import BadFile


@pytest.fixture
def root(tmp_path):
    for name in ("x/a", "x/b", "y/c", "y/d", "y/e"):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (100, 100, 100)).save(path)
    return tmp_path / "photos"


def folder(root, text, **changed):
    (root.parent / "table.csv").write_text(text, encoding="utf-8")
    data = zoo.create("data", "folder", root=str(root), table=str(root.parent / "table.csv"), **changed)
    data.setup()
    return data


def test_rows_are_queries_and_what_has_no_row_is_a_distractor(root):
    data = folder(root, "image,label,x0,y0,x1,y1\nx/a,cat,0,0,5,5\nx/b.png,cat,,,,\ny/c,cat,1,2,3,4\nx/a,dog,5,5,9,9\n")
    assert data.labels("gallery") == ["cat", "cat", "cat", "", ""]
    truth = data.ground_truth()
    assert truth.query_ids == ("x/a#0", "x/b", "y/c", "x/a#3")
    assert truth.query_images == ("x/a", "x/b", "y/c", "x/a")
    assert truth.groups["relevant"] == (("x/a", "x/b", "y/c"),) * 3 + (("x/a",),)
    assert truth.gallery_ids == ("x/a", "x/b", "y/c", "y/d", "y/e")
    assert np.isnan(truth.boxes[1]).all()
    assert truth.boxes[2].tolist() == [1, 2, 3, 4]
    benchmark = zoo.create("benchmark", "instances")
    benchmark.open(data)
    assert benchmark.query_ids == truth.query_ids
    assert benchmark.boxes == [[0, 0, 5, 5], None, [1, 2, 3, 4], [5, 5, 9, 9]]
    assert [int(n) for n in benchmark.judge.total("", torch.arange(4))] == [2, 2, 2, 0]


def test_a_table_without_labels_leaves_them_to_the_folders(root):
    data = folder(root, "image,x0,y0,x1,y1\ny/c,0,0,5,5\n")
    assert data.labels("gallery") == ["x", "x", "y", "y", "y"]
    assert data.ground_truth().query_ids == ("y/c",)
    assert data.ground_truth().groups["relevant"] == (("y/c", "y/d", "y/e"),)


def test_queries_of_their_own_are_labelled_by_the_same_table(root, tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "asked.png")
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked.png").rename(tmp_path / "asked" / "q.png")
    data = folder(root, "image,label\nq,cat\nx/a,cat\ny/d,dog\n", queries=str(tmp_path / "asked"))
    assert data.ground_truth().groups["relevant"] == (("x/a",),)
    assert data.labels("query") == ["cat"]
    benchmark = zoo.create("benchmark", "instances")
    benchmark.open(data)
    assert (benchmark.query_ids, len(benchmark.gallery_ids)) == (("q",), 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns image, and label .* got none"),
        ("name,label\na,b\n", "must have the columns image, .* got name, label"),
        ("image\nx/a\n", "must have the columns image, .* got image"),
        ("image,label\n", "must have a row for each image or query, got none"),
        ("image,label,x0\nx/a,b,1\n", "must have the columns image, .* got image, label, x0"),
        ("image,label\nx/z,cat\n", r"names 'x/z', which no folder has \(images are called like 'x/a'\)"),
        ("image,label\n,cat\n", "row 1 must name an image"),
        ("image,label\nx/a,cat,dog\n", r"row 1 must have no more cells than columns, got \['dog'\] beyond"),
        ("image,x0,y0,x1,y1\nx/a,1,2,3,4\nx/a,1,2,3,\n", "row 2: a box must be four numbers .* got 1, 2, 3, "),
        ("image,x0,y0,x1,y1\nx/a,5,2,3,4\n", "row 1: a box must be four numbers with x0 < x1 and y0 < y1"),
        ("image,x0,y0,x1,y1\nx/a,0,0,inf,nan\n", "row 1: a box must be four numbers"),
        ('image,label\n"x/a,cat\n', "can't be read as CSV"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(root, text, message):
    with pytest.raises(BadFile, match=message):
        folder(root, text)


def test_a_missing_table_and_rows_of_no_query_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table must be a CSV file, got /nowhere\.csv"):
        zoo.create("data", "folder", root=str(root), table="/nowhere.csv").setup()
    (tmp_path / "asked").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "asked" / "q.png")
    with pytest.raises(BadFile, match="has no row with a label for an image of split 'query'"):
        folder(root, "image,label\nx/a,cat\n", queries=str(tmp_path / "asked")).ground_truth()
