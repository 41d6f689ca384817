"""Graded relevance of items listed for each query, as in rPascal, and nDCG over k: against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ranked_runs import NAMES, QUERIES, dense, judged, order, random_scores, values, write_json
from sklearn.metrics import ndcg_score

import zoo
from zoo.evaluation.curves import points_of, write_curve
from zoo.evaluation.record import write_run
from zoo.evaluation.report import Cell, Report, Row

CUT_OFFS = [1, 2, 3, 5, 8, None]


def truth(seed=0):
    """Returns for each query some 12 of 30 items with gains 0 … 3, as rPascal has references of its own for each."""
    drawn = np.random.default_rng(seed)
    chosen = {query: drawn.choice(30, 12, replace=False) for query in QUERIES}
    return {query: {NAMES[i]: int(drawn.integers(0, 4)) for i in items} for query, items in chosen.items()}


def benchmark(path, **changed):
    gallery = path.parent / "gallery.txt"
    gallery.write_text("\n".join(NAMES))
    settings = {"k": CUT_OFFS, "candidates": "listed", "gallery": str(gallery), "leave_out_query": False, **changed}
    return zoo.create("benchmark", "graded", ground_truth=str(path), **settings)


@pytest.mark.parametrize(("gain", "label"), [("linear", "ndcg"), ("exponential", "ndcg_exp")])
def test_each_query_ranks_what_is_listed_for_it(tmp_path, gain, label):
    gains, scores = truth(), random_scores(seed=3)
    write_json(tmp_path / "gains.json", gains)
    report = judged(benchmark(tmp_path / "gains.json", gain=gain), dense(scores))
    for k in CUT_OFFS:
        wanted = []
        for query, own in enumerate(gains.values()):
            items = [NAMES.index(name) for name in own]
            worth = np.array(list(own.values()), float)
            worth = 2**worth - 1 if gain == "exponential" else worth
            wanted.append(ndcg_score(worth[None], scores[query, items][None], k=k))
        assert values(report, label if k is None else f"{label}@{k}") == pytest.approx(wanted)
    whole = judged(benchmark(tmp_path / "gains.json", gain=gain, candidates="gallery"), dense(scores))
    assert values(whole, f"{label}@5") != values(report, f"{label}@5")
    assert whole.fingerprint["hash"] != report.fingerprint["hash"]


def test_listed_items_of_no_gain_are_part_of_the_protocol(tmp_path):
    gains, scores = truth(), dense(random_scores())
    prints = []
    for changed in (gains, {**gains, "qa": {**gains["qa"], next(n for n in NAMES if n not in gains["qa"]): 0}}):
        write_json(tmp_path / "gains.json", changed)
        report = [
            judged(benchmark(tmp_path / "gains.json", candidates=which), scores).fingerprint["hash"]
            for which in ("listed", "gallery")
        ]
        prints.append(report)
    assert prints[0][0] != prints[1][0]
    assert prints[0][1] == prints[1][1]


def test_ranked_lists_show_what_is_ranked_alone(tmp_path):
    gains, scores = truth(), random_scores(seed=3)
    write_json(tmp_path / "gains.json", gains)
    judging = benchmark(tmp_path / "gains.json")
    judged(judging, dense(scores))
    shown = judging.rankings_of(judging.prediction_lists(dense(scores), "x"), "x").queries
    for query, (ranked, own) in enumerate(zip(shown, gains.values(), strict=True)):
        wanted = sorted(own, key=lambda name: -scores[query, NAMES.index(name)])
        assert [item.id for item in ranked.ranked] == wanted


def test_what_is_ranked_is_one_of_two(tmp_path):
    write_json(tmp_path / "gains.json", truth())
    with pytest.raises(ValueError, match="candidates must be one of gallery, listed, got 'some'"):
        benchmark(tmp_path / "gains.json", candidates="some")


def report_of(rows, curve="ndcg"):
    made = [
        Row(label, None, {(f"ndcg@{k}" if k else "ndcg"): Cell(mean, half, []) for k, mean, half in cells})
        for label, cells in rows.items()
    ]
    return Report("Graded relevance", made, made[0], {"queries": 3, "gallery": 9, "hash": "x"}, QUERIES, curve=curve)


CELL = st.tuples(st.floats(0, 1), st.one_of(st.just(math.nan), st.floats(0, 0.5)))


@settings(max_examples=30)
@given(st.data(), st.lists(st.integers(1, 500), min_size=2, max_size=12, unique=True), st.integers(1, 7))
def test_any_curve_can_be_drawn(tmp_path_factory, data, cut_offs, count):
    folder = tmp_path_factory.mktemp("curve")
    rows = {f"row {n}": [(k, *data.draw(CELL)) for k in [*cut_offs, None]] for n in range(count)}
    report = report_of(rows)
    assert [k for k, _ in points_of(report, "ndcg")["row 0"]] == [*sorted(cut_offs), None]
    write_curve(report, "ndcg", folder)
    assert Image.open(folder / "curve.png").size[0] == 640


def test_a_curve_is_where_its_values_are(tmp_path):
    write_curve(report_of({"one": [(1, 0.0, math.nan), (11, 1.0, math.nan)]}), "ndcg", tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero((np.abs(pixels - (31, 119, 180)).max(axis=2) < 3)[:400])
    assert rows[columns.argmin()] - rows[columns.argmax()] > 250  # rises from left to right
    assert columns.max() - columns.min() > 500
    middle = (columns > 330) & (columns < 340)
    assert abs(rows[middle].mean() - (rows.min() + rows.max()) / 2) < 12


def test_a_single_cut_off_makes_no_curve(tmp_path):
    write_curve(report_of({"one": [(5, 0.5, 0.1), (None, 0.4, 0.1)]}), "ndcg", tmp_path)
    assert not (tmp_path / "curve.png").exists()


def test_the_run_keeps_picture_and_table(tmp_path, capsys):
    whole = [(5, 0.5, 0.1), (1, 0.25, math.nan), (None, 0.75, 0.1)]
    rows = {"map": whole, "codes": [(5, 0.4, 0.1), (1, 0.2, 0.1), (None, 0.7, 0)]}
    write_run(report_of(rows), None, tmp_path, {})
    table = (tmp_path / "table.md").read_text()
    assert "| k | map | codes |" in table
    assert "| 1 | 0.250 | 0.200 ± 0.100 |\n| 5 | 0.500 ± 0.100 | 0.400 ± 0.100 |\n| all | 0.750 ± 0.100" in table
    assert "ndcg over k" in capsys.readouterr().out
    assert (tmp_path / "curve.png").is_file()
    (tmp_path / "other").mkdir()
    write_run(report_of(rows, curve=None), None, tmp_path / "other", {})
    assert not (tmp_path / "other/curve.png").exists()


def test_zoo_score_writes_the_curve(command, tmp_path):
    write_json(tmp_path / "gains.json", truth())
    scores = random_scores(seed=3)
    listed = {name for gains in truth().values() for name in gains}  # the gallery, as nothing else names one
    ranked = {query: [name for name in order(scores[place]) if name in listed] for place, query in enumerate(QUERIES)}
    write_json(tmp_path / "ranked.json", ranked)
    words = "predictions=ranked.json", "benchmark.ground_truth=gains.json", "benchmark.candidates=listed"
    done = command("zoo", "score", "benchmark=graded", *words, "benchmark.k=[1,2,5,10]", "paths.run_dir=out")
    assert "ndcg over k" in done.stdout
    folder = next(path.parent for path in tmp_path.rglob("curve.png"))
    results = json.loads((folder / "results.json").read_text())
    assert list(results["rows"][0]["metrics"]) == ["ndcg@1", "ndcg@2", "ndcg@5", "ndcg@10"]
