"""Correlation from codes, and the index that keeps local maps as codes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.files import BadFile
from zoo.ops.correlation import correlation_volume
from zoo.search import ProductQuantizer, open_index, storage, stored
from zoo.search.local_maps import correlations, encoded, local_map_of, quantised, read_quantizer
from zoo.search.pipeline import Pipeline
from zoo.types import Representation

D, GRID = 16, (5, 4)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(count, seed=0, size=GRID):
    return F.normalize(normal(count, D, *size, seed=seed), dim=1)


def items(count, seed=0):
    return Representation(vector=normal(count, 6, seed=seed), local_map=maps(count, seed), fingerprint="f" * 16)


@cache
def described(**parameters):
    """Composing a config takes longer than most of these tests."""
    return zoo.create("index", "local_maps", **{"subquantizers": 4, "centroids": 16, **parameters})


def empty(**parameters):
    index = type(described(**parameters))(**described(**parameters).registered["parameters"])
    index.registered = described(**parameters).registered
    return index


def filled(count=30, blocks=1, **parameters):
    index, given_ = empty(**parameters), items(count)
    for rows in torch.arange(count).chunk(blocks):
        index.add(rows, given_.rows(rows), [{"row": row} for row in rows.tolist()])
    return index


# Correlation


@settings(max_examples=30)
@given(
    st.sampled_from([1, 2, 4, 16]), st.integers(1, 30), st.integers(0, 7), st.booleans(), st.integers(1, 4),
    st.tuples(*[st.integers(1, 4)] * 4),
)  # fmt: skip
def test_correlation_from_codes_is_that_of_decoded_maps(parts, count, hits, renormalise, block, sides):
    quantizer = ProductQuantizer(normal(parts, count, D // parts, seed=count))
    query = maps(1, 1, sides[:2])[0]
    held = Representation(local_codes=encoded(maps(hits, 2, sides[2:]), quantizer), quantizer=quantizer)
    found = list(correlations(query, held, renormalise, block))
    assert [part.stop - part.start for part, _ in found] == [min(block, hits - i) for i in range(0, hits, block)]
    decoded = local_map_of(held, renormalise)
    wanted = correlation_volume(decoded, query[None])
    for part, volume in found:
        # Half precision; the query's features have unit length.
        assert ((volume - wanted[part]).abs() <= 1e-3 * decoded[part].norm(dim=1)[:, None]).all()
        assert volume.is_contiguous()


def test_correlation_of_maps_that_are_no_codes_is_the_volume():
    held = items(5)
    (part, volume), (_, rest) = correlations(maps(1, 3, (2, 2))[0], held, block=3)
    assert part == slice(0, 3)
    wanted = correlation_volume(held.local_map, maps(1, 3, (2, 2)))
    assert torch.allclose(torch.cat([volume, rest]), wanted, atol=1e-6)


def test_a_location_that_decodes_to_nothing_correlates_with_nothing():
    quantizer = ProductQuantizer(torch.zeros(2, 1, D // 2))
    held = Representation(local_codes=torch.zeros(1, 2, 2, 2, dtype=torch.uint8), quantizer=quantizer)
    ((_, volume),) = correlations(maps(1, 1, (1, 1))[0], held)
    assert torch.equal(volume, torch.zeros(1, 1, 2, 2))


def test_quantised_maps_are_near_and_of_unit_length():
    given_ = maps(6)
    quantizer = ProductQuantizer.fit(given_.permute(0, 2, 3, 1).flatten(0, 2), 8, 64, 0)
    unit, plain = quantised(given_.half(), quantizer), quantised(given_, quantizer, renormalise=False)
    assert unit.dtype == torch.half
    assert F.cosine_similarity(unit.float(), given_).mean() > 0.9
    assert torch.allclose(unit.float().norm(dim=1), torch.ones(6, *GRID), atol=2e-3)
    assert torch.allclose(F.normalize(plain, dim=1), unit.float(), atol=2e-2)
    assert not torch.allclose(plain, unit.float(), atol=2e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(correlations(maps(1)[0], items(2).rows([0]).rows([]).rows([]), True)), None),
        (lambda: list(correlations(maps(1), items(2))), r"query must be \(D, Hq, Wq\), got \(1, 16, 5, 4\)"),
        (lambda: list(correlations(maps(1)[0], Representation(vector=normal(2, 3)))), "needs .*local_map"),
        (lambda: list(correlations(maps(1)[0, :4], filled().get([0]))), r"must be \(N, 16\).*got \(20, 4\)"),
        (
            lambda: list(correlations(maps(1)[0], replace(filled().get([0]), quantizer=None))),
            "need the quantizer that made them, got None",
        ),
        (lambda: quantised(maps(1)[0], filled().quantizer), r"local maps must be \(B, D, H, W\)"),
    ],
)
def test_what_cannot_be_correlated_is_refused(call, message):
    if message is None:
        assert call() == []
        return
    with pytest.raises(ValueError, match=message):
        call()


# Re-ranking


def test_r_match_on_codes_is_that_on_decoded_maps():
    hits, query = filled().get(range(30)), Representation(local_map=maps(1, 9, (2, 3)), fingerprint="f" * 16)
    reranker = zoo.create("reranker", "r_match")
    found = reranker(query, hits)
    wanted = reranker(query, Representation(local_map=local_map_of(hits)))
    of_decoded = dict(zip(wanted.ids, wanted.scores.tolist(), strict=True))
    assert found.scores.tolist() == pytest.approx([of_decoded[place] for place in found.ids], abs=1e-3)
    arrays = replace(hits, **{name: value.numpy() for name, value in hits.filled().items()})
    assert reranker(query, arrays).ids == found.ids
    stored_query = reranker(hits.rows(slice(4, 5)), hits)  # query_id= of such an index
    assert stored_query.ids[0] == 4
    assert stored_query.scores[0] == pytest.approx(1, abs=1e-3)


class Beside:
    """Features beside the index, with maps that aren't codes."""

    kinds, fingerprint = ("vector", "local_map", "regions"), None

    def get(self, ids):
        return Representation(local_map=maps(len(ids), 8), regions=normal(len(ids), 1, D))


