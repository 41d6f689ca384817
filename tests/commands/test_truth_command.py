"""`zoo truth` as a user calls it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from zoo.commands._scene_search import _pictures
from zoo.truth import clevr_graph, edit_distances, sample_clevr_graphs
from zoo.truth.scenes import CLEVR_VOCABULARY

HEAVY = ("torch", "lightning", "hydra", "numpy", "numba", "scipy", "PIL", "ijson", "rich")
QUERY = {
    "name": "a cube left of a ball",
    "objects": [{"shape": "cube"}, {"shape": "sphere"}],
    "relations": [[0, "left", 1]],
}
COCO = {
    "images": [{"id": 1, "file_name": "one.jpg"}, {"id": 2, "file_name": "two.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [50, 0, 10, 10]},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [50, 0, 10, 10]},
        {"id": 4, "image_id": 2, "category_id": 2, "bbox": [0, 0, 10, 10]},
    ],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "ball"}],
}


def scenes_of(graphs):
    """CLEVR scenes, without coordinates, of sampled graphs."""
    scenes = []
    for number, graph in enumerate(graphs):
        words = [dict(zip(CLEVR_VOCABULARY, row, strict=True)) for row in graph.attributes.tolist()]
        objects = [{name: CLEVR_VOCABULARY[name][value] for name, value in row.items()} for row in words]
        lists = {"right": [[] for _ in objects], "front": [[] for _ in objects]}
        for source, target, relation in graph.edges.tolist():
            lists["right" if relation == 0 else "front"][source].append(target)
        scenes.append({"image_filename": f"s_{number:03}.png", "objects": objects, "relationships": lists})
    return scenes


SCENES = scenes_of(sample_clevr_graphs(30, seed=2))
GRAPHS = [clevr_graph(scene) for scene in SCENES]


@pytest.fixture
def files(tmp_path):
    contents = {
        "scenes": {"scenes": SCENES},
        "other": {"scenes": SCENES[:29]},
        "query": QUERY,
        "whole": {"scenes": [{**SCENES[3], "image_filename": "mine.png"}]},
        "coco": COCO,
        "typo": {"objects": [{"shape": "cubes"}]},
        "dog": {"objects": [{"category": "ball"}, {"category": "dog"}], "relations": [[0, "left", 1]]},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "damaged.json").write_text(json.dumps(contents["scenes"])[:-200])
    return tmp_path


@pytest.fixture
def truth(command, files):
    def run(*words, **more):
        return command("python", "-m", "zoo.commands.truth", *words, **more)

    return run


def test_distances_are_written_once(truth, files):
    words = ("scenes.json", "--queries", "7", "--method", "authors", "--output", "out")
    done = truth(*words)
    assert "wrote out/distances_soft_authors.npy: 7 × 30 distances, 210 in" in done.stdout
    for nodes in ("soft", "hard"):
        found = np.load(files / f"out/distances_{nodes}_authors.npy", mmap_mode="r")
        assert np.array_equal(found, edit_distances(GRAPHS[:7], GRAPHS, nodes, "authors"))
    names = json.loads((files / "out/names.json").read_text())
    assert names == {"queries": [f"s_{i:03}" for i in range(7)], "gallery": [f"s_{i:03}" for i in range(30)]}
    assert truth(*words).stdout.count("there already") == 2
    assert truth("scenes.json", "--queries", "7", "--nodes", "soft", "--output", "out").stdout.count("wrote") == 1


def test_queries_from_a_file_and_all_of_a_small_gallery(truth, files):
    truth("scenes.json", "--queries", "whole.json", "--nodes", "soft", "--output", "out")
    found = np.load(files / "out/distances_soft_bipartite.npy")
    assert np.array_equal(found, edit_distances(GRAPHS[3:4], GRAPHS))
    assert json.loads((files / "out/names.json").read_text())["queries"] == ["mine"]
    truth("scenes.json", "--nodes", "hard", "--output", "all")
    assert np.load(files / "all/distances_hard_bipartite.npy").shape == (30, 30)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["other.json", "--output", "out"], "names.json holds other names|is of something else"),
        (
            ["scenes.json", "--queries", "3", "--output", "out"],
            "distances_soft_bipartite.json is of something else: .* or remove distances_soft_bipartite",
        ),
        (["scenes.json"], "argument --output: name the folder for the files"),
        (["scenes.json", "--output", "scenes.json"], "argument --output: must be a folder, got the file"),
        (["scenes.json", "--queries", "31", "--output", "x"], "--queries must lie in 1…30, the scenes of scenes.json"),
        (["scenes.json", "--nodes", "sfot", "--output", "x"], "must be some of soft, hard, got 'sfot'"),
        (["scenes.json", "--search", "query.json"], "query.json: scene 0: object 0 must have 'color'.*'part'"),
        (["scenes.json", "--search", "typo.json", "--method", "part"], "shape 'cubes', .*Did you mean 'cube'"),
        (["scenes.json", "--search", "dog.json", "--method", "part"], "object 0 has the key 'category'"),
        (["scenes.json", "--search", "query.json", "--queries", "3"], "--queries: is for distances, not for --search"),
        (["scenes.json", "-k", "3", "--output", "x"], "argument -k: is for +--search"),
        (["scenes.json", "--search", "query.json", "--images", "."], "--output: name the folder"),
        (["scenes.json", "--search", "query.json", "--images", "no", "--output", "x"], "--images: must be a folder"),
        (["scenes.json", "--search", "whole.json", "--nodes", "soft,hard"], "a search takes one, got soft,hard"),
        (["nowhere.json", "--output", "x"], "nowhere.json: No such file or directory"),
        (["damaged.json", "--output", "x"], "damaged.json: damaged or truncated after entry 28 of 'scenes'"),
        (
            ["scenes.json", "--max-nodes", "3", "--method", "exact", "--output", "x"],
            "'exact' takes at most --max-nodes=3",
        ),
        (
            ["scenes.json", "--method", "bipartit", "--output", "x"],
            "must be one of bipartite, authors, exact, part, got",
        ),
        (["scenes.json", "--serch", "query.json", "--output", "x"], "Did you mean '--search'"),
    ],
)
def test_misuse_ends_with_two_and_one_line(truth, files, words, line):
    if "out" in words:
        truth("scenes.json", "--nodes", "soft", "--queries", "2", "--output", "out")
    done = truth(*words, code=2)
    assert re.search(line, done.stderr)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (files / "x").exists()


@pytest.mark.parametrize("suffix", [".npy", ".json", ".npy.journal", ".npy.partial"])
@pytest.mark.parametrize("content", [b'{"mine": 1}', b'{"key": "mine"}', b"[" * 100_000])
def test_a_foreign_file_is_not_overwritten(truth, files, suffix, content):
    (files / "out").mkdir()
    foreign = files / f"out/distances_soft_bipartite{suffix}"
    foreign.write_bytes(content)
    done = truth("scenes.json", "--nodes", "soft", "--output", "out", code=2)
    assert f"out/{foreign.name} is of something else: choose another --output" in done.stderr
    assert done.stderr.count("\n") == 1
    assert foreign.read_bytes() == content
    assert list((files / "out").iterdir()) == [foreign]


def test_a_scene_is_searched_with_pictures(truth, files):
    (files / "images").mkdir()
    for number in range(29):
        Image.new("RGB", (60, 40), (8 * number, 90, 90)).save(files / f"images/s_{number:03}.png")
    words = ("--images", "images", "--output", "found", "-k", "30")
    done = truth("scenes.json", "--search", "whole.json", *words, COLUMNS=160)
    assert "wrote found/search.json\nwrote found/contact_sheet.png (1 scenes without a picture" in done.stdout
    assert "mine (soft, bipartite)" in done.stdout
    (query,) = json.loads((files / "found/search.json").read_text())["queries"]
    first = query["ranked"][0]
    assert (first["rank"], first["name"], first["distance"]) == (1, "s_003", 0.0)
    assert first["differences"] == f"{len(GRAPHS[3])} alike"
    assert [row["distance"] for row in query["ranked"]] == pytest.approx(
        np.sort(edit_distances(GRAPHS[3:4], GRAPHS)[0]), abs=1e-4
    )
    with Image.open(files / "found/contact_sheet.png") as sheet:
        assert sheet.width > 29 * 100


def test_no_picture_outside_the_folder_is_shown(truth, files):
    (files / "images").mkdir()
    Image.new("RGB", (8, 8)).save(files / "images/here.png")
    Image.new("RGB", (8, 8)).save(files / "secret.png")
    scene = {"kind": "cup"}
    names = ("../secret", str(files / "secret"), "images/../../secret", "here")
    (files / "names.json").write_text(json.dumps({"scenes": [{"name": name, "objects": [scene]} for name in names]}))
    words = ("names.json", "--search", "names.json", "--images", "images", "--output", "found")
    done = truth(*words)
    assert "(12 scenes without a picture in images, such as ../secret)" in done.stdout
    (files / "images/here.png").write_bytes(b"damaged")
    assert "here.png can't be read" in truth(*words, code=2).stderr


def test_a_folder_without_pictures_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        _pictures(tmp_path)
    assert re.match("zoo: --images must hold images .*, got none below /", capsys.readouterr().err)


def test_pictures_of_16_bits_are_shown_by_the_rules_of_data_images(truth, files):
    (files / "images").mkdir()
    Image.fromarray(np.full((40, 40), 0x8080, np.uint16)).save(files / "images/one.png")
    (files / "one.json").write_text(json.dumps({"name": "one", "objects": [{"kind": "cup"}]}))
    truth("one.json", "--search", "one.json", "--images", "images", "--output", "found")
    with Image.open(files / "found/contact_sheet.png") as sheet:
        assert (np.asarray(sheet) == 0x80).all(axis=2).sum() > 1_000


def test_a_part_is_found(truth, files):
    done = truth("scenes.json", "--search", "query.json", "--method", "part", "-k", "30", "--output", "found")
    assert "a cube left of a ball (soft, part)" in done.stdout
    (query,) = json.loads((files / "found/search.json").read_text())["queries"]
    for row in query["ranked"]:
        scene = next(scene for scene in SCENES if scene["image_filename"] == f"{row['name']}.png")
        shapes = [item["shape"] for item in scene["objects"]]
        right = [(i, j) for i, row in enumerate(scene["relationships"]["right"]) for j in row]
        there = any((shapes[i], shapes[j]) == ("cube", "sphere") for i, j in right)
        assert (row["distance"] == 0) == there


def crowd(photos, boxes):
    """COCO annotations of crowded photos, and a query of ten things, each inside all before it."""
    rng = np.random.default_rng(0)
    boxes = [
        {"id": 1, "image_id": image, "category_id": 1, "bbox": [*(600 * rng.random(2)), *rng.uniform(20, 80, 2)]}
        for image in range(photos)
        for _ in range(boxes)
    ]
    images = [{"id": image, "file_name": f"{image}.jpg"} for image in range(photos)]
    nested = [[i, "inside", j] for i in range(10) for j in range(i)]
    return (
        {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]},
        {"name": "nest", "objects": [{}] * 10, "relations": nested},
    )


def test_a_hopeless_part_is_given_up_by_name_after_a_bar(truth, files):
    for name, content in zip(("crowd", "nest"), crowd(3, 40), strict=True):
        (files / f"{name}.json").write_text(json.dumps(content))
    done = truth("crowd.json", "--search", "nest.json", "--method", "part", code=2)
    assert "edit distance (soft, part)" in done.stderr
    assert re.search("tried 1,000,000 maps of query 'nest' .10 objects. into scene '[012]'.*'bipartite'", done.stderr)
    done = truth("crowd.json", "--queries", "nest.json", "--nodes", "hard", "--method", "part", "--output", "o", code=2)
    assert "maps of query 'nest'" in done.stderr


def test_photos_with_boxes_are_searched(truth):
    done = truth("coco.json", "--search", "dog.json", COLUMNS=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [line.split("│")[2].strip() for line in lines] == ["two", "one"]
    assert "turned: ball right of dog" in lines[1]


def test_control_c_keeps_what_is_done_and_the_run_goes_on(files):
    slow = {"scenes": scenes_of(sample_clevr_graphs(700, seed=4))}
    (files / "slow.json").write_text(json.dumps(slow))
    words = [sys.executable, "-m", "zoo.commands.truth", "slow.json", "--method", "exact", "--nodes", "soft"]
    words += ["--output", "out", "--queries", "all"]
    running = subprocess.Popen(words, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline, journal = time.monotonic() + 60, files / "out/distances_soft_exact.npy.journal"
    while time.monotonic() < deadline and not (journal.is_file() and journal.read_bytes().count(b"\n") > 2):
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    error = running.communicate(timeout=60)[1]
    assert running.returncode == 130, error
    assert error.endswith("interrupted\nfinished pairs are kept in out: the same command goes on there\n")
    kept = journal.read_bytes()
    running = subprocess.Popen(words, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(journal.read_bytes()) <= len(kept):
        time.sleep(0.05)
    running.kill()
    running.communicate()
    now = journal.read_bytes()
    assert now.startswith(kept)
    blocks = [line.split()[:4] for line in now.splitlines()[1:]]
    assert len({tuple(block) for block in blocks}) == len(blocks)


def test_help_teaches_and_loads_nothing_heavy(command):
    script = (
        "import atexit, sys; sys.argv = ['zoo truth', '--help']\n"
        f"atexit.register(lambda: print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr))\n"
        "from zoo.commands.truth import main; main()"
    )
    done = command("python", "-c", script)
    assert done.stderr == "LOADED []\n"
    assert "examples:" in done.stdout
    assert len(done.stdout.splitlines()) <= 60
    assert "truth " in command("python", "-c", "from zoo.commands import main; main()").stdout
