"""The comparison of runs against plain NumPy and SciPy."""

from __future__ import annotations

import csv
import io
import json
import time

import numpy as np
import pytest
from run_files import row, write_run
from scipy.stats import permutation_test

from zoo.evaluation.compare import compare
from zoo.evaluation.glossary import in_words
from zoo.evaluation.results import RunError, read_runs

A = {"map": [0.5, 0.25, None, 1.0, 0.125], "mp@5": [0.2, 0.4, 0.6, 0.8, 1.0]}
B = {"mp@5": [0.4, 0.4, 0.8, 0.8, 1.0], "map": [0.75, None, 0.5, 1.0, 0.25]}
ANY = {"metrics": {}}  # as if the settings were the same whatever the metrics


@pytest.fixture
def runs(tmp_path):
    return read_runs([f"a={write_run(tmp_path / 'a', A)}", f"b={write_run(tmp_path / 'b', B)}"])


@pytest.fixture
def runs_of(tmp_path):
    def build(*metrics, **more):
        folders = [write_run(tmp_path / str(number), found, **more) for number, found in enumerate(metrics)]
        return read_runs([f"run{number}={folder}" for number, folder in enumerate(folders)])

    return build


def records(comparison):
    return list(csv.DictReader(io.StringIO(comparison.records().csv())))


def test_columns_are_in_the_first_runs_order(runs):
    comparison = compare(runs)
    assert comparison.metrics == ["map", "mp@5"]
    assert list(comparison.table().headers) == ["run", "map", "p", "mp@5", "p"]
    assert compare(runs, ["mp@5"]).metrics == ["mp@5"]
    assert compare(runs, ["mp@5", "map", "mp@5"]).metrics == ["mp@5", "map"]


