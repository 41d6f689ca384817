from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from zoo.truth.readers import read_gnd

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))
OXFORD = DATA / "oxford5k_allsouls"
PLACES = DATA / "vpr_bench" / "ground_truth"


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"{path} is absent; ZOO_DATA names the folder of real data")


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def oxford_entry(**changes):
    return {"query": "a", "bbox": [0, 1, 2, 3], "good": ["a"], "ok": ["b"], "junk": [], **changes}


@needs(OXFORD)
def test_oxford_has_its_published_size():
    lists = read_gnd(OXFORD / "gnd_oxford5k.json")
    assert len(lists.query_ids) == 55
    assert sum(len(ids) for name in ("good", "ok") for ids in lists.groups[name]) == 2840
    place = lists.query_ids.index("all_souls_1")
    assert lists.query_images[place] == "all_souls_000013"
    assert lists.boxes[place].tolist() == [136.5, 34.1, 648.5, 955.7]
    assert lists.gallery_ids is None


@needs(OXFORD)
def test_the_subset_of_oxford_keeps_three_queries():
    images = sorted(path.stem for path in (OXFORD / "images").glob("*.jpg"))
    left = read_gnd(OXFORD / "gnd_oxford5k.json").restrict(images, images)
    assert left.query_ids == ("all_souls_1", "all_souls_2", "all_souls_4")
    counts = [{len(ids) for ids in left.groups[name]} for name in ("good", "ok", "junk")]
    assert counts == [{12}, {31}, {15}]  # the README of the subset
    assert left.notes[0] == "queries left out because their image is not available: 52"


@needs(OXFORD)
def test_all_three_forms_of_oxford_agree(tmp_path):
    published = json.loads((OXFORD / "gnd_oxford5k.json").read_text(encoding="utf-8"))
    folder = tmp_path / "gt"
    folder.mkdir()
    for name, entry in published.items():
        box = " ".join(map(str, entry["bbox"]))
        (folder / f"{name}_query.txt").write_text(f"oxc1_{entry['query']} {box}\n")
        for group in ("good", "ok", "junk"):
            (folder / f"{name}_{group}.txt").write_text("".join(f"{item}\n" for item in entry[group]))
    from_json, from_texts = read_gnd(OXFORD / "gnd_oxford5k.json"), read_gnd(folder)
    assert from_texts.fingerprint() == from_json.fingerprint()

    images = sorted({item for e in published.values() for group in ("good", "ok", "junk") for item in e[group]})
    gnd = [
        {
            "bbx": entry["bbox"],
            "ok": np.array([images.index(item) for item in entry["good"] + entry["ok"]]),
            "junk": [images.index(item) for item in entry["junk"]],
        }
        for entry in published.values()
    ]
    path = tmp_path / "gnd_oxford5k.pkl"
    path.write_bytes(pickle.dumps({"imlist": images, "qimlist": [e["query"] for e in published.values()], "gnd": gnd}))
    from_pickle = read_gnd(path)
    assert from_pickle.gallery_ids == tuple(images)
    assert from_pickle.query_ids == from_pickle.query_images == from_json.query_images
    np.testing.assert_array_equal(from_pickle.boxes, from_json.boxes)
    for place, entry in enumerate(published.values()):
        assert from_pickle.groups["ok"][place] == tuple(entry["good"] + entry["ok"])
        assert from_pickle.groups["junk"][place] == tuple(entry["junk"])


