"""Shuffled distractors: clean and shuffled mAP and their gap, by files and by a model, on one process and two."""

from __future__ import annotations

import json
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from ranked_runs import NAMES, dense, judged, order, random_scores, values, write_json
from run_files import write_run
from sklearn.metrics import average_precision_score

import zoo
from zoo.evaluation.compare import compare
from zoo.evaluation.glossary import in_words
from zoo.evaluation.html import worst_queries
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.results import read_run
from zoo.evaluation.runner import evaluate
from zoo.evaluation.searching import Searching
from zoo.metrics.functional import shuffle_gap
from zoo.module import Embedder
from zoo.types import Representation

MADE = ["i20", "i21", "i22", "i23"]
OXFORD = {
    "qa": {"query": "i00", "bbox": [1, 2, 30, 40], "good": ["i00", "i03"], "ok": ["i07"], "junk": ["i09", "i10"]},
    "qb": {"query": "i01", "bbox": [0, 0, 9.5, 9], "good": ["i05"], "ok": [], "junk": []},
    "qc": {"query": "i02", "bbox": [0, 0, 9, 9], "good": ["i11", "i12"], "ok": ["i13", "i03"], "junk": ["i15"]},
}
EXTENDED = {name: {**entry, "distractor": MADE} for name, entry in OXFORD.items()}


def precision(row, good, drop):
    """scikit-learn's average precision of one gallery; `row` are scores of NAMES."""
    kept = [place for place, name in enumerate(NAMES) if name not in drop]
    return average_precision_score([NAMES[place] in good for place in kept], row[kept])


def trapezoid(ranked, good):
    found, area, before = 0, 0.0, 1.0
    for place, name in enumerate(ranked):
        found += name in good
        area += (name in good) * (before + found / (place + 1)) / 2 / len(good)
        before = found / (place + 1)
    return area


def shuffled(truth, tmp_path, **changed):
    return zoo.create("benchmark", "shuffled", ground_truth=write_json(tmp_path / "gnd.json", truth), **changed)


# Files of scores and of lists


def test_two_settings_of_one_list_and_their_gap(tmp_path):
    scores, truth = random_scores(), OXFORD.values()
    benchmark = shuffled(EXTENDED, tmp_path, convention="finite")
    report = judged(benchmark, dense(scores))
    assert list(report.own.cells) == ["clean/map", "shuffled/map", "gap/map"]
    goods = [{*entry["good"], *entry["ok"]} for entry in truth]
    rows = list(zip(scores, goods, (entry["junk"] for entry in truth), strict=True))
    clean, with_made = (
        np.array([precision(row, good, {*junk, *drop}) for row, good, junk in rows]) for drop in (MADE, [])
    )
    assert values(report, "clean/map") == pytest.approx(clean)
    assert values(report, "shuffled/map") == pytest.approx(with_made)
    assert values(report, "gap/map") == pytest.approx(clean - with_made)
    masks = [[[name in names for name in NAMES] for names in lists] for lists in (goods, [MADE] * 3)]
    junk = torch.tensor([[name in entry["junk"] for name in NAMES] for entry in truth])
    assert values(report, "gap/map") == pytest.approx(
        shuffle_gap(torch.from_numpy(scores), *map(torch.tensor, masks), junk).tolist()
    )
    cell, gap = report.own.cells["gap/map"], clean - with_made
    assert (cell.mean, cell.half_width) == pytest.approx((gap.mean(), 4.302652729911275 * gap.std(ddof=1) / 3**0.5))
    assert report.fingerprint["settings"] == {
        "clean": [["relevant"], ["junk", "distractor"]],
        "shuffled": [["relevant"], ["junk"]],
    }


def test_trapezoidal_precision_and_what_becomes_of_distractors_in_the_lists(tmp_path):
    scores = random_scores(seed=4)
    benchmark = shuffled(EXTENDED, tmp_path)
    report = judged(benchmark, dense(scores))
    for query, (row, entry) in enumerate(zip(scores, OXFORD.values(), strict=True)):
        good = {*entry["good"], *entry["ok"]}
        clean, with_made = (trapezoid(order(row, {*entry["junk"], *drop}), good) for drop in (MADE, []))
        found = [report.own.cells[f"{name}/map_trapezoid"].per_query[query] for name in ("clean", "shuffled", "gap")]
        assert found == pytest.approx([clean, with_made, clean - with_made])
    rankings = benchmark.rankings_of(benchmark.prediction_lists(dense(scores), ""), "predictions")
    assert rankings.setting == "shuffled"
    for query in rankings.queries:
        noted = {item.id: (item.relevance, item.note) for item in query.ranked}
        assert {name: entry for name, entry in noted.items() if entry[1]} == {
            name: ("irrelevant", "distractor") for name in MADE if name in noted
        }


