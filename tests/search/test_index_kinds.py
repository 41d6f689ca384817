from __future__ import annotations

import builtins
import gc
import logging
import re
import subprocess
import sys

import faiss
import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import zoo
from zoo.registry import UsageError
from zoo.search.index import open_index
from zoo.search.indexes import regions as regions_module
from zoo.types import Representation


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(tensor, fingerprint=None):
    return Representation(vector=tensor, fingerprint=fingerprint)


# flat


@pytest.mark.parametrize(("metric", "name"), [("l2", "euclidean"), ("cosine", "cosine"), ("dot", None)])
def test_flat_equals_scikit_learn(metric, name):
    gallery, queries = normal(300, 24), normal(25, 24, seed=1)
    index = zoo.create("index", "flat", metric=metric)
    index.add(range(300), vectors(gallery))
    rankings = index.search(vectors(queries), 7)
    if name:
        distances, wanted = NearestNeighbors(metric=name).fit(gallery.numpy()).kneighbors(queries.numpy(), 7)
        scores = 1 - distances if metric == "cosine" else -distances
    else:
        products = queries.numpy() @ gallery.numpy().T
        wanted = np.argsort(-products, axis=1)[:, :7]
        scores = np.take_along_axis(products, wanted, axis=1)
    assert [ranking.ids for ranking in rankings] == wanted.tolist()
    assert np.allclose(torch.stack([ranking.scores for ranking in rankings]), scores, atol=1e-4)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("queries", [1, 30])  # faiss counts differently from 20 queries on
@pytest.mark.parametrize("k", [1, 3, 5, 40, 50])
def test_of_equally_near_items_the_older_comes_first(metric, queries, k):
    gallery = torch.tensor([[1.0, 0.0]]).repeat(50, 1)
    gallery[[30, 40]] = 2.0
    index = zoo.create("index", "flat", metric=metric)
    index.add([f"{i}" for i in range(50)], vectors(gallery))
    near = torch.tensor([[3.0, 0.0]]) if metric == "dot" else torch.tensor([[2.0, 2.0]])
    for ranking in index.search(vectors(near.repeat(queries, 1)), k):
        others = [i for i in range(50) if i not in (30, 40)]
        assert ranking.ids == [str(i) for i in [30, 40, *others][:k]]


def test_an_index_without_a_fingerprint_takes_anything_of_the_right_dimension():
    index = zoo.create("index", "flat", metric="dot")
    index.add(["a"], vectors(normal(1, 4)))
    index.add(["b"], vectors(normal(1, 4), "f" * 16))
    assert index.fingerprint is None
    assert len(index.search(vectors(normal(1, 4), "e" * 16), 2)[0]) == 2
    with pytest.raises(ValueError, match="queries must have the dimension 4 of the index, got 5"):
        index.search(vectors(normal(1, 5)), 2)


def test_another_model_is_refused_by_both_names():
    index = zoo.create("index", "flat", metric="dot")
    index.add(["a"], vectors(normal(1, 4), "f" * 16))
    with pytest.raises(ValueError, match=rf"of the model {'f' * 16}, got queries of the model {'e' * 16}"):
        index.search(vectors(normal(1, 4), "e" * 16), 1)
    with pytest.raises(ValueError, match="got items of an unknown model"):
        index.add(["b"], vectors(normal(1, 4)))