def test_paris_names_have_no_prefix(tmp_path):
    (tmp_path / "defense_1_query.txt").write_text("paris_defense_000605 1.5 2 30 40\r\n")
    (tmp_path / "defense_1_good.txt").write_text("paris_defense_000605\r\nparis_defense_000028\r\n\r\n")
    (tmp_path / "defense_1_ok.txt").write_text("")
    (tmp_path / "defense_1_junk.txt").write_text("paris_general_000001\nparis_general_000001\n")
    lists = read_gnd(tmp_path)
    assert (lists.query_ids, lists.query_images) == (("defense_1",), ("paris_defense_000605",))
    assert lists.groups == {
        "good": (("paris_defense_000605", "paris_defense_000028"),),
        "ok": ((),),
        "junk": (("paris_general_000001",),),
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must hold <name>_query.txt files"),
        ({"x_query.txt": "a 1 2 3\n"}, r"x_query.txt must read '<image> x0 y0 x1 y1', got 'a 1 2 3'"),
        ({"x_query.txt": "a 1 2 3 b\n"}, r"x_query.txt must read"),
        ({"x_query.txt": ""}, r"x_query.txt must read"),
        ({"x_query.txt": "a 1 2 3 4\n"}, "x_good.txt is missing"),
        ({"x_query.txt": "a 3 2 1 4\n", "x_good.txt": "b", "x_ok.txt": "", "x_junk.txt": ""}, "query 'x': a box needs"),
        ({"x_query.txt": "a 1 2 3 4\n", "x_good.txt": "b", "x_ok.txt": "b", "x_junk.txt": ""}, "'b' in good and ok"),
    ],
)
def test_damaged_folders(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_gnd(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_own_images(tmp_path):
    content = {
        "q0": {"relevant": ["a", "b"], "junk": ["c"], "image": "photo", "box": [1, 2, 3, 4]},
        "q1": ["b"],
        "q2": {"relevant": []},
    }
    lists = read_gnd(write(tmp_path / "own.json", content))
    assert lists.query_ids == ("q0", "q1", "q2")
    assert lists.query_images == ("photo", "q1", "q2")
    assert lists.groups == {"relevant": (("a", "b"), ("b",), ()), "junk": (("c",), (), ())}
    assert lists.boxes[0].tolist() == [1, 2, 3, 4]
    assert np.isnan(lists.boxes[1:]).all()
    assert read_gnd(write(tmp_path / "plain.json", {"q": ["a"]})).boxes is None


@needs(PLACES)
@pytest.mark.parametrize(
    ("name", "queries", "positives", "last"),
    [
        ("corridor", 111, 549, 110),
        ("SPEDTEST", 607, 607, 606),
        ("inria_holidays", 300, 512, 511),
        ("Nordland", 2760, 8279, 27591),
    ],
)
def test_places_by_position(name, queries, positives, last):
    lists = read_gnd(PLACES / f"{name}.json")
    assert lists.positional
    assert lists.query_ids == tuple(map(str, range(queries)))
    assert sum(map(len, lists.groups["relevant"])) == positives
    named = lists.name_positions([f"q{i}" for i in range(queries)], [f"r{i}" for i in range(last + 1)])
    assert f"r{last}" in {item for ids in named.groups["relevant"] for item in ids}
    with pytest.raises(ValueError, match=f"gallery position {last} lies outside"):
        lists.name_positions(range(queries), range(last))


@needs(PLACES)
def test_every_dataset_of_vpr_bench_is_read():
    files = sorted(PLACES.glob("*.json"))
    assert len(files) == 10
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        lists = read_gnd(file)
        assert [int(query) for query in lists.query_ids] == [query for query, _ in content]
        assert [[int(item) for item in ids] for ids in lists.groups["relevant"]] == [items for _, items in content]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("3", "must be an object of queries or a list"),
        ("{}", "must be an object of queries or a list"),
        ("[]", "at least one query"),
        ("[" * 100_000, "nested too deeply"),
        ('{"q": ["a"], "q": ["b"]}', "a key may occur once in an object, got 'q' twice"),
        ('{"q": ["a", "a"]}', "query 'q': an id may be listed once, got 'a'"),
        ('{"q": [1]}', r"query 'q': relevant must be a list of strings, got \[1\]"),
        ('{"q": 1}', "query 'q': a list of ids or an object with 'relevant' is needed.*got int"),
        ('{"q": {"relevent": []}}', r"query 'q': .*got \['relevent'\]"),
        ('{"q": {"relevant": [], "ok": []}}', r"query 'q': .*got \['ok', 'relevant'\]"),
        ('{"q": {"relevant": [], "image": 3}}', "query 'q': the image must be a name, got 3"),
        ('{"q": {"relevant": [], "box": [1, 2, 3]}}', "query 'q': a box must be four numbers"),
        ('{"q": {"relevant": [], "box": [1, 2, 3, true]}}', "query 'q': a box must be four numbers"),
        ('{"q": {"relevant": [], "box": [1, 2, NaN, 4]}}', "query 'q': a box needs x0 < x1"),
        ('{"q": {"relevant": ["a"], "junk": ["a"]}}', "query 'q': .*'a' in relevant and junk"),
        (json.dumps({"q": oxford_entry(good="ab")}), "query 'q': good must be a list of strings"),
        (json.dumps({"q": oxford_entry(), "r": {"query": "a"}}), r"query 'r': the keys must be .*got \['query'\]"),
        (json.dumps({"q": oxford_entry(), "r": ["a"]}), "query 'r': the keys must be .*got list"),
        (json.dumps({"q": oxford_entry(bbox=None)}), "query 'q': a box must be four numbers"),
        ("[[0, [1]], [1]]", r"a row must read \[query position, \[gallery positions\]\], got \[1\]"),
        ("[[0, [-1]]]", "a row must read"),
        ("[[0, [true]]]", "a row must read"),
        ("[[0, [1]], [0, [2]]]", "query_ids must be unique, got '0' twice"),
    ],
)
def test_damaged_json(tmp_path, text, message):
    path = tmp_path / "truth.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_gnd(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder of ground truth"):
        read_gnd(tmp_path / "absent.json")
    (tmp_path / "truth.mat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a folder of text files, a .pkl or a .json, got '.mat'"):
        read_gnd(tmp_path / "truth.mat")