def test_lists_of_ids_and_further_metrics(tmp_path):
    truth = {"qa": {"relevant": ["i04", "i05"], "distractor": ["i20"]}, "qb": ["i00"], "qc": {"relevant": ["i29"]}}
    benchmark = shuffled(truth, tmp_path, convention="finite")
    benchmark.add_metrics([zoo.create("metrics", "recall", k=1)])
    lists = Predictions(("qa", "qb", "qc"), None, ranked=(("i20", "i04", "i05"), ("i20", "i00"), ("i00",)))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    benchmark.gallery = str(tmp_path / "names.txt")
    report = judged(benchmark, lists)
    assert list(report.own.cells)[3:] == ["clean/recall@1", "shuffled/recall@1", "gap/recall@1"]
    assert values(report, "gap/map") == pytest.approx([1 - (1 / 2 + 2 / 3) / 2, 0, 0])  # i20 is one for qa alone
    assert values(report, "shuffled/map") == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 2, 0])
    assert values(report, "gap/recall@1") == [1, 0, 0]


def test_every_relevant_image_in_turn(tmp_path):
    asking = ["i00", "i03", "i05", "i07", "i11", "i12", "i13"]
    scores = random_scores(queries=30, seed=1)
    report = judged(shuffled(EXTENDED, tmp_path, leave_one_out=True), dense(scores, NAMES, NAMES))
    assert list(report.query_ids) == asking
    assert report.fingerprint["queries_left_out_of_gallery"] == 7
    for place, name in enumerate(asking):
        own = [entry for entry in OXFORD.values() if name in entry["good"] + entry["ok"]]
        good = {item for entry in own for item in entry["good"] + entry["ok"]} - {name}
        junk = {item for entry in own for item in entry["junk"]}
        for setting, drop in (("clean", {*MADE, name}), ("shuffled", {name})):
            wanted = trapezoid(order(scores[NAMES.index(name)], junk | drop), good) if good else np.nan
            found = report.own.cells[f"{setting}/map_trapezoid"].per_query[place]
            assert found == pytest.approx(wanted, nan_ok=True)


def test_other_benchmarks_take_the_extended_truth_and_count_distractors_as_irrelevant(tmp_path):
    scores = random_scores(seed=2)
    extended = write_json(tmp_path / "extended.json", EXTENDED)
    plain = write_json(tmp_path / "plain.json", OXFORD)
    found = [judged(zoo.create("benchmark", "oxford", ground_truth=path), dense(scores)) for path in (extended, plain)]
    assert found[0].fingerprint == found[1].fingerprint
    with_made = judged(shuffled(EXTENDED, tmp_path), dense(scores))
    assert values(with_made, "shuffled/map_trapezoid") == values(found[1], "map_trapezoid")


def test_what_is_missing_is_refused_or_left_out(tmp_path):
    scores, names = random_scores(items=22), NAMES[:22]  # without i22 and i23
    with pytest.raises(ValueError, match="2 listed images, 'i22' for one, are not in the gallery"):
        judged(shuffled(EXTENDED, tmp_path), dense(scores, names=names))
    judged(benchmark := shuffled(EXTENDED, tmp_path, incomplete="restrict"), dense(scores, names=names))
    assert benchmark.notes[0] == "distractor items left out because the gallery lacks them: 6 of 12"
    with pytest.raises(
        ValueError, match=r"no image of the gallery is a distractor: set .*benchmark\.distractors=FOLDER"
    ):
        judged(shuffled(OXFORD, tmp_path), dense(random_scores()))
    with pytest.raises(ValueError, match="names images by position, which distractors shift"):
        judged(shuffled([[0, [1]]], tmp_path), dense(random_scores()))
    with pytest.raises(ValueError, match="distractors are found by their folder: choose data=folder"):
        judged(shuffled(OXFORD, tmp_path, distractors="made"), dense(random_scores()))
    with pytest.raises(ValueError, match="convention must be one of finite, trapezoid, got 'voc'"):
        shuffled(OXFORD, tmp_path, convention="voc")


# A model on pictures, a table, and a folder of distractors


