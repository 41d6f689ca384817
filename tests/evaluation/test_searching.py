"""Evaluations by an index and re-rankers, and images with several descriptors, on one process and two."""

from __future__ import annotations

import json
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.evaluation.ranked_lists import from_vectors
from zoo.evaluation.runner import evaluate
from zoo.evaluation.searching import Searching
from zoo.module import Embedder
from zoo.types import Ranking, Representation

CLASSES, PER_CLASS, CELLS = 4, 5, 4


class Colours(Embedder):
    """Describes an image by its mean colour around grey, and by that of its four corners as regions."""

    kinds = ("vector", "local_map", "regions", "region_mask")
    registered = None

    def __init__(self, regional=False):
        super().__init__()
        self.regional = regional

    def embed(self, batch, role="gallery"):
        maps = torch.nn.functional.adaptive_avg_pool2d(batch.images - 0.5, 2)
        regions = maps.flatten(2).mT.contiguous()
        mask = torch.ones(regions.shape[:2], dtype=torch.bool)
        return Representation(maps.mean((2, 3)), maps, regions, mask)

    @property
    def descriptor_name(self):
        return "colour"

    def descriptors(self, batch, role="gallery"):
        found = self.embed(batch, role)
        return {"colour": found.regions if self.regional else found.vector}


class Backwards:
    """Turns the order of the hits around."""

    needs = ("vector",)
    registered = None

    def __call__(self, query, hits, query_metadata=None, hit_metadata=None):
        count = len(hits)
        ids = [hit_metadata[place]["id"] for place in reversed(range(count))]
        return Ranking(ids, torch.arange(count, 0, -1, dtype=torch.float64))


class ByMap(Backwards):
    """Re-orders by the first corner of the local maps, which no flat index holds."""

    needs = ("local_map",)

    def __call__(self, query, hits, query_metadata=None, hit_metadata=None):
        scores = -(hits.local_map[:, :, 0, 0] - query.local_map[:, :, 0, 0]).norm(dim=1).double()
        order = scores.argsort(descending=True, stable=True)
        return Ranking([hit_metadata[place]["id"] for place in order.tolist()], scores[order])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        colour = rng.uniform(60, 200, (2, 2, 3))
        (root / f"class_{label}").mkdir()
        for number in range(PER_CLASS):
            corners = colour + rng.normal(0, 30, 3) + rng.normal(0, 20, (2, 2, 3))
            pixels = corners.repeat(6, 0).repeat(6, 1).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"class_{label}" / f"{label}{number}.png")
    return root


@pytest.fixture
def run(pictures, tmp_path):
    def run(stages=None, index=None, shortlist=None, devices=1, regional=False, name="run", truth=None):
        data = zoo.create("data", "folder", root=str(pictures), names="stem", batch_size=4)
        asked = ("instances", {}) if truth is None else ("lists", {"ground_truth": truth})
        benchmark = zoo.create("benchmark", asked[0], k=[1, 3], sheet_queries=0, kept=7, **asked[1])
        benchmark.open(data)
        if stages is not None:
            make = partial(zoo.create, "index", index or "flat", metric="cosine")
            benchmark.search_with(Searching(make, index, stages, shortlist))
        trainer = lightning.Trainer(
            accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        evaluate(Colours(regional), data, benchmark, trainer, tmp_path / name, {})
        folder = tmp_path / name
        return json.loads((folder / "results.json").read_text()), json.loads((folder / "rankings.json").read_text())

    return run


def per_query(results, label):
    return next(row for row in results["rows"] if row["descriptor"] == label)["metrics"]["map"]["per_query"]


def own_label(results):
    return results["rows"][results["own"]]["descriptor"]


def ids(rankings):
    return [[item["id"] for item in query["ranked"]] for query in rankings["queries"]]


# Several descriptors an image


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize(("of_query", "of_item"), [(3, 4), (1, 4), (3, None), (None, 2)])
def test_the_best_pair_of_regions_counts(similarity, of_query, of_item):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(5, *([of_query] if of_query else []), 6))
    gallery = rng.normal(size=(7, *([of_item] if of_item else []), 6))
    pair = {
        "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "dot": lambda a, b: a @ b,
        "l2": lambda a, b: -np.linalg.norm(a - b),
    }[similarity]
    rows = torch.tensor([4, 0, 2])
    parts = list(from_vectors(torch.from_numpy(queries), torch.from_numpy(gallery), rows, similarity))
    found = torch.cat([part.scores for part in parts]).numpy()
    for line, query in enumerate(rows.tolist()):
        for item in range(7):
            pairs = [pair(a, b) for a in np.atleast_2d(queries[query]) for b in np.atleast_2d(gallery[item])]
            assert found[line, item] == pytest.approx(max(pairs), abs=1e-8)


