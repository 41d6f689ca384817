"""The graph network as a user trains, stops, resumes, judges and uses it, on simulated cities."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import zoo
from zoo import config
from zoo.commands._setup import build
from zoo.commands.eval import check_dimension
from zoo.data._simulated_city import simulate_city
from zoo.data._simulated_views import World
from zoo.registry import UsageError

SIZES = (
    "data.train_count=2", "data.val_count=1", "data.database=90", "data.queries=36", "data.dimension=84",
    "data.batch_size=8",
)  # fmt: skip
MODEL = (
    "model.dimension=84", "model.projection=8", "model.anchors=7", "model.hits=15", "model.projection_hits=11",
    "model.width=16", "model.heads=2", "model.projection_epochs=1", "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("gnn_rerank")


@pytest.fixture
def trained(command, root):
    """The run of an experiment that was stopped between its phases and went on."""
    run = root / "run"
    words = ("zoo", "train", "experiment=gnn_rerank_simulated", *SIZES, *MODEL, f"data.root={root / 'cities'}")
    if not run.exists():
        command(*words, "trainer.max_epochs=1", f"hydra.run.dir={run}")
        done = command(*words, "ckpt_path=last", f"hydra.run.dir={run}")
        assert "second phase, with the projection of val/projection_map@10" in done.stdout
        assert "best checkpoint" in done.stdout
        assert "metadata=HITS.csv with the columns easting, northing, heading" in done.stdout
    return run


def test_a_run_that_was_stopped_between_the_phases_goes_on(trained):
    model = zoo.load_model(str(trained / "checkpoints" / "best.ckpt"))
    assert model.registered["name"] == "gnn_rerank"
    assert model.registered["parameters"]["affinities"] == ["field_of_view"]


def test_the_checkpoint_is_judged_beside_the_descriptors_it_re_ranks(command, trained, root):
    best = trained / "checkpoints" / "best.ckpt"
    own = (*SIZES, f"data.root={root / 'cities'}", f"hydra.run.dir={root / 'eval'}")
    rerank = ("reranker=gnn_rerank", f"reranker.gnn_rerank.weights={best}", "shortlist=15")
    done = command("zoo", "eval", "experiment=msls", "data=simulated_city", *own, *rerank)
    assert "descriptors > gnn_rerank" in done.stdout
    rows = json.loads((root / "eval" / "results.json").read_text())["rows"]
    assert [row["descriptor"] for row in rows] == ["descriptors", "descriptors > gnn_rerank"]
    model = zoo.load_model(str(best))
    data = zoo.create(
        "data", "simulated_city", root=str(root / "cities"), train_count=2, val_count=1, database=90, queries=36,
        dimension=84,
    )  # fmt: skip
    city = data.city("city0002")
    near = np.linalg.norm(city.images["query"].poses[:, None, :2] - city.images["database"].poses[None, :, :2], axis=2)
    first = []
    for query, away in zip(city.descriptors["query"], near, strict=True):
        if (away <= 25).any():
            hits = (city.descriptors["database"] @ query).argsort(descending=True)[:15]
            columns = {name: values[hits] for name, values in city.images["database"].columns.items()}
            order, _ = model.rerank(query, city.descriptors["database"][hits], columns)
            first.append(away[hits[order[0]]] <= 25)
    assert rows[1]["metrics"]["recall@1"]["mean"] == pytest.approx(np.mean(first), abs=1e-6)


def test_hits_of_any_database_are_re_ranked(command, trained, tmp_path):
    city = simulate_city(world=World(seed=0, dimension=84), seed=9, database=40, queries=2)
    found = np.argsort(-(city.query.descriptors @ city.database.descriptors.T), axis=1)[:, :12]
    np.save(tmp_path / "queries.npy", city.query.descriptors)
    np.save(tmp_path / "hits.npy", city.database.descriptors[found])
    poses = city.database.poses[found]
    np.savez(tmp_path / "poses.npz", easting=poses[..., 0], northing=poses[..., 1], heading=poses[..., 2])
    weights = f"reranker.gnn_rerank.weights={trained / 'checkpoints' / 'best.ckpt'}"
    command("zoo", "rerank", "queries.npy", "hits.npy", weights, "metadata=poses.npz", "out=found")
    order = np.load(tmp_path / "found" / "order.npy")
    model = zoo.load_model(str(trained / "checkpoints" / "best.ckpt"))
    for query in range(2):
        columns = dict(zip(("easting", "northing", "heading"), poses[query].T, strict=True))
        wanted, _ = model.rerank(city.query.descriptors[query], city.database.descriptors[found[query]], columns)
        assert torch.equal(torch.from_numpy(order[query]), wanted)


def test_what_evaluations_can_not_use_is_told_before_they_begin(command, trained, root):
    best = trained / "checkpoints" / "best.ckpt"
    own = ("benchmark=msls", "data=simulated_city", f"data.root={root / 'cities'}", *SIZES)
    done = command("zoo", "eval", *own, f"ckpt_path={best}", code=2)
    assert f"name it as reranker=gnn_rerank reranker.gnn_rerank.weights={best} beside a model" in done.stderr
    stage = zoo.create("reranker", "gnn_rerank", weights=str(best))
    with pytest.raises(UsageError, match="was trained with descriptors of D = 84, data bring some of 96"):
        check_dimension("gnn_rerank", stage, zoo.create("data", "simulated_city", dimension=96))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data=sort_of_clevr",), "data must give shortlists of descriptors, data=sort_of_clevr doesn't"),
        (("model.dimension=85",), "model.dimension must be that of the descriptors, 84, got 85"),
        (("model.affinities=[fieldofview]",), "unknown affinity 'fieldofview'"),
        (("model.heads=3",), "heads must divide width = 16, got 3"),
    ],
)
def test_what_does_not_fit_is_told(root, words, says):
    common = ("experiment=gnn_rerank_simulated", *SIZES, *MODEL, f"data.root={root / 'cities'}")
    cfg = config.compose("train", [*(common if words[0] != "data=sort_of_clevr" else ("model=gnn_rerank",)), *words])
    with pytest.raises((UsageError, ValueError), match=says):
        build(cfg.model).check_data(build(cfg.data))