def test_records_hold_the_numbers_of_both_queries_sets(runs):
    found = {(record["run"], record["metric"]): record for record in records(compare(runs))}
    assert list(found[("a", "map")]) == ["run", "metric", "mean", "half_width", "queries", "difference", "p", "pairs"]
    reference, other = found[("a", "map")], found[("b", "map")]
    assert (reference["queries"], reference["difference"], reference["p"]) == ("4", "", "")
    assert float(reference["mean"]) == pytest.approx(np.mean([0.5, 0.25, 1.0, 0.125]))
    assert (other["queries"], other["pairs"]) == ("4", "3")
    x, y = np.array([0.75, 1.0, 0.25]), np.array([0.5, 1.0, 0.125])
    assert float(other["difference"]) == pytest.approx((x - y).mean())
    expected = permutation_test((x, y), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples")
    assert float(other["p"]) == pytest.approx(expected.pvalue)


def test_random_runs_agree_with_scipy(runs_of):
    generator = np.random.default_rng(0)
    a, b = generator.random(120), np.clip(generator.random(120) + 0.05, 0, 1)
    line = compare(runs_of({"map": a.tolist()}, {"map": b.tolist()})).lines[1]
    expected = permutation_test((b, a), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", rng=1).pvalue
    assert line.p[0] == pytest.approx(expected, abs=4 * np.sqrt(2 * expected * (1 - expected) / 9_999))
    assert line.difference[0] == pytest.approx((b - a).mean())


def test_the_best_is_bold_and_all_that_share_it(runs_of):
    values = ({"map": [0.5, 0.5], "r": [1, 0]}, {"map": [0.2, 0.2], "r": [0, 1]}, {"map": [0.9001, 0.1], "r": [0, 0]})
    table = compare(runs_of(*values)).table()
    bold = {(table.rows[line][0], table.headers[column]) for line, column in table.bold}
    assert bold == {("run0", "map"), ("run2", "map"), ("run0", "r"), ("run1", "r")}


def test_undefined_means_are_dashes_and_never_bold(runs_of):
    table = compare(runs_of({"map": [None, None]}, {"map": [0.5, None]})).table()
    assert [cells[1:] for cells in table.rows] == [["–", "–"], ["0.500", "–"]]
    assert table.bold == {(1, 1)}
    assert not compare(runs_of({"map": [None, None]}, {"map": [None, None]})).table().bold


def test_one_run_is_a_table_without_tests_and_bold(runs_of):
    table = compare(runs_of({"map": [0.5, 0.7]})).table()
    assert list(table.headers) == ["run", "map"]
    assert not table.bold
    assert not any("permutation" in note for note in table.notes)


def test_the_caption_states_protocol_test_and_undefined_queries(runs):
    notes = " ".join(compare(runs).table().notes)
    for said in (
        "Benchmark toy: 5 queries, gallery of 5,063, fingerprint feedface.",
        "two-sided paired permutation test over queries against a ",
        "not corrected for several comparisons",
        "map: undefined queries of 5, left out: a 1, b 1; pairs tested: b 3.",
    ):
        assert said in notes
    assert "mp@5: " not in notes


def test_equally_undefined_metrics_share_a_line(runs_of):
    holes = [0.5, None, 0.25]
    notes = compare(runs_of({"x": holes, "y": holes, "z": [1, 1, 1]}, {"x": holes, "y": holes, "z": [1, 0, 1]})).table()
    assert notes.notes[-1] == "x, y: 1 of 3 queries are undefined and left out."


def test_metrics_are_those_of_all_runs(runs_of):
    comparison = compare(runs_of({"map": [0.5, 0.5], "x": [1, 1]}, {"y": [1, 1], "map": [0.5, 0.5]}, fingerprint=ANY))
    assert comparison.metrics == ["map"]


def test_unknown_metrics_and_nothing_in_common_are_refused(runs_of):
    runs = runs_of({"map": [0.5, 0.5], "easy/mp@5": [1, 1]}, {"map": [0.5, 0.5]}, fingerprint=ANY)
    with pytest.raises(RunError, match=r"run 'run0' has no metric 'easy/mp5'; it has .* Did you mean 'easy/mp@5'\?"):
        compare(runs, ["easy/mp5"])
    with pytest.raises(RunError, match=r"run 'run1' has no metric 'easy/mp@5'; it has map\."):
        compare(runs, ["easy/mp@5"])
    with pytest.raises(RunError, match="no metric in common: 'run0' x; 'run1' y"):
        compare(runs_of({"x": [1, 1]}, {"y": [1, 1]}, fingerprint=ANY))


def test_all_rows_are_compared_with_the_first_runs_own(tmp_path):
    first = {"map": [0.5, 0.25, 0.75]}
    rows = [row({"map": [0.25, 0.25, 0.25]}, "avg", False), row({"map": [1, 1, 1]}, "max", None)]
    a, b = write_run(tmp_path / "a", first, rows=rows), write_run(tmp_path / "b", {"map": [0.75, 0.5, 1]})
    comparison = compare(read_runs([f"a={a}", f"b={b}"]), all_rows=True)
    table = comparison.table()
    lines = [tuple(cells[:2]) for cells in table.rows]
    assert lines == [("a", "vector, L2"), ("a", "avg"), ("a", "max"), ("b", "vector, L2")]
    assert "│ a   │ avg        │ 0.250 ± 0.000 │" in table.text()
    assert "begin{tabular}{llrr}" in table.latex()
    assert "against a, vector, L2" in " ".join(table.notes)
    found = records(comparison)
    assert [record["l2_normalised"] for record in found] == ["true", "false", "", "true"]
    assert [record["difference"] for record in found] == ["", "-0.25", "0.5", "0.25"]
    assert [record["p"] for record in found] == ["", "0.5", "0.25", "0.25"]


def test_large_runs_take_seconds(tmp_path):
    generator = np.random.default_rng(0)
    names = [f"{'map' if k == 20 else 'recall'}@{k}" for k in (1, 5, 10, 20)]
    runs = []
    for number in range(3):
        metrics = {name: generator.random(11_000).round(3).tolist() for name in names}
        runs.append(f"r{number}={write_run(tmp_path / str(number), metrics)}")
    start = time.process_time()
    comparison = compare(read_runs(runs))
    assert time.process_time() - start < 20  # measured: 1.3
    assert np.isfinite(comparison.lines[2].p).all()


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("map", "mean average precision"),
        ("map_trapezoid", "trapezoid"),
        ("easy/mp@5", "first 5, or up to the last relevant item where that comes sooner (easy)"),
        ("hard/mp@10", "first 10, or up to the last relevant item where that comes sooner (hard)"),
        ("p@5", "mean precision of the first 5"),
        ("recall@1", "share of queries with a relevant item among the first 1"),
        ("recall_fraction@10", "among the first 10"),
        ("spearman/authors_soft", "Spearman's rank correlation with the ground truth (authors soft)"),
        ("ndcg_exp@10", "gains 2^g - 1"),
    ],
)
def test_metrics_are_put_into_words(label, words):
    assert words in in_words(label)


def test_a_metric_of_a_plugin_has_no_words():
    assert in_words("acme_score") == ""


def test_records_are_plain_numbers(runs):
    for record in records(compare(runs)):
        assert np.isfinite(
            [float(value) for key, value in record.items() if key not in ("run", "metric") and value]
        ).all()
        json.dumps(record)
