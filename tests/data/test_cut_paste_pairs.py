"""Real pairs from a table, and the written data set: the same pictures and boxes as the module gives."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from cut_paste_trees import SMALL, drawn, module, photos
from PIL import Image

from zoo.config import create
from zoo.data._pairs_table import COLUMNS, read_pairs
from zoo.files import BadFile

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_cut_paste.py"
GOOD = ["a.png", 1, 2, 30, 40, "b.png", 5, 6, 50, 50]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_cut_paste", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(folder, rows, more=()):
    for name in "abcdef":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(*COLUMNS, *more), *rows])
    return {"kind": "pairs", "table": str(folder / "pairs.csv"), "root": str(folder)}


def words(parameters):
    return [f"{key}={json.dumps(value)}" for key, value in parameters.items()]


def test_real_pairs_are_a_crop_and_a_picture_with_its_box(tmp_path):
    whole = ["c.png", "", "", "", "", "d.png", 0, 0, 80.4, 60]
    data = module(sources=[table(tmp_path, [GOOD, whole])], val_share=0, test_share=0)
    pairs = data.dataset("train")
    assert len(pairs) == 2
    for position in range(2):
        query, gallery, number = pairs.pair(position)
        if pairs.objects[number].rows[0].query == "a.png":
            assert np.array_equal(query.picture, Image.open(tmp_path / "a.png"))
            assert (query.box, gallery.box) == ((1, 2, 30, 40), (5, 6, 50, 50))
        else:
            assert (query.box, gallery.box) == ((0, 0, 80, 60), (0, 0, 80, 60))
    batch = pairs.__getitems__([0, 1])
    assert batch.objects[0] != batch.objects[1]


def test_pairs_that_share_an_image_or_an_object_stay_together(tmp_path):
    box = ["", "", "", ""]
    rows = [
        ["a.png", *box, "b.png", 0, 0, 9, 9, ""],
        ["b.png", *box, "c.png", 0, 0, 9, 9, ""],
        ["d.png", *box, "e.png", 0, 0, 9, 9, "house"],
        ["f.png", *box, "f.png", 0, 0, 9, 9, "house"],
    ]
    source = table(tmp_path, rows, ["object"])
    data = module(sources=[source], val_share=0.45, test_share=0.45)
    objects = [item for split in data.splits for item in data.objects(split)]
    assert sorted((item.name, len(item.rows)) for item in objects) == [("pairs-a.png", 2), ("pairs-house", 2)]


def test_a_column_says_the_split(tmp_path):
    rows = [
        [*GOOD, "val"],
        ["c.png", *GOOD[1:5], "d.png", *GOOD[6:], "test"],
        ["e.png", *GOOD[1:5], "f.png", *GOOD[6:], ""],
    ]
    data = module(sources=[table(tmp_path, rows, ["split"])], val_share=0, test_share=0)
    assert [data.objects(split)[0].rows[0].query for split in ("train", "val", "test")] == ["e.png", "a.png", "c.png"]
    source = table(tmp_path, [[*GOOD, "val"], ["b.png", *GOOD[1:5], "c.png", *GOOD[6:], "test"]], ["split"])
    with pytest.raises(BadFile, match=r"must be of one split, a\.png has test, val"):
        module(sources=[source])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({0: ""}, r"row 2, column query_image must name an image"),
        ({5: "zzz.png"}, r"row 2, column positive_image: .*zzz\.png doesn't exist"),
        ({2: "x"}, r"row 2, column qy0 must be a number, got 'x'"),
        ({3: ""}, r"row 2, column qx1 must be a number, got ''"),
        ({6: ""}, r"row 2, column px0 must be a number, got ''"),
        ({8: "nan"}, r"row 2, column px1 must be finite"),
        ({9: 6}, r"row 2, column py0 must be less than py1, got 6\.0, 6\.0"),
    ],
)
def test_errors_name_file_row_and_column(tmp_path, change, rule):
    source = table(tmp_path, [GOOD, [change.get(place, cell) for place, cell in enumerate(GOOD)]])
    with pytest.raises(BadFile, match=rf"pairs\.csv, {rule}"):
        module(sources=[source])


def test_columns_and_splits_are_checked(tmp_path):
    (tmp_path / "t.csv").write_text("query_image,qx0\na,1\n")
    with pytest.raises(BadFile, match="it lacks qy0, qx1, qy1, positive_image"):
        read_pairs(tmp_path / "t.csv")
    table(tmp_path, [[*GOOD, "dev"]], ["split"])
    with pytest.raises(BadFile, match="column split must be one of train, val, test, or empty, got 'dev'"):
        read_pairs(tmp_path / "pairs.csv")
    table(tmp_path, [[*GOOD, 7]])
    with pytest.raises(BadFile, match="no more cells than columns"):
        read_pairs(tmp_path / "pairs.csv")
    with pytest.raises(FileNotFoundError, match="must be a CSV file of pairs"):
        read_pairs(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def written(tool, tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    parameters = {**SMALL, "sources": [photos(root / "photos", 30), drawn(20)]}
    assert tool.main([str(root / "out"), "--objects", "6", "--format", "png", *words(parameters)]) == 0
    return root / "out", parameters


def test_the_written_set_is_what_the_module_gives(written):
    out, parameters = written
    data = module(**parameters)
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    chosen = data.objects("test")[:6]
    assert len(rows) == 6 * 3
    for row, (item, variant) in zip(rows, [(item, v) for item in chosen for v in range(3)], strict=True):
        view = data.view(item, variant)
        assert row["label"] == item.name
        assert tuple(int(row[name]) for name in ("x0", "y0", "x1", "y1")) == view.box
        assert np.array_equal(Image.open(out / "images" / row["image"]), view.picture)
        assert np.array_equal(data.picture_by_id("test", row["image"][:-4]), view.picture)
    assert (out / "sheet.png").is_file()
    assert {path.name for path in (out / "images").iterdir()} == {row["image"] for row in rows}


def test_the_written_set_trains_as_pairs(written):
    out, _ = written
    source = {"kind": "pairs", "table": str(out / "pairs.csv"), "root": str(out / "images")}
    rows = read_pairs(out / "pairs.csv")
    assert len(rows) == 6 * 3 * 2
    data = module(sources=[source])
    assert [len(data.objects(split)) for split in data.splits] == [0, 0, 6]
    query, gallery, number = data.dataset("test").pair(0)
    boxes = {(row.query_box, row.positive_box) for row in data.objects("test")[number].rows}
    assert (query.box, gallery.box) in boxes


def test_the_written_set_is_searched_as_a_folder(written):
    out, _ = written
    folder = create("data", "folder", root=str(out / "images"), table=str(out / "table.csv"))
    folder.setup()
    truth = folder.ground_truth()
    assert len(truth.query_ids) == 18
    assert all(len(set(relevant)) == 3 for relevant in truth.groups["relevant"])


def test_a_stopped_run_goes_on_and_another_recipe_is_refused(written, tool, capsys):
    out, parameters = written
    journal = out / "objects.jsonl"
    before, lines = journal.read_bytes(), journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    done, torn = ([out / "images" / name for name in json.loads(lines[k])["boxes"]] for k in (0, 5))
    stamps = [[path.stat().st_mtime_ns for path in paths] for paths in (done, torn)]
    assert tool.main([str(out), "--objects", "6", "--format", "png", *words(parameters)]) == 0
    assert journal.read_bytes() == before
    again = [[path.stat().st_mtime_ns for path in paths] for paths in (done, torn)]
    assert again[0] == stamps[0]
    assert again[1][-1] > stamps[1][-1]
    assert tool.main([str(out), "--format", "png", *words({**parameters, "seed": 1})]) == 2
    assert "another recipe (seed=0)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        (["sources"], "must be written key=value, got 'sources'"),
        (["scael=[0.1, 0.2]"], "Did you mean 'scale'"),
        (["sources=[{"], "must be YAML"),
        (["sources=[{kind: pairs, table: a, root: b}]"], "must hold no real pairs"),
        (["sources=[{kind: masks, images: none, masks: none}]"], "must be a folder of images"),
    ],
)
def test_what_can_t_be_done_is_said_in_a_line(tool, tmp_path, capsys, more, rule):
    assert tool.main([str(tmp_path / "out"), *more]) == 2
    assert rule in capsys.readouterr().err
