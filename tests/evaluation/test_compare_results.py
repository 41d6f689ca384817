"""Runs are read only where they are whole, and compared only where they are alike."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from run_files import ranked, write_run

from zoo.evaluation.results import RunError, read_rankings, read_run, read_runs

METRICS = {"map": [0.5, None, 0.25], "mp@5": [1, 0, 0.2]}


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "a", METRICS, rows=[])


def change(run, edit):
    file = run / "results.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def test_a_run_is_read_from_its_folder_or_its_file(run):
    for path in (run, run / "results.json"):
        found = read_run(path)
        assert (found.name, found.folder, list(found.query_ids)) == ("toy_run", run, ["q0", "q1", "q2"])
        score = found.own.scores["map"]
        np.testing.assert_array_equal(score.per_query, [0.5, np.nan, 0.25])
        assert score.mean == 0.375
        assert found.own.label == "vector, L2"
        assert list(found.own.scores) == ["map", "mp@5"]
        assert found.about["model"]["name"] == "two_stage_rn"


def test_an_undefined_mean_is_nan(tmp_path):
    score = read_run(write_run(tmp_path, {"map": [None, None]})).own.scores["map"]
    assert np.isnan([score.mean, score.half_width]).all()


def test_names_are_given_or_told_apart_by_folders(tmp_path):
    for place in ("x/one/run", "x/two/run", "y/two/run", "z"):
        write_run(tmp_path / place, METRICS, run_name="other" if place == "z" else "toy")
    words = [str(tmp_path / place) for place in ("x/one/run", "x/two/run", "z")]
    assert [run.name for run in read_runs(words)] == ["toy (one/run)", "toy (two/run)", "other"]
    words = [str(tmp_path / "x/two/run"), str(tmp_path / "y/two/run"), f"mine={tmp_path / 'x/one/run'}"]
    assert [run.name for run in read_runs(words)] == ["toy (x/two/run)", "toy (y/two/run)", "mine"]


def test_a_multirun_is_all_of_its_runs_named_by_what_was_swept(tmp_path):
    for number in (0, 1, 2, 10):
        overrides = {"overrides": ["data=toy", f"reranker.aqe.k={number}"]}
        write_run(tmp_path / "many" / str(number), METRICS, **overrides)
    runs = read_runs([str(tmp_path / "many")])
    assert [run.name for run in runs] == [f"toy_run (reranker.aqe.k={number})" for number in (0, 1, 2, 10)]
    with pytest.raises(RunError, match="holds 4 runs, which can't all be called 'mine'"):
        read_runs([f"mine={tmp_path / 'many'}"])


def test_runs_with_the_same_overrides_are_told_apart_by_folders(tmp_path):
    words = [str(write_run(tmp_path / name, METRICS, overrides=[f"seed={name == 'c'}"])) for name in "abc"]
    assert [run.name for run in read_runs(words)] == ["toy_run (a)", "toy_run (b)", "toy_run (seed=True)"]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    write_run(tmp_path / "model.aggregation=avg", METRICS)
    monkeypatch.chdir(tmp_path)
    assert [run.name for run in read_runs(["model.aggregation=avg"])] == ["toy_run"]
    assert [run.name for run in read_runs(["avg=model.aggregation=avg"])] == ["avg"]
    with pytest.raises(RunError, match=r"there is no /none/model=x"):
        read_runs(["/none/model=x"])


def test_equal_names_and_a_run_given_twice_are_refused(tmp_path):
    a, b = (write_run(tmp_path / name, METRICS) for name in "ab")
    with pytest.raises(RunError, match="two runs are called 'x'; give each its own name"):
        read_runs([f"x={a}", f"x={b}"])
    with pytest.raises(RunError, match="is given twice"):
        read_runs([str(a), str(a / "results.json")])
    assert [run.name for run in read_runs([f"x={a}", f"y={a}"])] == ["x", "y"]
    for word in ("=somewhere", "name="):
        with pytest.raises(RunError, match="RUN or NAME=RUN"):
            read_runs([word])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("schema"), "older zoo .schema 1, this one reads 2.; run `zoo eval` again"),
        (lambda c: c.update(schema="x"), "older zoo .schema 'x'"),
        (lambda c: c.update(schema=3), "newer zoo .schema 3, this one reads 2.; update"),
        (lambda c: c.pop("rows"), "is not a results.json of `zoo eval`"),
        (lambda c: c.pop("query_ids"), "damaged: it lacks 'query_ids'"),
        (lambda c: c.pop("own"), "damaged: it lacks 'own'"),
        (lambda c: c.update(own=1), "own must be a position below 1, got 1"),
        (lambda c: c.update(rows=[]), "own must be a position below 0"),
        (lambda c: c["fingerprint"].pop("hash"), "damaged: it lacks 'hash'"),
        (lambda c: c["query_ids"].append("more"), "counts 3 queries, query_ids names 4"),
        (lambda c: c["rows"][0]["metrics"].clear(), "row 'vector' has no metric"),
        (lambda c: c["rows"][0]["metrics"]["map"]["per_query"].pop(), "'map' has 2 per-query values for 3 queries"),
        (lambda c: c["rows"][0]["metrics"]["map"].update(per_query=["a", "b", "c"]), "damaged: could not convert"),
        (lambda c: c["rows"][0]["metrics"]["map"].update(mean="much"), "damaged: could not convert"),
        (lambda c: c.update(rows=5), "damaged"),
        (lambda c: c.update(fingerprint=None), "damaged"),
        (lambda c: c.update(model="rn"), "damaged: model must be a dict, got 'rn'"),
        (lambda c: c.update(command="zoo"), "damaged: command must be a list, got 'zoo'"),
    ],
)
def test_damaged_foreign_and_other_files_are_refused(run, edit, message):
    file = change(run, edit)
    with pytest.raises(RunError, match=message) as caught:
        read_run(run)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"schema": 2', "[1, 2]", "null", "\x00", '"rows"', "[" * 100_000])
def test_files_that_are_no_results_are_refused(run, text):
    (run / "results.json").write_text(text)
    with pytest.raises(RunError, match=r"results\.json (is damaged or no JSON|is not a results\.json)"):
        read_run(run)


def test_a_cut_off_or_binary_file_is_refused(run):
    file = run / "results.json"
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"\xff\xfe" + whole):
        file.write_bytes(broken)
        with pytest.raises(RunError, match="damaged"):
            read_run(run)


def test_a_missing_run_says_what_a_run_is(tmp_path):
    with pytest.raises(RunError, match=r"there is no .*results\.json; a run is the folder that `zoo eval`"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("other", "said", "unsaid"),
    [
        ({"gallery": 11084, "hash": "x"}, "gallery: 5,063 against 11,084", "hash"),
        ({"benchmark": "oxford"}, "benchmark: toy against oxford", "gallery"),
        ({"truth": "99"}, "truth: 22cc against 99", "gallery"),
        (
            {"metrics": {"map": {"k": 10}}},
            "metrics.map.k: None against 10; metrics.mp@5.k: None against nothing",
            "hash",
        ),
        ({"hash": "other"}, "hash: feedface against other", "gallery"),
        ({"extra": True}, "extra: nothing against True", "hash"),
    ],
)
def test_unlike_runs_are_refused_with_what_differs(tmp_path, run, other, said, unsaid):
    words = [str(run), f"b={write_run(tmp_path / 'b', METRICS, fingerprint=other)}"]
    with pytest.raises(RunError, match="'b' can't be compared with 'toy_run'") as caught:
        read_runs(words)
    assert said in str(caught.value)
    assert f"{unsaid}:" not in str(caught.value)


def test_unlike_sizes_are_said_in_full(tmp_path):
    a = write_run(tmp_path / "a", {"map": [0.5] * 740})
    b = write_run(tmp_path / "b", {"map": [0.5] * 11_084}, fingerprint={"query_ids": "other"})
    with pytest.raises(RunError, match="queries: 740 against 11,084; query_ids: 11bb against other"):
        read_runs([f"a={a}", f"b={b}"])


def test_other_query_names_under_one_fingerprint_are_refused(tmp_path, run):
    other = write_run(tmp_path / "b", METRICS, query_ids=["x", "y", "z"])
    with pytest.raises(RunError, match="the names of the queries"):
        read_runs([f"a={run}", f"b={other}"])


LISTS = [
    ranked(2, "q2", [("g1", 0.9, "relevant", None), ("g2", float("nan"), "junk", "gt 1"), ("g3", 0, None, None)]),
    ranked(0, "q0", [("g1", -1, "irrelevant", None)], image="g9", box=[1, 2, 3, 4], relevant_total=7),
]


def test_rankings_are_read_as_far_as_they_are_wanted(tmp_path):
    run = read_run(write_run(tmp_path, METRICS, rankings=LISTS))
    found = read_rankings(run, [0, 1, 2], top=2)
    assert [query.id for query in found.queries] == ["q2", "q0"]
    assert [item.id for item in found.queries[0].ranked] == ["g1", "g2"]
    assert np.isnan(found.queries[0].ranked[1].score)
    assert found.queries[0].ranked[1].note == "gt 1"
    assert (found.queries[1].box, found.queries[1].relevant_total) == ((1, 2, 3, 4), 7)
    assert [query.id for query in read_rankings(run, [0], top=9).queries] == ["q0"]
    assert (found.score, found.gallery_split, found.setting) == ("cosine similarity", "gallery", None)


def test_a_run_without_lists_has_none(run):
    assert read_rankings(read_run(run), [0], 5) is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(fingerprint="other"), "of different evaluations"),
        (lambda c: c["queries"][0].update(id="q1"), "query 2 is 'q1', but 'q2' in results.json"),
        (lambda c: c["queries"][1].update(box=[1, 2]), "'q0' needs a box of 4 numbers"),
        (lambda c: c["queries"][1].update(box=[1, 2, 3, "x"]), "damaged: could not convert"),
        (lambda c: c["queries"][1].update(relevant_total="many"), "damaged: invalid literal"),
        (lambda c: c["queries"][1]["ranked"][0].update(relevance="good"), "relevance must be one of relevant, irr"),
        (lambda c: c.pop("score"), "damaged: it lacks 'score'"),
        (lambda c: c.update(queries=3), "damaged"),
    ],
)
def test_damaged_or_foreign_rankings_are_refused(tmp_path, edit, message):
    run = read_run(write_run(tmp_path, METRICS, rankings=LISTS))
    file = tmp_path / "rankings.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match=message):
        read_rankings(run, [0, 2], 5)


def test_a_moved_run_is_read(tmp_path, run):
    shutil.move(run, tmp_path / "moved")
    assert read_run(tmp_path / "moved").folder == tmp_path / "moved"