def test_the_pipeline_hands_on_codes_not_the_maps_beside_them():
    seen = []

    class Spy(type(zoo.create("reranker", "r_match"))):
        def score(self, query, hits, *rest):
            seen.append(hits)
            return super().score(query, hits, *rest)

    index, asked = filled(), items(2, 5)
    found = Pipeline(index, [Spy(field="local_map")], 7).search(asked, 7, extra=Beside(), extra_queries=asked)
    assert [len(ranking) for ranking in found] == [7, 7]
    for hits in seen:
        assert hits.quantizer == index.quantizer
        assert hits.local_codes.dtype == torch.uint8
        assert hits.local_map is None
        assert hits.regions is not None


# The index


def test_an_item_takes_28_800_bytes_by_default(tmp_path):
    index = zoo.create("index", "local_maps")
    for name in "ab":  # one by one: the locations of one map are as many centroids
        index.add([name], Representation(vector=normal(1, 8), local_map=normal(1, 256, 15, 15)))
    codes = index.get(["a"]).local_codes
    assert (codes.shape, codes.numel() * codes.element_size()) == ((1, 15, 15, 128), 28_800)
    index.save(tmp_path)
    (path,) = tmp_path.glob("*-codes.npy")
    assert path.stat().st_size == 2 * 28_800 + 128  # and NumPy's header


def test_it_searches_by_vectors_as_flat_does():
    index, flat, asked = filled(), zoo.create("index", "flat"), items(4, 3)
    flat.add(range(30), items(30))
    for queries in (asked, replace(asked, local_map=None)):
        for one, other in zip(index.search(queries, 9), flat.search(queries, 9), strict=True):
            assert one.ids == other.ids
            assert torch.equal(one.scores, other.scores)


def test_codes_are_those_of_the_map_whatever_the_block(tmp_path):
    index = filled(70, blocks=3)
    assert torch.equal(index.get([69, 3]).local_codes, encoded(maps(70)[[69, 3]], index.quantizer))
    assert index.get([3]).quantizer is index.quantizer
    assert index.get([]).vector.shape == (0, 6)


def mapped(index):
    return [isinstance(array, np.memmap) for array in index._codes.arrays]


def test_codes_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_SEGMENTS", 3)
    index = filled(blocks=2)
    assert mapped(index) == [False, False]
    index.save(tmp_path, {"set": "test"})
    assert mapped(index) == [True]  # what was saved isn't held any longer
    opened = open_index(tmp_path)
    assert mapped(opened) == [True]
    assert opened.quantizer == index.quantizer == read_quantizer(tmp_path)
    everything = maps(30)
    for number in range(4):  # more segments than stay, so that all is written anew from mapped files
        rows = slice(number * 5, number * 5 + 5)
        opened.add(range(30 + rows.start, 30 + rows.stop), items(20, 7).rows(rows))
        opened.remove([number])
        opened.save(tmp_path)
        assert all(mapped(opened))
    everything = torch.cat([everything, maps(20, 7)])
    opened.replace([10], items(1, 9))
    opened.save(tmp_path)
    for each in (opened, open_index(tmp_path)):
        assert each.ids == [*range(4, 10), *range(11, 50), 10]
        wanted = torch.cat([everything[4:10], everything[11:], maps(1, 9)])
        assert torch.equal(each.get(each.ids).local_codes, encoded(wanted, index.quantizer))
        assert torch.equal(each.get([40, 5]).local_codes, encoded(everything[[40, 5]], index.quantizer))