def test_an_infinite_region_is_refused_by_the_image_that_has_it():
    gallery = torch.zeros(4, 2, 3)
    gallery[2, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="got others for gallery 2"):
        next(from_vectors(torch.zeros(1, 3), gallery, torch.arange(1), "dot"))


# Index and re-rankers


def test_an_exact_index_alone_changes_nothing_but_the_label(run):
    plain, plain_rankings = run(name="plain")
    results, rankings = run({}, index="flat")
    assert [row["descriptor"] for row in plain["rows"]] == ["colour"]
    assert [row["descriptor"] for row in results["rows"]] == ["colour", "colour > flat"]
    assert own_label(results) == "colour > flat"
    assert results["fingerprint"] == plain["fingerprint"]
    assert per_query(results, "colour") == per_query(plain, "colour")
    assert per_query(results, "colour > flat") == pytest.approx(per_query(plain, "colour"))
    assert ids(rankings) == ids(plain_rankings)


def test_items_behind_the_shortlist_keep_their_order(run):
    _, plain = run(name="plain")
    results, rankings = run({"backwards": Backwards()}, shortlist=3)
    assert own_label(results) == "colour > backwards"
    before, after = ids(plain), ids(rankings)
    assert after == [[*reversed(line[:3]), *line[3:]] for line in before]
    assert all(query["id"] not in line for query, line in zip(rankings["queries"], after, strict=True))
    assert rankings["descriptor"] == "colour > backwards"


def test_stages_get_fields_that_the_index_does_not_hold(run):
    _, plain = run(name="plain")
    _, rankings = run({"by_map": ByMap(), "backwards": Backwards()})
    _, turned = run({"by_map": ByMap()}, name="turned")
    assert ids(turned) != ids(plain)
    assert set(map(len, ids(rankings))) == {7}


@pytest.mark.parametrize("stages", [{"by_map": ByMap()}, {"aqe": None}])
def test_two_processes_find_the_same(run, stages):
    stages = {name: stage or zoo.create("reranker", name) for name, stage in stages.items()}
    one, two = run(stages, shortlist=6, name="one"), run(stages, shortlist=6, devices=2, name="two")
    for row, other in zip(one[0]["rows"], two[0]["rows"], strict=True):
        assert row["metrics"]["map"]["per_query"] == other["metrics"]["map"]["per_query"]
        assert row["metrics"]["map"]["mean"] == pytest.approx(other["metrics"]["map"]["mean"])
    assert one[1] == two[1]


def test_a_process_without_any_query(run, tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps({"00": ["01", "02"]}))
    results, rankings = run({"aqe": zoo.create("reranker", "aqe")}, devices=2, truth=str(tmp_path / "truth.json"))
    assert len(per_query(results, "colour > aqe")) == 1
    assert ids(rankings)[0][0] == "00"  # the query's own image, which these lists don't leave out


