"""Published data sets in their own layouts, made up or made from what is at hand, and the benchmarks that use them."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import zoo
from zoo.data.paris import corrupt_names
from zoo.evaluation.runner import evaluate
from zoo.files import BadFile
from zoo.module import Embedder
from zoo.types import Representation

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data")) / "oxford5k_allsouls"


class MeanColour(Embedder):
    """Describes an image by its mean colour around grey."""

    def embed(self, batch, role="gallery"):
        return Representation(vector=batch.images.mean((2, 3)) - 0.5)


def colours(root, names, suffix="jpg", size=(12, 8)):
    """Writes pictures of plain seeded colours; returns name → colour around grey."""
    rng = np.random.default_rng(len(names))
    found = {}
    for name in names:
        path = root / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = rng.integers(0, 255, 3)
        Image.new("RGB", size, tuple(int(c) for c in colour)).save(path)
        with Image.open(path) as picture:
            found[name] = np.asarray(picture)[0, 0] / 255 - 0.5
    return found


def opened(name, root, **changed):
    data = zoo.create("data", name, root=str(root), **changed)
    data.setup()
    return data


def judged(folder, name, data, **changed):
    """Evaluates mean colours by a benchmark that is told nothing but the data; returns value per query."""
    benchmark = zoo.create("benchmark", name, sheet_queries=0, **changed)
    benchmark.open(data)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    evaluate(MeanColour(), data, benchmark, trainer, folder, {"run_name": name})
    results = json.loads((folder / "results.json").read_text())
    return dict(zip(results["query_ids"], results["rows"][0]["metrics"]["map_trapezoid"]["per_query"], strict=True))


def area(query, gallery, relevant):
    """Returns the area below the precision-recall curve with straight lines between its points, by NumPy."""
    names = list(gallery)
    unit = {name: v / np.linalg.norm(v) for name, v in {**gallery, "": query}.items()}
    order = sorted(names, key=lambda name: -float(unit[name] @ unit[""]))
    hits = np.array([name in relevant for name in order])
    found = np.cumsum(hits)
    after = found / np.arange(1, len(order) + 1)
    before = np.concatenate([[1.0], after[:-1]])
    return float(((before + after) / 2)[hits].sum() / len(relevant))


def texts(folder, queries):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (image, box, groups) in queries.items():
        (folder / f"{name}_query.txt").write_text(f"oxc1_{image} {' '.join(map(str, box))}\n")
        for group in ("good", "ok", "junk"):
            (folder / f"{name}_{group}.txt").write_text("\n".join(groups.get(group, [])) + "\n")


def test_oxford_as_its_publisher_lays_it_out(tmp_path):
    shown = colours(tmp_path / "images", [f"all_souls_{n:06}" for n in range(8)])
    names = list(shown)
    groups = {"good": names[1:3], "ok": names[3:4], "junk": names[4:5]}
    texts(tmp_path / "gt_files_170407", {"all_souls_1": (names[0], (1, 1, 9.5, 7.5), groups)})
    data = opened("oxford", tmp_path)
    assert data.ids("gallery") == names
    found = judged(tmp_path / "out", "oxford", data)
    kept = {name: colour for name, colour in shown.items() if name != names[4]}
    assert found == {"all_souls_1": pytest.approx(area(shown[names[0]], kept, names[1:4]))}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the pictures in {REAL}")
def test_oxford_as_it_lies_here_and_as_the_public_code_keeps_it(tmp_path):
    data = opened("oxford", REAL)
    assert len(data.ids("gallery")) == 100
    benchmark = zoo.create("benchmark", "oxford", incomplete="restrict")
    benchmark.open(data)
    assert benchmark.query_ids == ("all_souls_1", "all_souls_2", "all_souls_4")
    (tmp_path / "jpg").symlink_to(REAL / "images")
    names = data.ids("gallery")
    entry = {"bbx": [1, 2, 3, 4], "ok": [1, 2], "junk": [3]}
    content = {"imlist": names, "qimlist": names[:1], "gnd": [entry]}
    (tmp_path / "gnd_oxford5k.pkl").write_bytes(pickle.dumps(content))
    benchmark = zoo.create("benchmark", "oxford")
    benchmark.open(opened("oxford", tmp_path))
    assert (benchmark.query_ids, benchmark.boxes) == ((names[0],), [[1, 2, 3, 4]])


def test_paris_leaves_out_its_corrupt_images(tmp_path):
    assert len(corrupt_names()) == 20
    good = [f"paris_louvre_{n:06}" for n in range(4)]
    colours(tmp_path / "louvre", good)
    for name in ("paris_louvre_000136", "paris_louvre_000146"):
        (tmp_path / "louvre" / f"{name}.jpg").write_bytes(b"<html>302 Found</html>")
    groups = {"good": [good[1], "paris_louvre_000136"], "ok": [good[2]], "junk": ["paris_louvre_000146"]}
    texts(tmp_path / "lab", {"louvre_1": (good[0], (0, 0, 5, 5), groups)})
    data = opened("paris", tmp_path)
    assert data.ids("gallery") == good
    assert data.ground_truth().groups == {"good": ((good[1],),), "ok": ((good[2],),), "junk": ((),)}
    assert list(judged(tmp_path / "out", "oxford", data)) == ["louvre_1"]


def test_revisited_queries_lie_outside_the_gallery(tmp_path):
    names = [f"radcliffe_camera_{n:06}" for n in range(7)]
    shown = colours(tmp_path / "jpg", [*names, "unlisted_000001"])
    gallery, asked = names[2:][::-1], names[:2]
    entries = [
        {"bbx": np.array([0.0, 0, 6, 6]), "easy": np.array([0, 1]), "hard": np.array([2]), "junk": np.array([3])},
        {"bbx": np.array([1.0, 1, 7, 7]), "easy": np.array([], int), "hard": np.array([4]), "junk": np.array([], int)},
    ]
    content = {"imlist": gallery, "qimlist": asked, "gnd": entries}
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    data = opened("revisited", tmp_path)
    assert (data.ids("gallery"), data.ids("query"), data.query_split) == (gallery, asked, "query")
    benchmark = zoo.create("benchmark", "revisited", sheet_queries=0)
    benchmark.open(data)
    assert benchmark.boxes == [[0, 0, 6, 6], [1, 1, 7, 7]]
    assert benchmark.judge.total("easy", torch.arange(2)).tolist() == [2, 0]
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    evaluate(MeanColour(), data, benchmark, trainer, tmp_path / "out", {"run_name": "r"})
    cell = json.loads((tmp_path / "out/results.json").read_text())["rows"][0]["metrics"]["medium/map_trapezoid"]
    medium = {name: shown[name] for name in gallery if name != gallery[3]}
    assert cell["per_query"][0] == pytest.approx(area(shown[asked[0]], medium, gallery[:3]))


def test_holidays_are_told_by_their_names(tmp_path):
    names = ["100000", "100001", "100002", "100100", "100101", "149900", "flickr_7"]
    shown = colours(tmp_path / "jpg", names)
    data = opened("holidays", tmp_path)
    found = judged(tmp_path / "out", "holidays", data)
    wanted = {
        query: area(shown[query], {n: c for n, c in shown.items() if n != query}, others)
        for query, others in (("100000", names[1:3]), ("100100", names[4:5]))
    }
    assert found["149900"] is None  # alone in its group
    assert {query: found[query] for query in wanted} == pytest.approx(wanted)
    assert data.ground_truth().groups["relevant"] == (("100001", "100002"), ("100101",), ())
    colours(tmp_path / "none", ["flickr_7"])
    with pytest.raises(ValueError, match=r"names must be those of Holidays, six digits, .* got 'flickr_7'"):
        opened("holidays", tmp_path / "none").ground_truth()


def test_holidays_on_their_side_are_turned_by_a_list(tmp_path):
    halves = np.zeros((8, 20, 3), np.uint8)
    halves[:, 10:] = 255
    for name in ("100000", "100001", "100002"):
        Image.fromarray(halves).save(tmp_path / f"{name}.png")
    turns = tmp_path / "turns.txt"
    turns.write_text("100001.png 90\n\n100002 -90\n")
    data = opened("holidays", tmp_path, rotations=str(turns))
    shapes = {n: data.picture_by_id("gallery", n).shape[:2] for n in data.ids("gallery")}
    assert shapes == {"100000": (8, 20), "100001": (20, 8), "100002": (20, 8)}
    assert data.picture_by_id("gallery", "100001")[0, 0, 0] == 0  # clockwise: the left becomes the top
    assert data.picture_by_id("gallery", "100002")[0, 0, 0] == 255
    batches = list(data.loader("gallery"))
    assert [(batch.index.tolist(), *batch.images.shape[2:]) for batch in batches] == [([0], 8, 20), ([1, 2], 20, 8)]
    for line in ("100009 90", "100000 45", "100000", "100000 right"):
        turns.write_text(line)
        with pytest.raises(BadFile, match="line 1 must hold the name of an image and degrees, a multiple of 90"):
            opened("holidays", tmp_path, rotations=str(turns))


def instre(root, boxes):
    names = [f"INSTRE-S1/01a_book/{n:03}" for n in range(4)] + [f"INSTRE-M/01/{n:03}" for n in range(3)]
    shown = colours(root, names)
    for name in names:
        (root / f"{name}.txt").write_text("1 1 5 5\n")
    files = [f"{name}.jpg" for name in names]
    gnd = np.zeros(2, dtype=[("ok", object), ("bbx", object)])
    gnd[0] = (np.array([[1, 2, 5]], np.uint16), np.array([boxes[0]], float))
    gnd[1] = (np.array([[4]], np.uint8), np.array([boxes[1]], float))
    lists = {"imlist": files[2:], "qimlist": files[:2]}
    content = {key: np.array(value, object)[None] for key, value in lists.items()}
    savemat(root / "gnd_instre.mat", {**content, "gnd": gnd[None]})
    return names, shown


def test_instre_has_its_own_lists_and_boxes(tmp_path):
    names, shown = instre(tmp_path, [[1, 1, 6, 6], [6, 2, 12, 8]])
    data = opened("instre", tmp_path)
    assert (data.ids("gallery"), data.ids("query")) == (names[2:], names[:2])
    truth = data.ground_truth()
    assert truth.groups["relevant"] == ((names[2], names[3], names[6]), (names[5],))
    assert truth.boxes.tolist() == [[1, 1, 6, 6], [6, 2, 12, 8]]
    gallery = {name: shown[name] for name in names[2:]}
    wanted = {q: area(shown[q], gallery, r) for q, r in zip(names[:2], truth.groups["relevant"], strict=True)}
    assert judged(tmp_path / "out", "instre", data) == pytest.approx(wanted)


def test_boxes_of_instre_may_be_corners_or_sizes(tmp_path):
    instre(tmp_path, [[1, 1, 6, 6], [6, 2, 5, 4]])
    assert opened("instre", tmp_path).ground_truth().boxes.tolist() == [[1, 1, 7, 7], [6, 2, 11, 6]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no matlab", "gnd_instre.mat: not a readable MATLAB file"),
        ({"imlist": np.array(["a.jpg"], object)}, r"the variables \['qimlist', 'gnd'\] are missing"),
        ({"imlist": ["a.jpg"], "qimlist": ["b.jpg"], "gnd": [1.0]}, "gnd must be 1 structures"),
        ({"imlist": ["a"], "qimlist": ["b.jpg"], "gnd": [1.0]}, "imlist must hold file names"),
    ],
)
def test_damaged_lists_of_instre_are_named(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "gnd_instre.mat").write_bytes(content)
    else:
        savemat(
            tmp_path / "gnd_instre.mat", {k: np.array(v, object if k != "gnd" else float) for k, v in content.items()}
        )
    with pytest.raises(ValueError, match=message):
        opened("instre", tmp_path)


@pytest.mark.parametrize("name", ["oxford", "paris", "revisited", "instre"])
def test_missing_lists_and_folders_are_asked_for(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="root must be a folder"):
        opened(name, tmp_path / "nowhere").ground_truth()
    colours(tmp_path, ["a"])
    with pytest.raises(FileNotFoundError, match=r"root must hold gnd_.*set data\.root"):
        opened(name, tmp_path).ground_truth()


def test_several_lists_and_lists_of_other_images_are_refused(tmp_path):
    colours(tmp_path / "jpg", ["a"])
    texts(tmp_path / "one", {"q": ("a", (0, 0, 1, 1), {})})
    texts(tmp_path / "two", {"q": ("a", (0, 0, 1, 1), {})})
    with pytest.raises(ValueError, match=r"root must hold one ground truth, got .*one, .*two"):
        opened("oxford", tmp_path).ground_truth()
    entry = {"bbx": [1, 2, 3, 4], "easy": [0], "hard": [], "junk": []}
    content = {"imlist": ["b"], "qimlist": ["c"], "gnd": [entry]}
    (tmp_path / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="root must hold the images of split 'gallery', such as 'b', got 'a'"):
        opened("revisited", tmp_path)


def test_a_benchmark_without_any_ground_truth_says_what_to_set(tmp_path):
    colours(tmp_path, ["a", "b"])
    for name in ("oxford", "revisited", "instre"):
        with pytest.raises(ValueError, match=rf"'{name}' needs a ground truth: set benchmark\.ground_truth"):
            zoo.create("benchmark", name).open(opened("folder", tmp_path))
    colours(tmp_path / "h", ["100000", "100001"])
    with pytest.raises(ValueError, match="is it another benchmark's"):
        zoo.create("benchmark", "oxford").open(opened("holidays", tmp_path / "h"))