class Colours(Embedder):
    """Describes an image by its mean colour around grey."""

    kinds = ("vector",)
    registered = None

    def embed(self, batch, role="gallery"):
        return Representation(vector=batch.images.mean((2, 3)) - 0.5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """15 pictures of three colours, two copies of six of them in a folder of their own, and a table of the 15."""
    root, rng = tmp_path_factory.mktemp("shuffled"), np.random.default_rng(0)
    (root / "photos").mkdir()
    (root / "made").mkdir()
    rows = ["image,label,x0,y0,x1,y1"]
    for number in range(15):
        colour = np.array([[150, 90, 90], [140, 110, 90], [90, 140, 140]])[number % 3] + rng.normal(0, 15, 3)
        pixels = (colour + rng.normal(0, 3, (10, 10, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"p{number}.png")
        rows.append(f"p{number},{number % 3}," + ("0,0,6,6" if number < 5 else ",,,"))
        for copy in range(2 if number < 6 else 0):
            made = (pixels + rng.normal(0, 9, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(made).save(root / "made" / f"p{number}__shuffled_{copy}.png")
    (root / "table.csv").write_text("\n".join(rows))
    return root


def run(pictures, folder, devices=1, stages=None, **changed):
    roots = [str(pictures / "photos"), str(pictures / "made")]
    data = zoo.create("data", "folder", root=roots, table=str(pictures / "table.csv"), batch_size=4)
    parameters = {"distractors": roots[1], "leave_out_query": True, "convention": "finite", **changed}
    benchmark = zoo.create("benchmark", "shuffled", **parameters)
    benchmark.open(data)
    if stages:
        benchmark.search_with(Searching(partial(zoo.create, "index", "flat", metric="cosine"), None, stages, None))
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    metrics = evaluate(Colours(), data, benchmark, trainer, folder, {"run_name": "colours"})
    return metrics, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("devices", [1, 2])
def test_a_model_on_a_table_and_a_folder_of_distractors(pictures, tmp_path, devices):
    metrics, results = run(pictures, tmp_path, devices)
    paths = sorted(pictures.glob("*/*.png"), key=lambda path: path.stem)
    cut = {f"p{number}": (0, 0, 6, 6) for number in range(5)}

    def vectors(boxes):
        found = [np.array(Image.open(path).crop(boxes.get(path.stem) or (0, 0, 10, 10))) for path in paths]
        rows = np.stack([pixels.mean((0, 1)) / 255 - 0.5 for pixels in found])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    scores = dict(zip((path.stem for path in paths), vectors(cut) @ vectors({}).T, strict=True))
    names = np.array([path.stem for path in paths])
    made = np.char.find(names, "__") > 0
    wanted = []
    for query in results["query_ids"]:
        good = np.array([int(name[1:].partition("_")[0]) % 3 == int(query[1:]) % 3 for name in names]) & ~made
        kept = names != query
        pair = [average_precision_score(good[to], scores[query][to]) for to in (kept & ~made, kept)]
        wanted.append([*pair, pair[0] - pair[1]])
    found = results["rows"][results["own"]]["metrics"]
    assert len(wanted) == 15
    for column, label in zip(np.transpose(wanted), ("clean/map", "shuffled/map", "gap/map"), strict=True):
        assert found[label]["per_query"] == pytest.approx(column, abs=1e-4)
        half = 2.1447866879169273 * column.std(ddof=1) / 15**0.5
        assert (found[label]["mean"], found[label]["half_width"]) == pytest.approx((column.mean(), half), abs=1e-4)
        assert metrics[f"test/{label}"] == pytest.approx(column.mean(), abs=1e-4)
    assert results["rows"][0]["metrics"]["gap/map"]["mean"] > 0.02
    assert (results["fingerprint"]["gallery"], results["fingerprint"]["queries_left_out_of_gallery"]) == (27, 15)


def test_a_search_chain_is_a_row_with_its_own_gap(pictures, tmp_path):
    _, results = run(pictures, tmp_path, stages={"aqe": zoo.create("reranker", "aqe", k=2)})
    plain, chain = results["rows"]
    assert chain["descriptor"].endswith("> aqe")
    for row in (plain, chain):
        clean, late, gap = (row["metrics"][f"{name}/map"] for name in ("clean", "shuffled", "gap"))
        assert gap["per_query"] == pytest.approx(np.subtract(clean["per_query"], late["per_query"]))
        assert gap["mean"] == pytest.approx(clean["mean"] - late["mean"])
    assert chain["metrics"]["gap/map"]["per_query"] != plain["metrics"]["gap/map"]["per_query"]
    ranked = json.loads((tmp_path / "rankings.json").read_text())["queries"][0]["ranked"]
    assert {item["note"] for item in ranked} == {None, "distractor"}


def test_a_folder_elsewhere_and_one_of_relevant_images_are_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="distractors must be a folder of the gallery's images"):
        run(pictures, tmp_path, distractors=str(tmp_path))
    with pytest.raises(ValueError, match=r"an id may be listed once, got .* in relevant and distractor"):
        run(pictures, tmp_path, distractors=str(pictures / "photos"))


# Reading the gap


def test_a_small_gap_is_the_better_one(tmp_path):
    runs = [
        read_run(write_run(tmp_path / name, {"clean/map": [0.9, 0.8], "gap/map": gap}, run_name=name))
        for name, gap in (("plain", [0.5, 0.1]), ("local", [0.1, 0.0]))
    ]
    comparison = compare(runs)
    assert comparison._best(1) == [1]
    assert comparison._best(0) == [0, 1]
    assert "higher, of gap/map lower, is better" in " ".join(comparison.table().notes)
    assert worst_queries(runs[0], "gap/map", 2) == [0, 1]
    assert worst_queries(runs[0], "clean/map", 2) == [1, 0]
    assert in_words("gap/map").endswith("(what is lost to distractors, lower is better)")
