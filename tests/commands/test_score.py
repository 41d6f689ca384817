"""`zoo score` and `zoo eval` on ranked benchmarks, as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))
NAMES = [f"p{number}" for number in range(6)]


@pytest.fixture
def truth(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps({"p0": ["p1", "p2"], "p3": ["p4"]}))
    scores = np.random.default_rng(0).normal(size=(2, 6))
    np.savez(tmp_path / "scores.npz", mine=scores, query_ids=["p0", "p3"], gallery_ids=NAMES)
    return f"benchmark.ground_truth={tmp_path / 'truth.json'}"


def score(command, *words, code=0):
    return command("zoo", "score", *words, "hydra.run.dir=out", code=code)


def test_a_score_matrix_is_judged_and_written_down(command, truth, tmp_path):
    done = score(
        command, "predictions=scores.npz", "benchmark=lists", truth, "metrics=[precision,ndcg]", "metrics.ndcg.k=3"
    )
    assert "Relevance lists" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    metrics = results["rows"][0]["metrics"]
    assert list(metrics) == ["map", "recall@1", "recall@5", "recall@10", "mp@10", "ndcg@3"]
    assert results["model"]["predictions"] == str(tmp_path / "scores.npz")
    assert results["data"] is None
    assert results["run_name"] == "scores"
    assert results["command"][:2] == ["zoo", "score"]
    assert results["query_ids"] == ["p0", "p3"]
    rankings = json.loads((tmp_path / "out" / "rankings.json").read_text())
    assert [len(query["ranked"]) for query in rankings["queries"]] == [6, 6]
    assert (tmp_path / "out" / "table.md").read_text().startswith("### Relevance lists")


def test_runs_are_called_after_their_array(command, truth, tmp_path):
    words = ["array=mine", truth, "hydra.sweep.dir=all", "-m"]
    command("zoo", "score", "predictions=scores.npz", *words, "benchmark.k=[1],[2]")
    names = [json.loads(path.read_text())["run_name"] for path in sorted(tmp_path.glob("all/*/results.json"))]
    assert names == ["mine", "mine"]


def test_a_group_that_is_null_is_told_how_to_leave_out(command, truth):
    assert "left out as ~group" in score(command, "predictions=scores.npz", truth, "metrics=null", code=2).stderr


def test_a_missing_file_of_predictions_is_told(command, truth):
    assert "nowhere.npz" in score(command, "predictions=nowhere.npz", truth, code=2).stderr


def test_pictures_come_with_data(command, truth, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (20, 20), (90, 90, 90)).save(folder / f"{name}.png")
    score(command, "predictions=scores.npz", "benchmark=lists", truth, "data=folder", f"data.root={folder}")
    assert Image.open(tmp_path / "out" / "contact_sheet.png").width > 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predictions=nowhere.npz"], "nowhere.npz"),
        ([], "predictions must name the file to judge"),
        (["predictions=scores.npz", "array=yours"], "mine"),
        (
            ["predictions=scores.npz", "benchmark.k=[0]"],
            "k must be a list of different integers of at least 1, got [0]",
        ),
        (["predictions=scores.npz", "benchmark=relational"], "judges descriptors, not ranked lists: use zoo eval"),
        (["predictions=scores.npz", "benchmark.incomplet=restrict"], "Did you mean 'benchmark.incomplete'?"),
        (["predictions=scores.npz", "benchmark=list"], "Did you mean 'lists'?"),
        (["predictions=scores.npz", "metrics=[spearman]"], "does not judge ranked lists"),
        (["predictions=scores.npz", "data=sort_of_clevr"], "choose data=folder"),
    ],
)
def test_misuse_ends_in_one_line(command, truth, words, message):
    known = [truth] if "benchmark=relational" not in words and "benchmark=list" not in words else []
    done = score(command, *words, *known, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_has_no_default_is_asked_for(command):
    done = score(command, "predictions=x.npz", "benchmark=lists", code=2)
    assert "benchmark 'lists' has no default for what only you can know: benchmark.ground_truth=… (JSON" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the pictures in {REAL}")
def test_a_model_is_judged_on_oxford_pictures(command, tiny, tmp_path):
    network = [word for word in tiny if word.startswith("model.")]
    words = [
        "benchmark=oxford",
        "data=oxford",
        "data.image_size=75",
        "benchmark.incomplete=restrict",
        "hydra.run.dir=out",
    ]
    done = command("zoo", "eval", *network, *words, ZOO_DATA=REAL)
    assert "queries left out because their image is not available: 52" in done.stderr + done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["query_ids"] == ["all_souls_1", "all_souls_2", "all_souls_4"]
    assert (results["fingerprint"]["gallery"], results["fingerprint"]["queries"]) == (100, 3)
    assert all(0 < cell["mean"] < 1 for row in results["rows"] for cell in row["metrics"].values())
    assert (tmp_path / "out" / "contact_sheet.png").is_file()
    done = command("zoo", "eval", *network, *words[:3], "hydra.run.dir=refused", code=2, ZOO_DATA=REAL)
    assert "benchmark.incomplete=restrict leaves them out" in done.stderr


@pytest.mark.parametrize("more", [[], ["data.num_workers=1"], ["trainer=ddp_cpu", "data.num_workers=0"]])
def test_a_damaged_picture_ends_in_one_line(command, tiny, tmp_path, more):
    for name in ("a/1", "a/2", "b/1"):
        path = tmp_path / "pictures" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    path.write_bytes(b"no picture")
    network = [word for word in tiny if word.startswith("model.")]
    words = ["benchmark=instances", "data=folder", "data.image_size=75", f"data.root={tmp_path / 'pictures'}", *more]
    done = command("zoo", "eval", *network, *words, "hydra.run.dir=out", code=2)
    assert done.stderr.splitlines()[-1].startswith(f"zoo: image {path} can't be read")