def test_an_index_may_lose_all_its_items_and_go_on(tmp_path):
    index = filled()
    index.save(tmp_path)
    index.remove(range(30))
    index.save(tmp_path)
    opened = open_index(tmp_path)
    assert (len(opened), opened.quantizer) == (0, index.quantizer)
    opened.add([1], items(1, 4))
    assert torch.equal(opened.get([1]).local_codes, encoded(maps(1, 4), index.quantizer))


def test_codes_of_the_same_quantiser_can_be_added(tmp_path):
    index, other = filled(), empty()
    other.add(range(30), index.get(range(30)))
    assert other.quantizer == index.quantizer
    assert torch.equal(other.get([7]).local_codes, index.get([7]).local_codes)
    other.add([30], items(1, 3))
    stranger = filled(31, seed=5).get([30])
    with pytest.raises(ValueError, match="local_codes must be of the index' quantizer"):
        other.add([31], stranger)
    with pytest.raises(ValueError, match="M=2, K=16"):
        empty(subquantizers=2).add([31], stranger)


def test_it_learns_from_a_sample_or_from_the_first_items():
    sample, first = items(50, 6), items(10)
    trained, plain, again = (empty(train_size=200) for _ in range(3))
    assert trained.sample_size(first.rows([0])) == 10  # of 20 locations each
    trained.train(sample)
    for index in (trained, plain):
        index.add(range(10), first)
    again.train(first)
    assert again.quantizer == plain.quantizer
    assert trained.quantizer != plain.quantizer
    assert trained.sample_size(first.rows([0])) == 0
    with pytest.raises(ValueError, match="has its quantiser already"):
        trained.train(sample)


@pytest.mark.parametrize(("size", "most"), [(50, 1), (130, 3), (5000, 20)])
def test_it_learns_from_different_locations_of_all_images(size, most, monkeypatch):
    seen = []
    quantizer = ProductQuantizer(normal(4, 16, 4))
    monkeypatch.setattr(ProductQuantizer, "fit", lambda rows, *rest: seen.append(rows) or quantizer)
    empty(train_size=size).train(items(50))
    (rows,) = seen
    owners = {tuple(row): image for image, each in enumerate(maps(50).flatten(2).mT.tolist()) for row in each}
    drawn = [owners[tuple(row)] for row in rows.tolist()]
    assert len(drawn) == len({tuple(row) for row in rows.tolist()}) == min(size, 50 * 20)
    assert max(map(drawn.count, range(50))) == most
    assert min(map(drawn.count, range(50))) >= most - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_map": maps(1, size=(4, 4))}, r"local maps of items must be \(5, 4\) as in the index, got \(4, 4\)"),
        ({"local_map": maps(1)[:, :8]}, "must have the D = 16 of the index, got 8"),
        ({"local_map": maps(1) * torch.nan}, "local maps of items must be finite"),
        ({"local_map": maps(1)[0]}, r"must be \(B, D, H, W\)"),
        ({"local_map": None}, "needs the representation fields .*'local_map'"),
    ],
)
def test_maps_that_do_not_fit_are_refused_and_change_nothing(change, message):
    index = filled()
    with pytest.raises(ValueError, match=message):
        index.add([99], replace(items(1), **change))
    assert (len(index), len(index._codes)) == (30, 30)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"subquantizers must divide the dimension D = 16 .*got 3"):
        filled(subquantizers=3)
    with pytest.raises(ValueError, match=r"centroids must be at most 256, .*got 257"):
        empty(centroids=257)
    with pytest.raises(ValueError, match="train_size must be an integer of at least 1, got 0"):
        empty(train_size=0)


def test_a_damaged_codebook_is_refused(tmp_path):
    filled().save(tmp_path)
    (path,) = tmp_path.glob("*-quantizer.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for call in (open_index, read_quantizer):
        with pytest.raises(BadFile, match="checksum differs"):
            call(tmp_path)


def test_another_index_has_no_codebook(tmp_path):
    flat = zoo.create("index", "flat")
    flat.add([0], Representation(vector=normal(1, 3)))
    flat.save(tmp_path)
    with pytest.raises(BadFile, match="is an index without a quantiser"):
        read_quantizer(tmp_path)


def test_an_array_in_pieces_is_written_like_a_whole_one(tmp_path):
    rows = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
    commit = storage.Commit(tmp_path, 1)
    pieces = storage.Pieces(rows.shape, rows.dtype, (rows[i : i + 4] for i in range(0, 10, 4)))
    entry = commit.array("codes", pieces)
    assert np.array_equal(storage.read_array(tmp_path, entry), rows)
    assert entry["count"] == 10
