"""Ranked lists from files and from vectors: kept items, ties, number types, short lists, shares of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ranked_runs import NAMES, QUERIES, dense, judged, order, random_scores, values, write_json

import zoo
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.protocol import Shard
from zoo.evaluation.ranked_lists import from_vectors
from zoo.evaluation.source import Source


def test_scores_of_vectors_are_the_similarities():
    queries, gallery = torch.randn(5, 7), torch.randn(9, 7)
    wanted = {
        "cosine": torch.cosine_similarity(queries[:, None], gallery[None], dim=2),
        "dot": queries @ gallery.T,
        "l2": -torch.cdist(queries, gallery),
    }
    for similarity, scores in wanted.items():
        parts = list(from_vectors(queries, gallery, torch.tensor([1, 4]), similarity))
        assert torch.cat([part.rows for part in parts]).tolist() == [1, 4]
        assert torch.allclose(torch.cat([part.scores for part in parts]).float(), scores[[1, 4]], atol=1e-5)


def test_ndcg_of_lists_shorter_than_what_is_relevant_expects_it_all(tmp_path):
    truth = {"qa": list(NAMES[:5]), "qb": ["i06"]}
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    path, names = write_json(tmp_path / "gnd.json", truth), str(tmp_path / "names.txt")
    benchmark = zoo.create("benchmark", "lists", ground_truth=path, gallery=names)
    benchmark.add_metrics([zoo.create("metrics", "ndcg", k=20)])
    discount = 1 / np.log2(np.arange(2, 7))
    for ranked in ((("i00", "i01"), ("i06",)), (("i00", "i01"), ("i06", *NAMES[10:20])), ((), ())):
        report = judged(benchmark, Predictions(("qa", "qb"), None, ranked=ranked))
        found = len(ranked[0])
        assert values(report, "ndcg@20") == pytest.approx([discount[:found].sum() / discount.sum(), float(found > 0)])


def test_kept_lists_break_ties_as_the_metrics_do(tmp_path):
    path = write_json(tmp_path / "gnd.json", {"qa": ["i00"], "qb": ["i01"], "qc": ["i29"]})
    scores = np.random.default_rng(0).integers(0, 3, (3, 30)).astype(float)
    scores[1, :25] = -np.inf  # is a score as any other
    benchmark = zoo.create("benchmark", "lists", ground_truth=path, kept=7)
    judged(benchmark, dense(scores))
    queries = benchmark.rankings_of(benchmark.prediction_lists(dense(scores), ""), "predictions").queries
    for row, query in zip(scores, queries, strict=True):
        assert [item.id for item in query.ranked] == order(row)[:7]


def test_matrices_without_names_take_those_of_the_truth_where_the_shape_fits(tmp_path):
    path = write_json(tmp_path / "gnd.json", {"qa": ["i00"], "qb": ["i01"], "qc": ["i29"]})
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    benchmark = zoo.create("benchmark", "lists", ground_truth=path, gallery=str(tmp_path / "names.txt"))
    scores = random_scores()
    report = judged(benchmark, Predictions(None, None, scores=scores))
    assert values(report, "map") == values(judged(benchmark, dense(scores)), "map")
    with pytest.raises(ValueError, match="the matrix has 2 query items without names, and 3 are known"):
        judged(benchmark, Predictions(None, None, scores=scores[:2]))
    for half in (Predictions(QUERIES, None, scores=scores), Predictions(None, NAMES, scores=scores)):
        assert values(judged(benchmark, half), "map") == values(report, "map")
    bare = zoo.create("benchmark", "lists", ground_truth=path)
    assert values(judged(bare, Predictions(None, NAMES, scores=scores)), "map") == values(report, "map")
    with pytest.raises(
        ValueError, match=r"30 gallery items without names, and nothing names them; .*benchmark\.gallery"
    ):
        judged(bare, Predictions(QUERIES, None, scores=scores))
    benchmark.open_source(Source(QUERIES, NAMES, None, True))
    with pytest.raises(ValueError, match="a row for each of the 3 queries, got 2"):
        benchmark.score_predictions(Predictions(None, NAMES, scores=scores[:2]))


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.uint16, np.uint64, np.int8, ">f4", ">i8"])
def test_scores_of_any_number_type_rank_alike(tmp_path, dtype):
    path = write_json(tmp_path / "gnd.json", {"qa": ["i00"], "qb": ["i01"], "qc": ["i29"]})
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(30), (3, 1)), axis=1)
    benchmark = zoo.create("benchmark", "lists", ground_truth=path)
    assert values(judged(benchmark, dense(scores.astype(dtype))), "map") == values(
        judged(benchmark, dense(scores)), "map"
    )


def test_scores_do_not_depend_on_how_many_queries_are_multiplied_at_a_time():
    queries, gallery = torch.randn(40, 300), torch.randn(200, 300)
    gallery[100:] = gallery[:100].flip(0)  # duplicates must tie
    for similarity in ("cosine", "dot", "l2"):
        whole = next(iter(from_vectors(queries, gallery, torch.arange(40), similarity))).scores
        shares = [next(iter(from_vectors(queries, gallery, rows, similarity))) for rows in torch.arange(40).split(7)]
        assert torch.equal(torch.cat([share.scores for share in shares]), whole)
        assert torch.equal(whole[:, 100:].flip(1), whole[:, :100])


def test_more_ranks_than_queries_leave_some_without_work():
    rows = [Shard(rank, 5).rows(3).tolist() for rank in range(5)]
    assert rows == [[0], [1], [2], [], []]


def test_queries_without_anything_to_find_are_told_and_left_out(tmp_path):
    path = write_json(tmp_path / "gnd.json", {"qa": ["i00"], "qb": [], "qc": []})
    benchmark = zoo.create("benchmark", "lists", ground_truth=path)
    report = judged(benchmark, dense(random_scores()))
    assert benchmark.notes == ("queries left out of the means because nothing is relevant to them: 2 of 3",)
    assert report.own.cells["map"].mean == values(report, "map")[0]
    path = write_json(tmp_path / "none.json", {"qa": [], "qb": [], "qc": []})
    with pytest.raises(ValueError, match="nothing in the gallery is relevant to any query"):
        judged(zoo.create("benchmark", "lists", ground_truth=path), dense(random_scores()))


def test_labels_must_cover_the_gallery_unless_it_is_restricted(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\n" + "\n".join(f"{name},x" for name in NAMES[:4]))
    labels = str(tmp_path / "labels.csv")
    predictions = dense(random_scores(5, 5), NAMES[:5], NAMES[:5])
    with pytest.raises(ValueError, match=r"labels must name every image of the gallery, 1 are missing, 'i04' first"):
        judged(zoo.create("benchmark", "instances", labels=labels), predictions)
    report = judged(zoo.create("benchmark", "instances", labels=labels, incomplete="restrict"), predictions)
    assert report.fingerprint["gallery"] == 4
    (tmp_path / "labels.csv").write_bytes("image,label\ncafé,x".encode("latin1"))
    with pytest.raises(ValueError, match=r"labels\.csv can't be read as CSV in UTF-8 \(.*utf-8"):
        zoo.create("benchmark", "instances", labels=labels).read(Source(None, None, None, True))


def test_no_list_is_kept_where_none_is_wanted(tmp_path):
    path = write_json(tmp_path / "gnd.json", {"qa": ["i00"], "qb": ["i01"], "qc": ["i29"]})
    benchmark = zoo.create("benchmark", "lists", ground_truth=path, kept=0)
    judged(benchmark, dense(random_scores()))
    queries = benchmark.rankings_of(benchmark.prediction_lists(dense(random_scores()), ""), "predictions").queries
    assert [query.ranked for query in queries] == [[], [], []]


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e19, 1e37])
def test_similarities_keep_their_order_at_any_size(size):
    queries, gallery = torch.randn(4, 8) * size, torch.randn(30, 8) * size
    for similarity in ("dot", "l2", "cosine"):
        scores = next(iter(from_vectors(queries, gallery, torch.arange(4), similarity))).scores
        usual = next(iter(from_vectors(queries / size, gallery / size, torch.arange(4), similarity))).scores
        assert torch.equal(scores.argsort(dim=1, stable=True), usual.argsort(dim=1, stable=True)), similarity


def test_descriptors_that_are_not_finite_are_refused():
    gallery = torch.ones(3, 2)
    gallery[1, 0] = torch.inf
    with pytest.raises(ValueError, match="descriptors must be finite, got others for gallery 1"):
        next(iter(from_vectors(torch.ones(1, 2), gallery, torch.arange(1), "dot")))
