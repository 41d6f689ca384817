"""`tools/make_shuffled_distractors` as a user runs it: what it writes, goes on with, and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.data.distractors import affine, generator, mirror, random_affine, shuffle_patches, swap_boxes
from zoo.truth import read_gnd
from zoo.truth.extending import positives

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "make_shuffled_distractors.py"
DATA = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data"))
OXFORD = DATA / "oxford5k_allsouls"
TRUTH = {
    "q": {"query": "x/a", "bbox": [0, 0, 9, 9], "good": ["x/a", "x/b"], "ok": [], "junk": ["x/d"]},
    "r": {"query": "x/c", "bbox": [0, 0, 9, 9], "good": ["x/b"], "ok": ["x/c"], "junk": []},
}


@pytest.fixture
def tool(monkeypatch):
    """Runs the tool in this process, since torch takes longer to import than all of it to run."""
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import make_shuffled_distractors

    return lambda *words: make_shuffled_distractors.main(list(map(str, words)))


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate("abcd"):
        path = tmp_path / "photos" / "x" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 31 + number, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "gnd.json").write_text(json.dumps(TRUTH))
    return tmp_path / "photos"


def words(photos, output, *more):
    return "--images", photos, "--truth", photos.parent / "gnd.json", "--output", output, "--format", "png", *more


def pixels(path):
    return np.array(Image.open(path).convert("RGB"))


def written(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file()}


def test_every_positive_gets_its_copies_and_the_truth_their_names(photos, tmp_path, tool, capsys):
    out = tmp_path / "out"
    tool(*words(photos, out, "--grid", "4", "--copies", "2", "--seed", "7"))
    names = [f"x/{name}__shuffled_{copy}" for name in "abc" for copy in range(2)]
    assert written(out) == {"made.json", "sheet.png", "ground_truth.json", *(f"images/{name}.png" for name in names)}
    for name in "abc":
        for copy in range(2):
            wanted = shuffle_patches(pixels(photos / "x" / f"{name}.png"), 4, generator(f"x/{name}", copy, 7))
            assert np.array_equal(pixels(out / "images" / "x" / f"{name}__shuffled_{copy}.png"), wanted)
    extended = json.loads((out / "ground_truth.json").read_text())
    assert extended == {query: {**entry, "distractor": names} for query, entry in TRUTH.items()}
    made = json.loads((out / "made.json").read_text())
    assert made["parameters"] | {"kind": "patches", "grid": 4, "copies": 2, "seed": 7} == made["parameters"]
    assert (made["counts"]["made"], made["counts"]["gallery"]) == (6, 10)
    assert "made 6, gallery 10" in capsys.readouterr().out
    assert Image.open(out / "sheet.png").width > 600


def test_a_stopped_run_goes_on_and_gives_the_same_files_in_any_number(photos, tmp_path, tool):
    whole, part, few = tmp_path / "whole", tmp_path / "part", tmp_path / "few"
    tool(*words(photos, whole, "--grid", "3"))
    tool(*words(photos, part, "--grid", "3"))
    before = (part / "images/x/b__shuffled_1.png").stat().st_mtime_ns
    (part / "images/x/a__shuffled_0.png").unlink()
    (part / "ground_truth.json").unlink()
    tool(*words(photos, part, "--grid", "3"))
    assert written(part) == written(whole)
    assert all((part / name).read_bytes() == (whole / name).read_bytes() for name in written(whole))
    assert (part / "images/x/b__shuffled_1.png").stat().st_mtime_ns == before
    tool(*words(photos, few, "--grid", "3", "--copies", "1", "--limit", "2"))
    assert {name for name in written(few) if "images" in name} == {f"images/x/{n}__shuffled_0.png" for n in "ab"}
    for name in "ab":
        file = f"images/x/{name}__shuffled_0.png"
        assert (few / file).read_bytes() == (whole / file).read_bytes()


def test_affine_copies_are_relevant_and_mirrored_ones_are_not(photos, tmp_path, tool):
    control, both = tmp_path / "control", tmp_path / "both"
    tool(*words(photos, control, "--kind", "affine", "--copies", "1"))
    truth = read_gnd(control / "ground_truth.json")
    assert truth.groups["good"][0] == ("x/a", "x/a__affine_0", "x/b", "x/b__affine_0")
    assert truth.groups["ok"][1] == ("x/c", "x/c__affine_0")
    assert "distractor" not in truth.groups
    wanted = affine(pixels(photos / "x/c.png"), random_affine(generator("x/c", 0, 0)))
    assert np.array_equal(pixels(control / "images/x/c__affine_0.png"), wanted)
    tool(*words(photos, both, "--kind", "mirror"))
    assert np.array_equal(pixels(both / "images/x/b__mirrored_0.png"), mirror(pixels(photos / "x/b.png")))
    second = ("--images", photos, "--truth", both / "ground_truth.json", "--output", tmp_path / "second", "--grid", "4")
    tool(*second, "--copies", "1")
    groups = read_gnd(tmp_path / "second" / "ground_truth.json").groups["distractor"]
    assert set(groups[0]) == {f"x/{name}__{word}_0" for name in "abc" for word in ("mirrored", "shuffled")}


@pytest.mark.parametrize("source", ["table", "coco"])
def test_objects_are_swapped_by_a_table_or_a_coco_file(photos, tmp_path, tool, source):
    rows = ["x/a,1,0,0,8,8", "x/a,1,10,10,20,20", "x/b,1,0,0,8,8", "x/b,1,4,4,20,20", "x/c,1,,,,"]
    (tmp_path / "table.csv").write_text("\n".join(["image,label,x0,y0,x1,y1", *rows]))
    truth, extra = tmp_path / "table.csv", []
    if source == "coco":
        boxes = [("a", [0, 0, 8, 8]), ("a", [10, 10, 10, 10]), ("b", [0, 0, 8, 8]), ("b", [4, 4, 16, 16])]
        images = [{"id": name, "file_name": f"x/{name}.png"} for name in "abc"]
        found = [{"id": n, "image_id": image, "category_id": 1, "bbox": box} for n, (image, box) in enumerate(boxes)]
        crowd = {"id": 9, "image_id": "b", "category_id": 1, "bbox": [22, 0, 5, 5], "iscrowd": 1}
        (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": [*found, crowd]}))
        truth, extra = tmp_path / "gnd.json", ["--boxes", tmp_path / "coco.json"]
    out = tmp_path / "out"
    tool(
        "--images",
        photos,
        "--truth",
        truth,
        "--output",
        out,
        "--kind",
        "swap",
        "--copies",
        3,
        "--format",
        "png",
        *extra,
    )
    assert {name for name in written(out) if "images" in name} == {"images/x/a__swapped_0.png"}
    found = pixels(out / "images/x/a__swapped_0.png")
    assert np.array_equal(found, swap_boxes(pixels(photos / "x/a.png"), [0, 0, 8, 8], [10, 10, 20, 20]))
    counts = json.loads((out / "made.json").read_text())["counts"]
    assert (counts["without two separate boxes"], counts["made"]) == (2, 1)


def test_a_table_a_folder_and_a_model_give_a_gap(photos, tmp_path, tool):
    (tmp_path / "table.csv").write_text("image,label\nx/a,1\nx/b,1\nx/c,2\nx/d,2\n")
    out, table = tmp_path / "out", tmp_path / "table.csv"
    tool("--images", photos, "--truth", table, "--output", out, "--grid", "3", "--copies", "1")
    truth = read_gnd(out / "ground_truth.json")
    assert truth.groups["relevant"] == (("x/a", "x/b"),) * 2 + (("x/c", "x/d"),) * 2
    data = zoo.create("data", "folder", root=[str(photos), str(out / "images")])
    benchmark = zoo.create("benchmark", "shuffled", ground_truth=str(out / "ground_truth.json"), leave_out_query=True)
    benchmark.open(data)
    by_folder = zoo.create("benchmark", "shuffled", distractors=str(out / "images"), leave_out_query=True)
    by_folder.open(zoo.create("data", "folder", root=[str(photos), str(out / "images")], table=str(table)))
    assert benchmark.fingerprint() == by_folder.fingerprint()
    assert benchmark.fingerprint()["gallery"] == 8


@pytest.mark.parametrize("names", ["stem", "file"])
def test_other_names_are_those_of_data_folder(photos, tmp_path, tool, names):
    call = {"stem": lambda name: name, "file": lambda name: f"x/{name}.png"}[names]
    truth = {call("a"): [call("b"), call("c")]}
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    tool(*words(photos, tmp_path / "out", "--names", names, "--grid", "3", "--copies", "1"))
    data = zoo.create("data", "folder", root=[str(photos), str(tmp_path / "out/images")], names=names)
    benchmark = zoo.create("benchmark", "shuffled", ground_truth=str(tmp_path / "out" / "ground_truth.json"))
    benchmark.open(data)
    assert benchmark.fingerprint()["gallery"] == 6


def test_positions_become_names(photos, tmp_path, tool):
    (tmp_path / "gnd.json").write_text("[[0, [1, 3]], [2, [2]]]")
    tool(*words(photos, tmp_path / "out", "--grid", "3", "--copies", "1"))
    found = read_gnd(tmp_path / "out" / "ground_truth.json")
    assert (found.query_ids, found.groups["relevant"]) == (("x/a", "x/c"), (("x/b", "x/d"), ("x/c",)))


def test_what_does_not_fit_is_refused_in_one_line(photos, tmp_path, tool):
    def refusal(*more):
        with pytest.raises(SystemExit) as stop:
            tool(*words(photos, tmp_path / "out", *more))
        return str(stop.value)

    assert "kind swap needs boxes of the objects" in refusal("--kind", "swap")
    assert "image 'x/a': n must be from 2 to the shorter side of the picture, 24 px, got 40" in refusal("--grid", "40")
    assert "was made with seed 0, not 1: choose another --output" in refusal("--grid", "40", "--seed", "1")
    (tmp_path / "gnd.json").write_text(json.dumps({**TRUTH, "s": {**TRUTH["q"], "good": ["x/e", "x/a"]}}))
    assert "1 of 4 relevant images are not in" in refusal()
    assert "was made with truth" in refusal("--incomplete", "restrict", "--grid", "40")
    (tmp_path / "out" / "made.json").rename(tmp_path / "out" / "other.json")
    assert "which holds other files" in refusal("--incomplete", "restrict")
    (tmp_path / "gnd.json").write_text("{")
    assert "gnd.json" in refusal()
    with pytest.raises(SystemExit, match="2"):
        tool(*words(photos, photos / "below"))
    with pytest.raises(SystemExit, match="2"):
        tool(*words(photos, tmp_path / "out", "--kind", "mirror", "--copies", "2"))


def test_help_teaches_by_examples_and_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(TOOL), "--help"], capture_output=True, text=True, check=True
    )
    assert "make_shuffled_distractors.py --images FOLDER --truth gnd.json --output OxfShf" in done.stdout
    assert "become RELEVANT" in done.stdout
    assert "torch" not in done.stderr


@pytest.mark.skipif(not OXFORD.is_dir(), reason=f"needs the Oxford ground truth in {OXFORD} (ZOO_DATA)")
def test_oxfshf_has_its_published_size():
    distinct = positives(read_gnd(OXFORD / "gnd_oxford5k.json"))
    assert len(distinct) == len(set(distinct)) == 567
    assert 5063 + 3 * len(distinct) == 6764
