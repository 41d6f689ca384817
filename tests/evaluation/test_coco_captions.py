"""Text alone against text and arrangement, on a small tree laid out as COCO is: against sorting by hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import ndcg_score

import zoo
from zoo import config
from zoo.commands.eval import evaluate
from zoo.metrics.mean_gain import MeanGain
from zoo.search.captions import words_of

ROOT = Path(__file__).parents[2]
SAID = ["a horse and a person", "a red car in the street", "sky above a car", "a person", "", "the horse, the sky"]
ASKED = {"q0": "a person on a horse under the sky", "q1": "red car"}
MODEL = ["model=global_descriptor", "model.backbone=test_resnet", "model.backbone_weights=random"]
QUIET = ["trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]


def captioned(folder, name, texts):
    """Writes pictures NAME_0…N below folder/name and COCO's file of their captions."""
    (folder / name).mkdir(parents=True)
    images, notes = [], []
    for number, (stem, text) in enumerate(texts.items()):
        pixels = np.random.default_rng([number, len(name)]).integers(0, 255, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(folder / name / f"{stem}.png")
        images.append({"id": 100 + number, "file_name": f"{stem}.png"})
        notes += [{"image_id": 100 + number, "caption": one} for one in ([text] if text else [])]
    (folder / f"captions_{name}.json").write_text(json.dumps({"images": images, "annotations": notes}))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    captioned(folder, "train", {f"t{number}": text for number, text in enumerate(SAID)})
    captioned(folder, "val", ASKED)
    scores = {"q0": {"t0": 5, "t5": 4, "t3": 2, "t1": 1}, "q1": {"t1": 5, "t2": 3}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def judged(tree, tmp_path):
    def judge(*overrides):
        data = f"data.root={tree / 'train'}", f"data.queries={tree / 'val'}"
        truth = [f"benchmark.{key}={tree / name}" for key, name in (
            ("captions", "captions_train.json"), ("texts", "captions_val.json"), ("ground_truth", "scores.json"),
        )]  # fmt: skip
        own = [f"paths.output_dir={tmp_path / 'outputs'}", f"paths.run_dir={tmp_path / 'run'}"]
        words = [*own, *MODEL, *QUIET, "data=folder", *data, "benchmark=coco_captions", *truth, *overrides]
        evaluate(config.compose("eval", words))
        return json.loads((tmp_path / "run/results.json").read_text())

    return judge


def counts(query):
    return np.array([len(set(words_of(ASKED[query])) & set(words_of(text))) for text in SAID])


def wanted(tree, query, order, k):
    """Returns gain@k and nDCG@k of an order of the gallery's positions."""
    scores = json.loads((tree / "scores.json").read_text())[query]
    gains = np.array([scores.get(f"t{number}", 0) for number in range(len(SAID))], float)
    places = np.empty(len(SAID))
    places[order] = np.arange(len(SAID))
    return gains[order[:k]].mean(), ndcg_score(gains[None], -places[None], k=k)


def row_of(results, label):
    return next(row for row in results["rows"] if row["descriptor"] == label)["metrics"]


def own_order(tmp_path, query):
    ranked = json.loads((tmp_path / "run/rankings.json").read_text())["queries"][query]["ranked"]
    return [int(item["id"][1:]) for item in ranked]


def test_text_ranks_by_words_and_text_with_arrangement_sorts_equal_ones(tree, judged, tmp_path):
    results = judged("benchmark.k=[1,3,null]")
    labels = [row["descriptor"] for row in results["rows"]]
    own = labels[results["own"]]
    descriptor = own.removeprefix("text + ")
    assert labels == ["text", descriptor, own]
    for place, query in enumerate(ASKED):
        by_text = np.argsort(-counts(query), kind="stable")
        both = own_order(tmp_path, place)
        assert counts(query)[both].tolist() == sorted(counts(query).tolist(), reverse=True)
        for label, order in (("text", by_text), (own, np.array(both))):
            for k in (1, 3):
                found = [row_of(results, label)[f"{name}@{k}"]["per_query"][place] for name in ("gain", "ndcg")]
                assert found == pytest.approx(wanted(tree, query, order, k))
    assert "ndcg" in row_of(results, own)
    assert any("without a caption" in note for note in results.get("notes", ["without a caption"]))
    assert (tmp_path / "run/curve.png").is_file()


def test_the_index_finds_the_same_and_exponential_gains_are_named(tree, judged, tmp_path):
    results = judged("benchmark.k=[1,3]", "index=flat", "index.metric=l2", "benchmark.gain=exponential")
    labels = [row["descriptor"] for row in results["rows"]]
    assert labels[-1] == f"{labels[-2]} > flat"
    assert results["own"] == len(labels) - 1
    assert row_of(results, labels[-1]) == row_of(results, labels[-2])
    assert list(row_of(results, labels[-1])) == ["gain@1", "gain@3", "ndcg_exp@1", "ndcg_exp@3"]


def test_what_is_said_is_part_of_the_protocol(tree, judged):
    first = judged()["fingerprint"]
    file = tree / "captions_val.json"
    before = file.read_text()
    try:
        file.write_text(before.replace("red car", "blue car"))
        assert judged()["fingerprint"]["hash"] != first["hash"]
        file.write_text(json.dumps({**json.loads(before), "annotations": []}))
        with pytest.raises(ValueError, match=r"texts must hold a caption with words for every query, .* none of 'q0'"):
            judged()
    finally:
        file.write_text(before)
    with pytest.raises(ValueError, match="captions must name images of the gallery"):
        judged(f"benchmark.captions={file}")


def test_rerankers_do_not_follow_words(judged):
    with pytest.raises(ValueError, match="no re-ranker may follow them, got aqe"):
        judged("reranker=aqe")


@given(st.data(), st.integers(1, 8), st.integers(1, 6))
def test_the_mean_gain_is_that_of_the_first_items(data, items, k):
    def drawn(values):
        return data.draw(st.lists(st.lists(values, min_size=items, max_size=items), min_size=3, max_size=3))

    scores, gains = (np.array(drawn(st.integers(0, 4)), float) for _ in range(2))
    ignore = np.array(drawn(st.booleans()))
    metric = MeanGain(k=k, per_query=True)
    metric.update(*map(torch.from_numpy, (scores, gains, ignore)), query=torch.arange(3))
    for row, found in enumerate(metric.per_query_values()[1].tolist()):
        ranked = [place for place in np.argsort(-scores[row], kind="stable") if not ignore[row, place]][:k]
        assert found == pytest.approx(gains[row, ranked].mean() if ranked else np.nan, nan_ok=True)


def test_captions_that_name_three_classes_are_picked(tree):
    (tree / "classes.txt").write_text("horse\nperson\nsky\nred car\n")

    def tool(*words):
        command = [sys.executable, str(ROOT / "tools/coco_caption_queries.py"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    words = str(tree / "captions_val.json"), str(tree / "classes.txt"), str(tree / "queries.csv")
    assert "1 of 2 captions name 3 classes or more; 1 are written" in tool(*words)
    with (tree / "queries.csv").open() as lines:
        assert list(csv.DictReader(lines)) == [{"file": "q0.png", "caption": ASKED["q0"]}]
    tool(*words, "--least", "1", "--count", "1", "--seed", "3")
    assert len((tree / "queries.csv").read_text().splitlines()) == 2


def test_parameters_are_checked(tree):
    given_ = {"captions": "c", "texts": "t", "ground_truth": "g"}
    for name in given_:
        with pytest.raises(ValueError, match=f"{name} must be a path, got ''"):
            zoo.create("benchmark", "coco_captions", **{**given_, name: ""})
