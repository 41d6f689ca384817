"""Features with local maps through `zoo index index=local_maps` and `zoo search`, in this process."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from photo_runs import run
from safetensors import safe_open

from zoo.search._features_folder import begin
from zoo.search._features_shards import ShardWriter
from zoo.search.features import SHARDS, open_features
from zoo.search.index import open_index
from zoo.search.local_maps import encoded
from zoo.search.quantizer import ProductQuantizer
from zoo.types import Representation

COUNT, MODEL = 40, "f" * 16
INDEX = ["index=local_maps", "index.subquantizers=4", "index.centroids=16", "index.train_size=120"]


@pytest.fixture
def features(tmp_path):
    about = {"model": {"name": "made up", "parameters": {}}, "roots": [], "preprocessing": {}}
    folder = tmp_path / "outputs/features/made"
    folder.parent.mkdir(parents=True)
    begin(folder, ("vector", "local_map"), MODEL, about)
    maps = F.normalize(torch.randn(COUNT, 16, 4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    items = Representation(vector=maps.mean(dim=(2, 3)), local_map=maps, fingerprint=MODEL)
    writer = ShardWriter(folder / SHARDS, 1, 0, 15)
    for part in torch.arange(COUNT).split(5):
        writer.add([f"{i}.jpg" for i in part.tolist()], items.rows(part), [{"width": 8, "height": 8}] * len(part))
    writer.flush()
    return open_features(folder), items


def test_maps_are_kept_in_half_precision_and_read_in_single(features):
    read, items = features
    with safe_open(read.shards.files[0], "pt") as file:
        assert file.get_tensor("local_map").dtype == torch.half
        assert file.get_tensor("vector").dtype == torch.float32
    rows = read.get(["17.jpg", "3.jpg"])
    assert rows.local_map.dtype == torch.float32
    assert torch.allclose(rows.local_map, items.local_map[[17, 3]], atol=3e-4)
    assert torch.equal(rows.vector, items.vector[[17, 3]])


def test_maps_that_half_precision_cannot_hold_stay_as_they_are(tmp_path):
    (tmp_path / SHARDS).mkdir()
    writer = ShardWriter(tmp_path / SHARDS, 1, 0, 1)
    large = torch.full((1, 2, 1, 1), 1e5)
    writer.add(["a"], Representation(local_map=large), [{}])
    (path,) = (tmp_path / SHARDS).glob("*.safetensors")
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("local_map"), large)


def test_an_index_learns_from_all_of_the_features_and_is_built_in_blocks(features, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "zoo")
    read, _ = features
    seen, added, commits = [], [], []
    cls = type(_built())
    train, add, save = cls.train, cls.add, cls.save
    monkeypatch.setattr(cls, "train", lambda self, items: seen.append(items) or train(self, items))
    monkeypatch.setattr(cls, "add", lambda self, ids, *rest: added.append(len(ids)) or add(self, ids, *rest))
    monkeypatch.setattr(cls, "save", lambda self, *rest: commits.append(len(self)) or save(self, *rest))
    monkeypatch.setattr(cls, "largest_block", 6)
    run("index", tmp_path, *INDEX, "block=18")
    assert added == [6, 6, 6, 6, 6, 6, 4]
    # The quantiser at once; then, codes being small, as many items between commits as ever.
    assert commits == [0, 18, 36, 40]
    (sample,) = seen
    assert len(sample) == 10  # of 12 locations each
    places = [(read.get(read.ids).vector == row).all(dim=1).nonzero().item() for row in sample.vector]
    assert places == sorted(set(places))
    assert max(places) >= 20  # not the first ones
    assert "the index learns from 10 of 40 images" in caplog.text
    assert "local maps: 4 x 3 codes of 4 B, 0.0 KB an item" in caplog.text
    index = open_index(tmp_path / "outputs/indexes/made-local_maps")
    stored, whole = index.get(index.ids), read.get(index.ids)
    assert torch.equal(stored.local_codes, encoded(whole.local_map, index.quantizer))
    run("index", tmp_path, *INDEX, f"out={tmp_path / 'again'}")
    assert open_index(tmp_path / "again").quantizer == index.quantizer


def test_a_new_run_keeps_the_codebook(features, tmp_path):
    run("index", tmp_path, *INDEX)
    folder = tmp_path / "outputs/indexes/made-local_maps"
    before = open_index(folder)
    writer = ShardWriter(features[0].path / SHARDS, 2, 0, 15)
    writer.add(["new.jpg", "3.jpg"], features[1].rows([0, 1]), [{"width": 9}] * 2)
    writer.flush()
    run("index", tmp_path, *INDEX)
    after = open_index(folder)
    assert after.quantizer == before.quantizer
    assert len(after) == COUNT + 1
    assert torch.equal(after.get(["3.jpg"]).local_codes, before.get(["1.jpg"]).local_codes)


def test_a_search_re_ranks_by_the_codes_of_the_index(features, tmp_path):
    run("index", tmp_path, *INDEX)
    run("search", tmp_path, "query_id=[3.jpg,30.jpg]", "reranker=r_match", "shortlist=20", "k=5")
    index, asked = open_index(tmp_path / "outputs/indexes/made-local_maps"), ["3.jpg", "30.jpg"]
    for query, result in zip(asked, json.loads((tmp_path / "run/results.json").read_text())["queries"], strict=True):
        first = [name for name in index.search(index.get([query]), 21)[0].ids if name != query][:20]
        own, hits = (decoded(index, names) for names in ([query], first))
        products = torch.einsum("qd,ksd->kqs", own[0], hits)
        scores = dict(zip(first, products.amax(dim=2).mean(dim=1).tolist(), strict=True))
        found = {hit["id"]: hit["score"] for hit in result["hits"]}
        assert len(found) == 5
        assert found == pytest.approx({name: scores[name] for name in found}, abs=1e-3)
        assert min(found.values()) >= sorted(scores.values())[-5] - 1e-3


def decoded(index, ids):
    """Returns unit features (K, H*W, D) of items."""
    stored = index.get(ids)
    centroids = torch.from_numpy(index.quantizer.centroids)
    parts = [centroids[part][stored.local_codes[..., part].long()] for part in range(4)]
    return F.normalize(torch.cat(parts, dim=-1).flatten(1, 2), dim=2)


def _built():
    from zoo import create

    return create("index", "local_maps")


def test_other_indexes_learn_nothing_beforehand(tmp_path, features, monkeypatch):
    monkeypatch.setattr(ProductQuantizer, "fit", None)
    run("index", tmp_path, "index=flat")
    assert len(open_index(tmp_path / "outputs/indexes/made-flat")) == COUNT
