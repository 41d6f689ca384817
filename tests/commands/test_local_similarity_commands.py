"""Photos described, indexed, searched and explained by the commands, with a head that has learnt nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from photo_runs import embed, photos, run
from PIL import Image

from zoo.evaluation.heat import overlaid
from zoo.registry import UsageError
from zoo.search.index import open_index

SMALL = ["index=local_maps", "index.subquantizers=32", "index.centroids=16"]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local_similarity")
    root = photos(folder / "photos", 8, size=(120, 90))
    embed(folder, root, "model=local_similarity", f"out={folder / 'features'}")
    run("index", folder, f"features={folder / 'features'}", f"out={folder / 'index'}", *SMALL)
    return folder


def found(folder, *overrides):
    run("search", folder, f"index_path={folder / 'index'}", "k=4", *overrides)
    return json.loads((folder / "run" / "results.json").read_text())["queries"]


def test_an_index_of_local_maps_holds_codes_and_what_made_them(indexed):
    index = open_index(indexed / "index")
    assert len(index) == 8
    assert index.get(index.ids[:1]).local_codes.shape == (1, 15, 15, 32)


def test_hits_tell_both_similarities_and_fuse_them(indexed):
    query = f"query={indexed / 'photos' / 'a' / '0.png'}"
    hits = found(indexed, query, "box=[10,10,90,80]", "reranker=local_similarity")[0]["hits"]
    assert len(hits) == 4
    for hit in hits:
        shown = hit["evidence"]
        assert hit["score"] == pytest.approx(0.9 * shown["local"] + 0.1 * shown["global"], abs=1e-6)
        for corner in shown.get("box", ()):
            assert 0 <= corner <= 120
    assert (indexed / "run" / "contact_sheet.png").is_file()


def test_explain_draws_the_layers_of_the_head(indexed):
    query = f"query={indexed / 'photos' / 'b' / '1.png'}"
    found(indexed, query, "reranker=local_similarity", "explain=true")
    with Image.open(indexed / "run" / "explanations.png") as picture:
        assert picture.width > 5 * 160  # the query, the hit, and three layers
        assert len(set(picture.convert("RGB").getdata())) > 1000


def test_an_item_of_the_index_may_ask(indexed):
    ids = [hit["id"] for hit in found(indexed, "query_id=a/0", "reranker=local_similarity", "explain=true")[0]["hits"]]
    assert len(ids) == 4
    assert "a/0" not in ids


def test_explain_needs_a_stage_that_can(indexed):
    query = f"query={indexed / 'photos' / 'a' / '0.png'}"
    with pytest.raises(UsageError, match="explain=true needs a reranker that tells where it looks"):
        found(indexed, query, "reranker=aqe", "explain=true")
    with pytest.raises(UsageError, match="explain must be true or false"):
        found(indexed, query, "reranker=local_similarity", "explain=maybe")


def test_the_head_of_a_weights_file_may_be_another(indexed):
    query = f"query={indexed / 'photos' / 'a' / '0.png'}"
    own, other = (
        [hit["evidence"]["local"] for hit in found(indexed, query, "reranker=local_similarity", *more)[0]["hits"]]
        for more in ([], ["reranker.local_similarity.weights=cut_paste"])
    )
    assert sorted(own) != pytest.approx(sorted(other), abs=1e-3)


def test_the_pipeline_evaluates_with_codes(indexed, command):
    model = ["model=local_similarity", "model.backbone=test_resnet", "model.backbone_weights=random"]
    data = ["data=folder", f"data.root={indexed / 'photos'}", "benchmark=instances", "benchmark.k=[1]"]
    own = ["trainer.enable_progress_bar=false", f"paths.run_dir={indexed / 'eval'}"]
    command("zoo", "eval", *model, *data, *own, *SMALL, "reranker=local_similarity")
    rows = [row["descriptor"] for row in json.loads((indexed / "eval" / "results.json").read_text())["rows"]]
    assert rows == ["R-MAC", "R-MAC > local_maps > local_similarity"]


def test_colours_run_from_cold_to_hot():
    picture = np.full((20, 30, 3), 128, np.uint8)
    shown = overlaid(picture, torch.tensor([[0.0, 1.0]]).numpy())
    assert shown.shape == picture.shape
    left, right = shown[:, 0].mean(0), shown[:, -1].mean(0)
    assert left[2] > left[0]
    assert right[0] > right[2]
