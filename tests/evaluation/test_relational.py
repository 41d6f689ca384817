"""The relational benchmark against a plain computation with SciPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr, t

import zoo
from zoo.evaluation.collect import Collected
from zoo.evaluation.pictures import CAPTION, GAP, TILE, TITLE
from zoo.evaluation.protocol import Shard
from zoo.truth import SceneGraph, edit_distance

SHARD = Shard()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("data"))
    module = zoo.create(
        "data", "sort_of_clevr", root=root, train_size=4, val_size=4, test_size=4, gallery_size=30, batch_size=8
    )
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def benchmark(tmp_path):
    return zoo.create("benchmark", "relational", queries=7, cache=str(tmp_path / "truth"))


def collected(data, dim=5):
    rows = torch.randn(data.size("gallery"), dim, generator=torch.Generator().manual_seed(1))
    return {"gallery": Collected(torch.arange(len(rows)), {"mine": rows}, {"accuracy": 0.5})}


def test_cells_equal_a_loop_over_scipy(data, benchmark):
    benchmark.prepare(data)
    report = benchmark.score(collected(data), data, "mine", SHARD)
    rows = collected(data)["gallery"].vectors["mine"].numpy()
    graphs = list(data.scene_graphs("gallery"))
    row = next(row for row in report.rows if row.label == "mine" and not row.normalised)
    assert list(row.cells) == [f"spearman/{method}_{nodes}" for method, nodes in benchmark.columns]
    for (method, nodes), cell in zip(benchmark.columns, row.cells.values(), strict=True):
        values = []
        for query in range(7):
            others = [item for item in range(30) if item != query]
            distances = cdist(rows[query : query + 1], rows[others])[0]
            truth = [edit_distance(graphs[query], graphs[item], nodes, method) for item in others]
            values.append(spearmanr(distances, truth).statistic)
        np.testing.assert_allclose(cell.per_query, values, atol=1e-9)
        assert cell.mean == pytest.approx(np.mean(values))
        low, high = t.interval(0.95, 6, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(7))
        assert cell.half_width == pytest.approx((high - low) / 2)


def test_a_descriptor_that_is_the_ground_truth_correlates_perfectly(data, tmp_path):
    """Distances to all items form a descriptor only if they embed; one query and one dimension always do."""
    benchmark = zoo.create(
        "benchmark", "relational", queries=1, nodes=["soft"], methods=["bipartite"], baselines=[], agreement=False,
        normalised=[False], cache=str(tmp_path),
    )  # fmt: skip
    truth = torch.from_numpy(np.array(benchmark.truth(data, "bipartite", "soft")))[0]
    perfect = Collected(torch.arange(30), {"perfect": truth[:, None], "reversed": (truth.max() - truth)[:, None]}, {})
    perfect.vectors["reversed"][0] = 0
    perfect = {"gallery": perfect}
    rows = {
        row.label: row.cells["spearman/bipartite_soft"].mean
        for row in benchmark.score(perfect, data, "perfect", SHARD).rows
    }
    assert rows["perfect"] == pytest.approx(1.0)
    assert rows["reversed"] == pytest.approx(-1.0)


def test_composition_row_sees_colours_only(data, benchmark):
    present = data.compositions("gallery")
    graphs = list(data.scene_graphs("gallery"))
    for bits, graph in zip(present, graphs, strict=True):
        assert set(np.flatnonzero(bits)) == set(graph.attributes[:, 0])


def test_agreement_is_between_exact_and_approximations(data, benchmark):
    report = benchmark.score(collected(data), data, "mine", SHARD)
    graphs = list(data.scene_graphs("gallery"))
    for method in ("bipartite", "authors"):
        values = []
        for query in range(7):
            others = [item for item in range(30) if item != query]
            exact = [edit_distance(graphs[query], graphs[item], "soft", "exact") for item in others]
            near = [edit_distance(graphs[query], graphs[item], "soft", method) for item in others]
            values.append(spearmanr(exact, near).statistic)
        assert report.agreement[f"exact ~ {method}"].mean == pytest.approx(np.mean(values))


def test_exact_by_relation_adds_up_the_distances_of_single_relation_graphs(data, benchmark):
    found = benchmark.truth(data, "exact by relation", "soft")
    graphs = list(data.scene_graphs("gallery"))
    for query, item in ((0, 3), (2, 29), (5, 5)):
        total = 0.0
        for relation in (0, 1):
            pair = [
                SceneGraph(graph.attributes, graph.edges[graph.edges[:, 2] == relation])
                for graph in (graphs[query], graphs[item])
            ]
            total += edit_distance(*pair, "soft", "exact")
        assert found[query, item] == pytest.approx(total)


def test_fingerprint_follows_the_protocol(data, benchmark, tmp_path):
    first = benchmark.fingerprint(data)
    assert first == benchmark.fingerprint(data)
    assert first["gallery"] == 30
    fewer = zoo.create("benchmark", "relational", queries=6, cache=str(tmp_path))
    other = zoo.create("benchmark", "relational", queries=7, nodes=["soft"], cache=str(tmp_path))
    assert len({first["hash"], fewer.fingerprint(data)["hash"], other.fingerprint(data)["hash"]}) == 3


def test_report_is_written_as_json_and_markdown(data, benchmark):
    report = benchmark.score(collected(data), data, "mine", SHARD)
    content = json.loads(json.dumps(report.as_json()))
    labels = {row["descriptor"] for row in content["rows"]}
    assert labels == {"mine", "random", "composition"}
    text = report.tables()[0].markdown()
    assert text.count("\n| ") == len(report.rows) + 2
    assert "gallery of 30" in text


@pytest.mark.parametrize(("argument", "value"), [("baselines", ["colour"]), ("queries", 0)])
def test_wrong_argument_is_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        zoo.create("benchmark", "relational", **{argument: value})


def test_the_models_own_row_is_shown_whatever_scores_best(data, benchmark):
    vectors = {"other": torch.randn(30, 3), **collected(data)["gallery"].vectors}
    found = {"gallery": Collected(torch.arange(30), vectors, {})}
    own = benchmark.score(found, data, "mine", SHARD).own
    assert (own.label, own.normalised) == ("mine", False)


def test_a_part_of_the_gallery_is_refused(data, benchmark):
    part = {"gallery": Collected(torch.arange(20), {"mine": torch.randn(20, 3)}, {})}
    with pytest.raises(ValueError, match="10 images are missing"):
        benchmark.score(part, data, "mine", SHARD)


def test_queries_can_be_judged_against_images_of_their_own_size(data, tmp_path):
    options = {"queries": 7, "nodes": ["soft"], "methods": ["authors"], "agreement": False, "cache": str(tmp_path)}
    alike = zoo.create("benchmark", "relational", same_size=True, **options)
    row = alike.score(collected(data), data, "mine", SHARD).own
    rows, graphs = collected(data)["gallery"].vectors["mine"].numpy(), list(data.scene_graphs("gallery"))
    for query, value in enumerate(row.cells["spearman/authors_soft"].per_query):
        others = [item for item in range(30) if item != query and len(graphs[item]) == len(graphs[query])]
        distances = cdist(rows[query : query + 1], rows[others])[0]
        truth = [edit_distance(graphs[query], graphs[item], "soft", "authors") for item in others]
        assert value == pytest.approx(spearmanr(distances, truth).statistic, nan_ok=True)
    report = alike.score(collected(data), data, "mine", SHARD)
    for ranked in alike.rankings(collected(data), data, report).queries:
        sizes = {len(graphs[data.position("gallery", item.id)]) for item in ranked.ranked}
        assert sizes <= {len(graphs[ranked.query])}
    plain = zoo.create("benchmark", "relational", same_size=False, **options)
    assert plain.fingerprint(data)["hash"] != alike.fingerprint(data)["hash"]


def test_other_rows_stand_on_the_sheet_where_they_exist(data, tmp_path, caplog):
    found, heights = collected(data), []
    for rows in ([], ["random", "composition"], ["R-MAC"]):
        benchmark = zoo.create(
            "benchmark", "relational", queries=3, sheet_queries=2, sheet_rows=rows, cache=str(tmp_path), baselines=[]
        )
        found["gallery"].vectors.update({label: torch.randn(30, 2) for label in ("random", "composition")})
        report = benchmark.score(found, data, "mine", SHARD)
        heights.append(benchmark.sheet(found, data, report, None).height)
    lines = [(height - GAP) / (TITLE + TILE + CAPTION + GAP) for height in heights]
    assert lines == [2 * 2, 2 * 4, 2 * 2]  # the model's own, the others' that exist, the ground truth's
    assert "no row of the table is called R-MAC" in caplog.text