@pytest.mark.parametrize(
    ("kind", "field", "shape"), [("flat", "vector", "(B, D)"), ("regions", "regions", "(B, R, D)")]
)
def test_another_shape_is_refused(kind, field, shape):
    index = zoo.create("index", kind)
    with pytest.raises(ValueError, match=re.escape(f"items must be {shape}, got (2, 3, 4, 5)")):
        index.add(["a", "b"], Representation(**{"vector": normal(2, 4), field: normal(2, 3, 4, 5)}))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", 1], r"all strings or all ints, got \['int', 'str'\]"),
        ([1.5], r"got \['float'\]"),
        ([True], r"got \['bool'\]"),
        (["a", "a"], "ids must be unique, got 'a' twice"),
        ([1 << 63], "64 bits"),
        (["a\0b"], "NUL"),
        (["there"], "already has an item with the id 'there': use replace"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(ids, message):
    index = zoo.create("index", "flat", metric="dot")
    index.add(["there"] if isinstance(ids[0], str) else [7], vectors(normal(1, 4)))
    with pytest.raises(ValueError, match=message):
        index.add(ids, vectors(normal(len(ids), 4)))
    assert len(index) == 1


def test_ids_may_be_arrays():
    index = zoo.create("index", "flat", metric="dot")
    index.add(np.arange(3), vectors(normal(3, 4)))
    index.add(torch.arange(3, 5), vectors(normal(2, 4)))
    index.remove(torch.tensor([1]))
    assert index.ids == [0, 2, 3, 4]
    assert torch.equal(index.get(np.array([2, 0])).vector, index.get([2, 0]).vector)


@pytest.mark.parametrize("where", [{"a": None}, {"a": float("nan")}, {"a": {"b": 1}}, {1: "a"}, {"a": [[1]]}])
def test_a_filter_that_nothing_can_be_compared_with_is_refused(where):
    index = zoo.create("index", "flat", metric="dot")
    index.add(["a"], vectors(normal(1, 4)))
    with pytest.raises(ValueError, match="where must map names to strings, numbers, booleans"):
        index.search(vectors(normal(1, 4)), 1, where)


def test_payloads_have_to_be_json():
    index = zoo.create("index", "flat", metric="dot")
    with pytest.raises(ValueError, match="payloads must be mappings that JSON can hold"):
        index.add(["a"], vectors(normal(1, 4)), [{"a": object()}])


# ivf_pq


def test_ivf_pq_equals_faiss_and_finds_most_neighbours():
    parameters = {"lists": 8, "subquantizers": 8, "bits": 6, "probes": 4, "metric": "l2", "seed": 3}
    gallery, queries = normal(1000, 32), normal(20, 32, seed=1)
    index = zoo.create("index", "ivf_pq", **parameters)
    index.add(range(1000), vectors(gallery))
    rankings = index.search(vectors(queries), 10)
    reference = faiss.IndexIVFPQ(faiss.IndexFlatL2(32), 32, 8, 8, 6)
    reference.cp.seed = reference.pq.cp.seed = 3
    reference.cp.min_points_per_centroid = reference.pq.cp.min_points_per_centroid = 1
    reference.nprobe = 4
    reference.train(gallery.numpy())
    reference.add(gallery.numpy())
    distances, wanted = reference.search(queries.numpy(), 10)
    assert [ranking.ids for ranking in rankings] == wanted.tolist()
    assert np.allclose(torch.stack([r.scores for r in rankings]), -np.sqrt(distances), atol=1e-5)


def test_ivf_pq_trains_when_enough_is_there_and_says_so(caplog):
    index = zoo.create("index", "ivf_pq", lists=4, subquantizers=4, bits=4, train_size=60, metric="dot")
    with caplog.at_level(logging.INFO, "zoo.search.indexes.ivf_pq"):
        index.add(range(59), vectors(normal(59, 16)))
        assert torch.equal(index.get([3]).vector, normal(59, 16)[3:4])
        assert not caplog.records
        index.add([100], vectors(normal(1, 16)))
        assert caplog.messages == ["ivf_pq: trained on 60 vectors, 4 lists"]
    assert not torch.equal(index.get([3]).vector, normal(59, 16)[3:4])


def test_ivf_pq_names_the_numbers_that_do_not_fit(tmp_path):
    index = zoo.create("index", "ivf_pq", lists=300, subquantizers=4)
    with pytest.raises(ValueError, match="subquantizers must divide the dimension 18, got 4"):
        index.add([0], vectors(normal(1, 18)))
    index.add([0], vectors(normal(1, 16)))
    for call in (lambda: index.search(vectors(normal(1, 16)), 1), lambda: index.save(tmp_path)):
        with pytest.raises(
            ValueError, match=r"lists=300 and bits=8 needs at least 300 vectors to be trained on.* has 1"
        ):
            call()
    for key, value in {"lists": 0, "bits": 13, "probes": 0, "metric": "cos"}.items():
        with pytest.raises(ValueError, match=f"{key} must be .*got {value!r}"):
            zoo.create("index", "ivf_pq", **{key: value})


# regions


def pictures(count, regions=5, seed=0):
    mask = torch.rand(count, regions, generator=torch.Generator().manual_seed(seed + 7)) < 0.7
    mask[:, 0] = True
    filled = [normal(count, regions, *shape, seed=seed + i) for i, shape in enumerate([(16,), (4,), (6, 2)])]
    whole = [
        torch.where(mask.view(count, regions, *[1] * (rows.dim() - 2)), rows, rows[:, :1].expand_as(rows))
        for rows in filled
    ]
    return Representation(regions=whole[0], region_mask=mask, region_boxes=whole[1], region_hulls=whole[2])


@pytest.mark.parametrize("rows", [7, 4096])
@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_regions_equal_the_largest_product_of_all_pairs(metric, rows, monkeypatch):
    monkeypatch.setattr(regions_module, "_ROWS", rows)
    monkeypatch.setattr(regions_module, "_CELLS", 200)
    gallery, queries = pictures(90), pictures(6, seed=3)
    index = zoo.create("index", "regions", metric=metric)
    index.add(range(90), gallery)
    sides = [items.regions if metric == "dot" else torch.nn.functional.normalize(items.regions, dim=2)
             for items in (queries, gallery)]  # fmt: skip
    pairs = torch.einsum("qrd,nsd->qnrs", *sides)
    scores, order = pairs.amax((2, 3)).sort(dim=1, descending=True)
    for place, ranking in enumerate(index.search(queries, 12)):
        assert ranking.ids == order[place, :12].tolist()
        assert torch.allclose(ranking.scores, scores[place, :12], atol=1e-4)
        for name, score, shown in zip(ranking.ids, ranking.scores, ranking.evidence, strict=True):
            assert shown["query_box"] == queries.region_boxes[place, shown["query_region"]].tolist()
            assert shown["query_hull"] == queries.region_hulls[place, shown["query_region"]].tolist()
            stored = index.get([name])
            assert shown["box"] == stored.region_boxes[0, shown["region"]].tolist()
            assert shown["hull"] == stored.region_hulls[0, shown["region"]].tolist()
            own = sides[0][place, shown["query_region"]] @ stored.regions[0, shown["region"]]
            assert own == pytest.approx(float(score), abs=1e-4)


def test_a_query_without_regions_is_one_region():
    gallery = pictures(20)
    index = zoo.create("index", "regions", metric="dot")
    index.add(range(20), gallery)
    ranking = index.search(vectors(gallery.regions[3, 2:3]), 20)[0]
    assert torch.allclose(ranking.scores.max(), (gallery.regions @ gallery.regions[3, 2]).max())
    assert {shown["query_region"] for shown in ranking.evidence} == {0}
    assert "query_box" not in ranking.evidence[0]


def test_missing_regions_are_not_stored_and_come_back_as_region_0(tmp_path):
    gallery = pictures(20)
    index = zoo.create("index", "regions", metric="dot")
    index.add(range(20), gallery)
    index.save(tmp_path)
    assert np.load(next(tmp_path.glob("*-regions.npy"))).shape == (int(gallery.region_mask.sum()), 16)
    chosen = [4, 11]
    stored = open_index(tmp_path).get(chosen)
    assert torch.equal(stored.vector, gallery.regions[chosen, 0])
    for place, name in enumerate(chosen):
        mask = gallery.region_mask[name]
        count = int(mask.sum())
        assert stored.region_mask[place].sum() == count
        assert torch.equal(stored.regions[place, :count], gallery.regions[name][mask])
        assert torch.equal(stored.region_hulls[place, :count], gallery.region_hulls[name][mask])
        rest = stored.regions[place, count:]
        assert torch.equal(rest, gallery.regions[name, :1].expand_as(rest))


def test_outlines_of_more_corners_repeat_the_last_ones():
    index = zoo.create("index", "regions", metric="dot")
    for name, corners in enumerate([3, 5, 4]):
        shape = normal(1, 1, corners, 2, seed=name)
        index.add([name], Representation(regions=normal(1, 1, 16), region_hulls=shape))
    hulls = index.get([0, 1, 2]).region_hulls
    assert hulls.shape == (3, 1, 5, 2)
    assert torch.equal(hulls[0, 0, 2:], hulls[0, 0, 2:3].expand(3, 2))
    assert torch.equal(hulls[2, 0], normal(1, 1, 4, 2, seed=2)[0, 0, [0, 1, 2, 3, 3]])
    with pytest.raises(ValueError, match="must bring the fields that the index holds"):
        index.add([3], Representation(regions=normal(1, 1, 16)))


def test_a_shortlist_of_regions_finds_nearly_what_all_pairs_find(tmp_path):
    gallery, queries = pictures(400), pictures(30, seed=3)
    exact = zoo.create("index", "regions", metric="cosine")
    short = zoo.create("index", "regions", metric="cosine", shortlist=60, probes=20)
    for index in (exact, short):
        index.add(range(400), gallery, [{"even": i % 2 == 0} for i in range(400)])
        index.remove([1, 2])
    short.save(tmp_path)
    opened = open_index(tmp_path)
    for where in (None, {"even": True}):
        wanted = [ranking.ids for ranking in exact.search(queries, 10, where)]
        found = [ranking.ids for ranking in short.search(queries, 10, where)]
        assert [ranking.ids for ranking in opened.search(queries, 10, where)] == found
        common = sum(len(set(a) & set(b)) for a, b in zip(wanted, found, strict=True))
        assert common >= 0.9 * 10 * len(queries)
        assert where is None or {name % 2 for ids in found for name in ids} == {0}


# milvus


@pytest.fixture
def milvus(tmp_path):
    pytest.importorskip("pymilvus", reason="extra milvus")
    pytest.importorskip("milvus_lite", reason="extra milvus")
    made = []

    def make(metric="dot", name="milvus.db"):
        made.append(zoo.create("index", "milvus", uri=str(tmp_path / name), metric=metric))
        return made[-1]

    yield make
    for index in made:
        index.close()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_milvus_equals_flat(milvus, metric):
    gallery, queries = normal(200, 16), normal(5, 16, seed=1)
    exact, index = zoo.create("index", "flat", metric=metric), milvus(metric)
    for each in (exact, index):
        each.add([f"{i}" for i in range(200)], vectors(gallery))
    for one, other in zip(exact.search(vectors(queries), 8), index.search(vectors(queries), 8), strict=True):
        assert one.ids == other.ids
        assert torch.allclose(one.scores, other.scores, atol=1e-4)
    # Query expansions average what is stored.
    torch.testing.assert_close(index.get(["7", "3"]).vector, exact.get(["7", "3"]).vector)


def test_what_milvus_lite_lacks_is_no_news_while_it_is_open(milvus, caplog):
    index, logger = milvus(), logging.getLogger("grpc._server")
    filters = list(logger.filters)
    index.add(["a"], vectors(normal(1, 16)))
    index.search(vectors(normal(1, 16)), 1)
    assert "Method not implemented" not in caplog.text
    logger.error("Exception calling application: something else")
    assert "something else" in caplog.text
    index.close()
    gc.collect()
    assert logger.filters == filters


def test_a_killed_build_into_milvus_goes_on_after_opening(milvus, tmp_path):
    index = milvus()
    index.save(tmp_path / "index", {"set": "test"})
    index.add(["a", "b"], vectors(normal(2, 16), "f" * 16))
    index.close()  # and dies before it saves
    again = open_index(tmp_path / "index")
    assert (again.ids, again.fingerprint, again.about) == (["a", "b"], "f" * 16, {"set": "test"})
    again.add(["c"], vectors(normal(1, 16), "f" * 16))
    again.close()
    with pytest.raises(ValueError, match="already has a collection 'spatial_zoo': open the folder of its index"):
        milvus().add(["d"], vectors(normal(1, 16)))


def test_milvus_is_named_where_it_lacks_and_takes_no_other_path(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pymilvus"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'spatial-zoo\[milvus\]'"):
        len(zoo.create("index", "milvus", uri=str(tmp_path / "a.db")))
    with pytest.raises(ValueError, match=r"uri must be a path that ends with .db, or an address"):
        zoo.create("index", "milvus", uri="folder")


def test_a_process_that_used_milvus_ends_by_itself_and_its_folder_can_be_moved(milvus, tmp_path):
    script = (
        "import sys, torch, zoo\nfrom zoo.types import Representation as R\n"
        "index = zoo.create('index', 'milvus', uri=sys.argv[1] + '/milvus.db', metric='dot')\n"
        "index.add([1, 2], R(vector=torch.eye(2)), [{'label': 'a'}, {}])\nindex.save(sys.argv[1])\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "here")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    (tmp_path / "here").rename(tmp_path / "there")
    index = open_index(tmp_path / "there")
    assert index.search(vectors(torch.eye(2)), 1, {"label": "a"})[1].ids == [1]
    index.close()
