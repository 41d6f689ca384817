"""Benchmarks of ranked lists against plain computations, from files and from a model."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from ranked_runs import NAMES, QUERIES, dense, judged, order, random_scores, values, write_json
from sklearn.metrics import ndcg_score

import zoo
from zoo.evaluation.predictions import Predictions

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))


def trapezoid(ranked, good):
    """Average precision as the original evaluation program of the Oxford buildings computes it."""
    old_recall, old_precision, found, area = 0.0, 1.0, 0, 0.0
    for place, name in enumerate(ranked):
        found += name in good
        recall, precision = found / len(good), found / (place + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def finite(ranked, good, k=None):
    hits = [place for place, name in enumerate(ranked[:k]) if name in good]
    return sum((n + 1) / (place + 1) for n, place in enumerate(hits)) / min(len(good), k or len(good))


OXFORD = {
    "qa": {"query": "i00", "bbox": [1, 2, 30, 40], "good": ["i00", "i03"], "ok": ["i07"], "junk": ["i09", "i10"]},
    "qb": {"query": "i01", "bbox": [0, 0, 9.5, 9], "good": ["i05"], "ok": [], "junk": []},
    "qc": {"query": "i02", "bbox": [0, 0, 9, 9], "good": ["i11", "i12"], "ok": ["i13", "i14"], "junk": ["i15"]},
}


def test_oxford_takes_junk_out_and_counts_good_and_ok(tmp_path):
    benchmark = zoo.create("benchmark", "oxford", ground_truth=write_json(tmp_path / "gnd.json", OXFORD))
    scores = random_scores()
    report = judged(benchmark, dense(scores))
    wanted = [
        trapezoid(order(row, drop=truth["junk"]), {*truth["good"], *truth["ok"]})
        for row, truth in zip(scores, OXFORD.values(), strict=True)
    ]
    assert values(report, "map_trapezoid") == pytest.approx(wanted)
    ranked = benchmark.rankings_of(benchmark.prediction_lists(dense(scores), ""), "predictions").queries[0]
    assert (ranked.image, ranked.relevant_total, list(ranked.box)) == ("i00", 3, [1, 2, 30, 40])
    assert [item.id for item in ranked.ranked] == order(scores[0])[:20]
    verdicts = {"i00": "relevant", "i03": "relevant", "i07": "relevant", "i09": "junk", "i10": "junk"}
    assert all(item.relevance == verdicts.get(item.id, "irrelevant") for item in ranked.ranked)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the Oxford ground truth in {REAL}")
def test_all_oxford_queries_with_perfect_and_reversed_lists(tmp_path):
    truth = json.loads((REAL / "oxford5k_allsouls" / "gnd_oxford5k.json").read_text())
    listed = {name for entry in truth.values() for group in ("good", "ok", "junk") for name in entry[group]}
    gallery = sorted(listed | {entry["query"] for entry in truth.values()})
    names = (*gallery, *(f"filler_{number:04}" for number in range(5063 - len(gallery))))
    place = {name: position for position, name in enumerate(names)}
    scores = np.zeros((len(truth), len(names)), np.float32)
    for row, entry in enumerate(truth.values()):
        scores[row, [place[name] for name in entry["good"] + entry["ok"]]] = 1
        scores[row, [place[name] for name in entry["junk"]]] = 2  # in front of everything, and yet out of the list
    (tmp_path / "names.txt").write_text("\n".join(names))
    path = str(REAL / "oxford5k_allsouls" / "gnd_oxford5k.json")
    benchmark = zoo.create("benchmark", "oxford", ground_truth=path, gallery=str(tmp_path / "names.txt"))
    report = judged(benchmark, dense(scores, tuple(truth), names))
    assert values(report, "map_trapezoid") == [1.0] * 55
    assert report.fingerprint["gallery"] == 5063
    report = judged(benchmark, dense(-scores, tuple(truth), names))
    wanted = []
    for entry in truth.values():
        good, junk = len(entry["good"] + entry["ok"]), len(entry["junk"])
        before = 5063 - junk - good
        wanted.append(sum((n / (before + n) + (n + 1) / (before + n + 1)) / 2 for n in range(good)) / good)
    assert values(report, "map_trapezoid") == pytest.approx(wanted)


def test_revisited_reads_a_pickle_in_three_settings(tmp_path):
    gnd = [
        {"bbx": [0, 0, 5, 5], "easy": [1, 2], "hard": [3, 4, 5], "junk": [6]},
        {"bbx": [0, 0, 5, 5], "easy": [], "hard": [7], "junk": []},
        {"bbx": [0, 0, 5, 5], "easy": [8], "hard": [], "junk": [9, 10]},
    ]
    with (tmp_path / "gnd_made.pkl").open("wb") as file:
        pickle.dump({"imlist": list(NAMES), "qimlist": list(QUERIES), "gnd": gnd}, file, protocol=2)
    benchmark = zoo.create("benchmark", "revisited", ground_truth=str(tmp_path / "gnd_made.pkl"))
    scores = random_scores(seed=3)
    report = judged(benchmark, dense(scores))
    readings = {
        "easy": (["easy"], ["junk", "hard"]),
        "medium": (["easy", "hard"], ["junk"]),
        "hard": (["hard"], ["junk", "easy"]),
    }
    for setting, (relevant, ignored) in readings.items():
        for query, entry in enumerate(gnd):
            good = {NAMES[place] for group in relevant for place in entry[group]}
            junk = {NAMES[place] for group in ignored for place in entry[group]}
            ranked = order(scores[query], drop=junk)
            found = {label: cell.per_query[query] for label, cell in report.own.cells.items()}
            if not good:
                assert np.isnan(found[f"{setting}/map_trapezoid"])
                assert np.isnan(found[f"{setting}/mp@5"])
                continue
            assert found[f"{setting}/map_trapezoid"] == pytest.approx(trapezoid(ranked, good))
            for k in (1, 5, 10):
                capped = min(k, 1 + max(ranked.index(name) for name in good))
                share = sum(name in good for name in ranked[:capped]) / capped
                assert found[f"{setting}/mp@{k}"] == pytest.approx(share)
    assert list(report.own.cells)[:4] == ["easy/map_trapezoid", "easy/mp@1", "easy/mp@5", "easy/mp@10"]
    with pytest.raises(ValueError, match="is it another benchmark's"):
        judged(zoo.create("benchmark", "oxford", ground_truth=str(tmp_path / "gnd_made.pkl")), dense(scores))


def test_lists_by_partial_rankings_equal_whole_galleries_cut_off(tmp_path):
    truth = {"qa": ["i04", "i05", "i06"], "qb": {"relevant": ["i00"], "junk": ["i01"]}, "qc": ["i20", "i29"]}
    path = write_json(tmp_path / "gnd.json", truth)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    benchmark = zoo.create("benchmark", "lists", ground_truth=path, gallery=str(tmp_path / "names.txt"), k=[1, 3, 8])
    scores = random_scores(seed=5)
    whole = judged(benchmark, dense(scores))
    extra = [zoo.create("metrics", "ndcg", k=8), zoo.create("metrics", "map", k=8)]
    benchmark.add_metrics(extra)
    ranked = tuple(tuple(order(row)[: 12 - number]) for number, row in enumerate(scores))  # of unequal length
    partial = judged(benchmark, Predictions(QUERIES, None, ranked=ranked))
    for label in ("recall@1", "recall@3", "recall@8"):
        assert values(partial, label) == values(whole, label)
    again = judged(benchmark, dense(scores))
    assert values(partial, "map@8") == pytest.approx(values(again, "map@8"))
    assert values(partial, "ndcg@8") == pytest.approx(values(again, "ndcg@8"))
    assert partial.fingerprint == whole.fingerprint  # extra metrics don't make another protocol


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the score matrices in {REAL}")
@pytest.mark.parametrize(
    ("name", "array", "recall"),
    [("corridor", "NetVLAD", 0.676), ("corridor", "ap-gem-r101", 0.532), ("corridor", "HybridNet", 0.901),
     ("SPEDTEST", "NetVLAD", 0.679)],
)  # fmt: skip
def test_recall_of_published_score_matrices(name, array, recall):
    from zoo.evaluation.predictions import read_predictions

    truth = str(REAL / "vpr_bench" / "ground_truth" / f"{name}.json")
    predictions = read_predictions(REAL / "vpr_bench" / "scores" / f"{name}.npz", array)
    report = judged(zoo.create("benchmark", "lists", ground_truth=truth), predictions)
    assert report.own.cells["recall@1"].mean == pytest.approx(recall, abs=5e-4)


def test_graded_equals_scikit_learn_and_leaves_the_query_out(tmp_path):
    rng = np.random.default_rng(1)
    gains = rng.integers(0, 4, (3, 30)).astype(float)
    truth = {
        f"i{query:02}": {name: gain for name, gain in zip(NAMES, gains[query], strict=True) if gain}
        for query in range(3)
    }
    path = write_json(tmp_path / "gains.json", truth)
    predictions = dense(random_scores(seed=7), NAMES[:3])
    for gain, transform in (("linear", gains), ("exponential", 2**gains - 1)):
        benchmark = zoo.create("benchmark", "graded", ground_truth=path, gain=gain, k=[5, None])
        report = judged(benchmark, predictions)
        for query in range(3):
            others = np.arange(30) != query
            for k, cell in zip((5, None), report.own.cells.values(), strict=True):
                wanted = ndcg_score(
                    transform[query : query + 1, others], predictions.scores[query : query + 1, others], k=k
                )
                assert cell.per_query[query] == pytest.approx(wanted)


def test_instances_leave_one_out(tmp_path):
    labels = ["cat", "dog", "cat", "dog", "cat", "eel"]
    rows = "\n".join(f"{name},{label}" for name, label in zip(NAMES, labels, strict=False))
    (tmp_path / "labels.csv").write_text("image,label\n" + rows)
    scores = random_scores(6, 6, seed=2)
    np.fill_diagonal(scores, 9.0)  # itself in front: must not count
    benchmark = zoo.create("benchmark", "instances", labels=str(tmp_path / "labels.csv"))
    report = judged(benchmark, dense(scores, NAMES[:6], NAMES[:6]))
    wanted = []
    for query, label in enumerate(labels):
        ranked = [NAMES[place] for place in np.argsort(-scores[query], kind="stable") if place != query]
        good = {name for name, other in zip(NAMES, labels, strict=False) if other == label} - {NAMES[query]}
        wanted.append(finite(ranked, good) if good else np.nan)
    assert values(report, "map") == pytest.approx(wanted, nan_ok=True)
    assert np.isnan(wanted[5])
    assert report.fingerprint["queries_left_out_of_gallery"] == 6


def write_msls(root):
    """Two cities: positions in metres, one panorama on each side, the second query of each city far from everything."""
    header = {"postprocessed": "key,easting,northing,unique_cluster,night,control_panel,view_direction",
              "raw": "key,lon,lat,ca,captured_at,pano", "subtask_index": "key,all"}  # fmt: skip
    for number, city in enumerate(("cph", "sf")):
        east = 1000.0 * number
        sides = {
            "query": [("q0", east), ("q1", east + 400), ("qp", east), ("q2", east + 35)],
            "database": [("d0", east + 25), ("d1", east + 26), ("d2", east + 10), ("dp", east + 1)],
        }
        for side, images in sides.items():
            folder = root / "train_val" / city / side
            folder.mkdir(parents=True)
            lines = {name: ["," + text] for name, text in header.items()}
            for row, (key, position) in enumerate(images):
                lines["postprocessed"].append(f"{row},{city}_{key},{position},0.0,{row},False,False,Forward")
                lines["raw"].append(f"{row},{city}_{key},0,0,90.0,2019-01-01,{key.endswith('p')}")
                lines["subtask_index"].append(f"{row},{city}_{key},{key != 'q2'}")
            for name, text in lines.items():
                (folder / f"{name}.csv").write_text("\n".join(text) + "\n")
    return root


def test_msls_counts_places_within_25_metres(tmp_path):
    benchmark = zoo.create("benchmark", "msls", root=str(write_msls(tmp_path)), k=[1, 2])
    ranked = {
        "cph_q0": ["cph_dp", "cph_d1", "cph_d2", "sf_d0"],  # the panorama in front does not count
        "cph_q2": ["cph_d2", "cph_d0", "cph_d1"],
        "sf_q0": ["cph_d0", "cph_d2", "sf_d0"],
        "sf_q2": ["sf_d0", "sf_d1", "sf_d2"],
    }
    predictions = Predictions(tuple(ranked), None, ranked=tuple(map(tuple, ranked.values())))
    report = judged(benchmark, predictions)
    assert list(report.query_ids) == list(ranked)  # q1 has no positive, qp is a panorama
    assert report.fingerprint["gallery"] == 6
    # q0: d0 (25 m, inclusive) and d2 are positives; q2 at 35: d0, d1 and d2 (25 m).
    assert values(report, "recall@1") == [0, 1, 0, 1]
    assert values(report, "recall@2") == [1, 1, 0, 1]
    assert values(report, "map@2") == pytest.approx([0.25, 1, 0, 1])
    leaderboard = zoo.create("benchmark", "msls_leaderboard", root=str(tmp_path), k=[1, 2])
    other = judged(leaderboard, predictions)
    assert list(other.query_ids) == ["cph_q0", "sf_q0"]
    assert other.fingerprint["hash"] != report.fingerprint["hash"]


def test_predictions_must_cover_the_protocol(tmp_path):
    path = write_json(tmp_path / "gnd.json", {"qa": ["i00"], "qb": ["i01"], "qc": ["i29"]})

    def lists(**changed):
        return zoo.create("benchmark", "lists", ground_truth=path, **changed)

    scores = random_scores()
    with pytest.raises(ValueError, match=r"1 listed images, 'i29' for one, are not in the gallery.*'i00'.*restrict"):
        judged(lists(), dense(scores[:, :29], names=NAMES[:29]))
    report = judged(lists(incomplete="restrict"), dense(scores[:, :29], names=NAMES[:29]))
    assert np.isnan(values(report, "map")[2])
    with pytest.raises(ValueError, match="predictions must cover every query, 1 are missing, 'qc' first"):
        judged(lists(), dense(scores[:2], queries=QUERIES[:2]))
    some = Predictions(QUERIES, None, ranked=(("i00",), ("i01", "zz"), ("i29",)))
    with pytest.raises(ValueError, match="nothing names the whole gallery"):
        judged(lists(), some)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    with pytest.raises(ValueError, match="predictions of query 'qb' name 'zz', not in the gallery"):
        judged(lists(gallery=str(tmp_path / "names.txt")), some)
    with pytest.raises(FileNotFoundError, match="gallery must be a text file"):
        judged(lists(gallery="/nowhere.txt"), some)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [("lists", "k", [0]), ("lists", "k", [5, 5]), ("lists", "k", []), ("oxford", "incomplete", "ignore"),
     ("lists", "k", 5), ("oxford", "ground_truth", ""), ("oxford", "kept", -1), ("oxford", "sheet_queries", -1),
     ("graded", "gain", "square"), ("revisited", "settings", ["simple"]), ("instances", "similarity", "jaccard")],
)  # fmt: skip
def test_wrong_argument_is_named(name, argument, value):
    needed = {"ground_truth": "x"} if name in ("lists", "graded", "revisited") else {}
    with pytest.raises(ValueError, match=argument):
        zoo.create("benchmark", name, **needed, **{argument: value})


def test_fingerprint_follows_truth_gallery_queries_and_metrics(tmp_path):
    truth = {"qa": ["i00", "i01"], "qb": ["i01"], "qc": ["i02"]}
    base = {"ground_truth": write_json(tmp_path / "a.json", truth)}
    other = {"ground_truth": write_json(tmp_path / "b.json", {**truth, "qc": ["i03"]})}

    def fingerprint(parameters, predictions):
        benchmark = zoo.create("benchmark", "lists", **parameters)
        return judged(benchmark, predictions).fingerprint

    first = fingerprint(base, dense(random_scores()))
    assert first == fingerprint(base, dense(random_scores(seed=9)))
    reordered = dense(random_scores()[:, ::-1], names=NAMES[::-1])
    assert first == fingerprint(base, reordered)
    assert first == fingerprint({**base, "k": [10, 1, 5]}, dense(random_scores()))
    variants = [
        fingerprint(other, dense(random_scores())),
        fingerprint({**base, "k": [1]}, dense(random_scores())),
        fingerprint(base, dense(random_scores(items=29), names=NAMES[:29])),
    ]
    assert len({first["hash"], *(variant["hash"] for variant in variants)}) == 4


def test_only_metrics_of_ranked_lists_are_taken(tmp_path):
    benchmark = zoo.create("benchmark", "instances")
    with pytest.raises(ValueError, match="'spearman' does not judge ranked lists"):
        benchmark.add_metrics([zoo.create("metrics", "spearman")])
    with pytest.raises(ValueError, match="'mp@10' must keep each query's value"):
        benchmark.add_metrics([zoo.create("metrics", "precision", per_query=False)])
    with pytest.raises(ValueError, match="takes none beside its own"):
        zoo.create("benchmark", "relational", cache=str(tmp_path)).add_metrics([zoo.create("metrics", "map")])