def test_average_query_expansion_by_hand(run, pictures):
    results, _ = run({"aqe": zoo.create("reranker", "aqe", k=2)})
    paths = sorted(pictures.rglob("*.png"), key=lambda path: path.stem)
    vectors = np.stack([np.array(Image.open(path)).mean((0, 1)) / 255 - 0.5 for path in paths])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.array([path.parent.name for path in paths])
    wanted = []
    for query in range(len(paths)):
        others = np.flatnonzero(np.arange(len(paths)) != query)
        first = others[np.argsort(-vectors[others] @ vectors[query], kind="stable")][:2]
        expanded = vectors[[query, *first]].mean(0)
        hits = labels[others[np.argsort(-vectors[others] @ expanded, kind="stable")]] == labels[query]
        wanted.append(np.mean(np.arange(1, hits.sum() + 1) / (np.flatnonzero(hits) + 1)))
    assert per_query(results, "colour > aqe") == pytest.approx(wanted)


def test_regions_are_compared_and_searched_alike(run):
    plain, plain_rankings = run(name="plain", regional=True)
    results, rankings = run({}, index="regions", regional=True)
    assert per_query(results, "colour > regions") == pytest.approx(per_query(plain, "colour"))
    assert ids(rankings) == ids(plain_rankings)
    whole, _ = run(name="whole")
    assert per_query(plain, "colour") != per_query(whole, "colour")


def test_what_does_not_fit_is_refused():
    flat = partial(zoo.create, "index", "flat")
    search = Searching(flat, None, {"by_map": ByMap()}, None)
    with pytest.raises(ValueError, match=r"by_map need .*\['vector', 'local_map'\], the model fills \['vector'\]"):
        search.check(("vector",))
    search.check(("vector", "local_map"))
    for wrong in (0, True, 2.0, "all"):
        with pytest.raises(ValueError, match="shortlist must be an integer of at least 1"):
            Searching(flat, None, {}, wrong)
    full = flat()
    full.add([0], Representation(vector=torch.ones(1, 3)))
    with pytest.raises(ValueError, match="fills an empty one, got one that holds 1 items"):
        Searching(lambda: full, None, {}, None)
    with pytest.raises(ValueError, match="'relational' compares descriptors"):
        zoo.create("benchmark", "relational").search_with(search)


# Oxford, leave one out


def test_every_positive_of_a_landmark_asks_for_the_others(tmp_path):
    from zoo.evaluation.predictions import Predictions
    from zoo.evaluation.source import Source

    names = ("a", "b", "c", "d", "e", "f")
    shared = {"good": ["a", "b"], "ok": ["c"], "junk": ["d"], "bbox": [0, 0, 1, 1]}
    other = {"good": ["c"], "ok": ["e"], "junk": ["a"], "bbox": [0, 0, 1, 1]}
    truth = {"x_1": {"query": "a", **shared}, "x_2": {"query": "b", **shared}, "y_1": {"query": "e", **other}}
    (tmp_path / "gnd.json").write_text(json.dumps(truth))
    benchmark = zoo.create("benchmark", "oxford_leave_one_out", ground_truth=str(tmp_path / "gnd.json"))
    scores = np.random.default_rng(0).normal(size=(6, 6))
    predictions = Predictions(names, names, scores=scores)
    benchmark.open_source(Source.of_predictions(predictions, None, benchmark.name))
    assert benchmark.query_ids == ("a", "b", "c", "e")
    relevant = {"a": "bc", "b": "ac", "c": "abe", "e": "c"}
    junk = {"a": "d", "b": "d", "c": "d", "e": "a"}
    wanted = []
    for query in benchmark.query_ids:
        ranked = [names[place] for place in np.argsort(-scores[names.index(query)])]
        ranked = [name for name in ranked if name not in junk[query] and name != query]
        hits = np.cumsum([name in relevant[query] for name in ranked])
        area = 0.0
        for place, name in enumerate(ranked):
            if name in relevant[query]:
                before = hits[place - 1] / place if place else 1.0
                area += (before + hits[place] / (place + 1)) / 2 / len(relevant[query])
        wanted.append(area)
    assert benchmark.score_predictions(predictions).own.cells["map_trapezoid"].per_query == pytest.approx(wanted)
