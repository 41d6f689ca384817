"""The index of probability maps: exact for what codes decode to, for photos, drawings and both; against faiss too."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

import zoo
from zoo.files import BadFile
from zoo.ops.sketches import combined_query, sketch_query
from zoo.search import open_index
from zoo.search.indexes.probability_maps import ProbabilityMapsIndex
from zoo.search.map_codebook import ABSENT, MapCodebook
from zoo.types import Representation

CLASSES, GRID, COUNT = 5, (6, 7), 90


def photos(count=COUNT, seed=0, sharpness=4.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(count, CLASSES, *GRID, generator=generator)).softmax(dim=1)


def filled(centroids=16, **changed):
    index = zoo.create("index", "probability_maps", centroids=centroids, **changed)
    index.add(list(range(COUNT)), Representation(probability_map=photos()))
    return index


def drawing(seed=0, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (1, *GRID), generator=generator)
    return torch.where(torch.rand(1, *GRID, generator=generator) < share, labels, -1)


def queries():
    """Returns a photo, a drawing and a drawing over the photo, each with the classes that count."""
    photo = photos(1, seed=9)
    maps, counts = sketch_query(drawing(), CLASSES)
    every = torch.ones(1, CLASSES, dtype=torch.bool)
    return {"photo": (photo, every), "drawing": (maps, counts), "both": (combined_query(drawing(), photo), every)}


def by_the_equations(index, maps, counts):
    """Eqs. 10 and 12: squared distances (N,) to the decoded maps, over the classes that count."""
    decoded = index.get(index.ids).probability_map.double()
    away = (decoded - maps.double()).square().sum(dim=(2, 3))
    return (away * counts).sum(dim=1)


@pytest.mark.parametrize("what", ["photo", "drawing", "both"])
def test_distances_are_those_to_what_the_codes_decode_to(what):
    index, (maps, counts) = filled(), queries()[what]
    ranking = index.search(Representation(probability_map=maps, class_mask=counts), COUNT)[0]
    wanted = by_the_equations(index, maps, counts)
    torch.testing.assert_close(-ranking.scores.double(), wanted[ranking.ids], atol=1e-4, rtol=1e-6)
    assert wanted[ranking.ids].diff().min() > -1e-4
    for row, score in zip(ranking.evidence, ranking.scores, strict=True):
        assert row["classes"].tolist() == counts[0].nonzero().flatten().tolist()
        assert row["class_distances"].sum() == pytest.approx(-float(score), abs=1e-4)


def test_the_order_is_that_of_faiss_with_the_same_codes():
    index = filled()
    book, codes = index.codebook, index._columns.at(np.arange(COUNT))
    cells = book.centroids.shape[1]
    peer = faiss.IndexPQ(CLASSES * cells, CLASSES, 4)
    peer.pq.nbits, peer.is_trained = 4, True
    centroids = np.ascontiguousarray(book.centroids.transpose(0, 2, 1), np.float32) / 255
    faiss.copy_array_to_vector(centroids.ravel(), peer.pq.centroids)
    both = codes.T
    packed = np.zeros((COUNT, peer.pq.code_size), np.uint8)
    for c in range(CLASSES):
        packed[:, c // 2] |= both[:, c] << (4 * (c % 2))
    faiss.copy_array_to_vector(packed.ravel(), peer.codes)
    peer.ntotal = COUNT
    photo = photos(3, seed=9)
    distances, found = peer.search(photo.flatten(1).numpy(), 20)
    for ranking, wanted, ids in zip(
        index.search(Representation(probability_map=photo), 20), distances, found, strict=True
    ):
        np.testing.assert_allclose(-ranking.scores.numpy(), wanted, rtol=1e-5)
        assert set(ranking.ids[:15]) <= set(ids.tolist())


def test_a_drawing_of_everything_is_a_photo_of_certainty_but_for_the_classes_that_are_not_drawn():
    index, full = filled(), drawing(share=2)
    maps, counts = sketch_query(full, CLASSES)
    both = combined_query(full, photos(1, seed=3))
    one, two = (index.search(Representation(probability_map=each), 10)[0] for each in (maps, both))
    assert one.ids == two.ids
    sketch = index.search(Representation(probability_map=maps, class_mask=counts), 10)[0]
    missing = by_the_equations(index, maps, ~counts)
    torch.testing.assert_close(
        by_the_equations(index, maps, counts)[sketch.ids] + missing[sketch.ids],
        by_the_equations(index, maps, torch.ones_like(counts))[sketch.ids],
    )


def test_an_image_without_a_class_has_the_code_of_absence():
    maps = photos()
    maps[:40, 2] = 0.0
    index = zoo.create("index", "probability_maps", centroids=8)
    index.add(list(range(COUNT)), Representation(probability_map=maps))
    codes = index._columns.at(np.arange(COUNT))
    assert (codes[2, :40] == ABSENT).all()
    assert (codes[2, 40:] != ABSENT).mean() > 0.9
    assert not index.codebook.centroids[:, :, ABSENT].any()


def test_few_different_maps_are_kept_as_they_are():
    maps = (photos(6) * 255).round() / 255
    index = zoo.create("index", "probability_maps", centroids=16)
    index.add(list(range(12)), Representation(probability_map=torch.cat([maps, maps])))
    torch.testing.assert_close(index.get([3, 9]).probability_map, maps[[3, 3]])
    ranking = index.search(Representation(probability_map=maps[4:5]), 12)[0]
    assert ranking.ids[:2] == [4, 10]  # the older of equal ones comes first


def test_rounded_queries_hardly_change_the_order():
    exact, rounded = filled(), filled(rounded=True)
    photo = Representation(probability_map=photos(5, seed=9))
    for one, two in zip(exact.search(photo, 20), rounded.search(photo, 20), strict=True):
        assert len(set(one.ids) & set(two.ids)) >= 19
        torch.testing.assert_close(one.scores, two.scores, atol=0.3, rtol=0.02)


def test_filters_and_removals_leave_the_others_where_they_were(tmp_path):
    index = zoo.create("index", "probability_maps", centroids=16)
    maps = photos()
    for start in range(0, COUNT, 30):
        payloads = [{"even": i % 2 == 0} for i in range(start, start + 30)]
        index.add(list(range(start, start + 30)), Representation(probability_map=maps[start : start + 30]), payloads)
        index.save(tmp_path / "index")
    index.remove([0, 31, 62, 89])
    index.save(tmp_path / "index")
    query = Representation(probability_map=photos(1, seed=9))
    opened = open_index(tmp_path / "index")
    for each in (index, opened):
        wanted = by_the_equations(each, query.probability_map, torch.ones(1, CLASSES))
        order = [each.ids[i] for i in wanted.argsort()]
        assert each.search(query, COUNT)[0].ids == order
        assert each.search(query, 9, {"even": True})[0].ids == [i for i in order if i % 2 == 0][:9]
    assert isinstance(next(opened._columns.parts())[0], np.memmap)


def test_a_large_index_is_searched_block_by_block(monkeypatch):
    from zoo.search.indexes import probability_maps

    whole, query = filled(), Representation(probability_map=photos(2, seed=9))
    wanted = whole.search(query, 25)
    monkeypatch.setattr(probability_maps, "_BLOCK", 7)
    for one, two in zip(whole.search(query, 25), wanted, strict=True):
        assert one.ids == two.ids
    whole.remove(list(range(0, COUNT, 3)))
    found = whole.search(query, 25)
    monkeypatch.undo()
    assert [each.ids for each in whole.search(query, 25)] == [each.ids for each in found]


# The codebook


def test_the_objective_is_that_of_k_means():
    from sklearn.cluster import KMeans

    from zoo.search.map_learning import clustered

    generator = np.random.default_rng(0)
    centres = generator.integers(0, 255, (20, 30))
    rows = (centres[generator.integers(0, 20, 900)] + generator.normal(0, 12, (900, 30))).clip(0, 255).astype(np.uint8)
    found = clustered(rows, 33, seed=0).T.astype(float)
    away = np.square(rows[:, None] - found[None]).sum(axis=2).min(axis=1).sum()
    assert away <= 1.1 * KMeans(32, n_init=1, random_state=0).fit(rows).inertia_


def test_learning_goes_on_where_it_was_stopped(tmp_path):
    index = zoo.create("index", "probability_maps", centroids=16)
    maps, given = photos(), []
    index.place(tmp_path / "index")

    def blocks(stop):
        def from_number(start):
            for low in range(start, COUNT, 20):
                if low >= stop:
                    raise KeyboardInterrupt
                given.append(low)
                yield Representation(probability_map=maps[low : low + 20])

        return from_number

    with pytest.raises(KeyboardInterrupt):
        index.learn(COUNT, blocks(60), "these")
    index.learn(COUNT, blocks(COUNT), "these")
    assert given == [0, 20, 40, 60, 80]
    alone = zoo.create("index", "probability_maps", centroids=16)
    alone.train(Representation(probability_map=maps))
    assert index.codebook.fingerprint() == alone.codebook.fingerprint()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="has its codebook already"):
        index.train(Representation(probability_map=maps))


def test_a_sample_of_other_images_is_begun_anew(tmp_path):
    index = zoo.create("index", "probability_maps", centroids=16)
    index.place(tmp_path / "index")
    starts = []

    def blocks(start):
        starts.append(start)
        yield Representation(probability_map=photos(30))
        if len(starts) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.learn(60, blocks, "these")
    index.learn(60, blocks, "those")
    assert starts == [0, 0]


# What doesn't fit


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"centroids": 257}, "centroids must be at most 256, so that a code is a byte, got 257"),
        ({"centroids": 0}, "centroids must be .* got 0"),
        ({"rounded": 1}, "rounded must be true or false, got 1"),
    ],
)
def test_parameters_are_checked(parameters, rule):
    with pytest.raises(ValueError, match=rule):
        zoo.create("index", "probability_maps", **parameters)


def test_queries_of_another_size_or_mask_are_told():
    index, photo = filled(), photos(1)
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\), of \(5, 6, 7\), got \(1, 5, 6, 6\)"):
        index.search(Representation(probability_map=photo[..., :6]), 1)
    with pytest.raises(ValueError, match=r"class_mask must be \(B, C\) bool, got torch.float32 \(1, 5\)"):
        index.search(Representation(probability_map=photo, class_mask=torch.ones(1, CLASSES)), 1)


def test_codes_of_another_codebook_are_refused(tmp_path):
    index = filled()
    index.codebook = MapCodebook(index.codebook.centroids[:, :, :4], GRID)
    index.save(tmp_path / "index")
    with pytest.raises(BadFile, match=r"its codes aren't those of MapCodebook\(C=5, K=4"):
        open_index(tmp_path / "index")


def test_an_opened_codebook_and_integer_ids_stay_on_disk(tmp_path):
    filled().save(tmp_path / "index")
    index = open_index(tmp_path / "index")
    for array in (index.codebook.centroids, index._ids.array):
        while array.base is not None and not isinstance(array, np.memmap):
            array = array.base
        assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match=r"must be \(C, H, W, K\), got \(2, 6, 3\)"):
        MapCodebook.of(np.zeros((2, 6, 3), np.uint8))


def test_a_codebook_in_the_form_of_earlier_versions_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(ProbabilityMapsIndex, "snapshot_format", "safetensors")
        earlier.setattr(ProbabilityMapsIndex, "snapshot", lambda self: {"codebook": np.arange(9, dtype=np.uint8)})
        filled().save(tmp_path / "index")
    with pytest.raises(BadFile, match=r"codebook\.safetensors can't be read"):
        open_index(tmp_path / "index")


@pytest.mark.parametrize(
    ("centroids", "grid", "rule"),
    [
        (np.zeros((2, 6, 3), np.float32), (2, 3), r"must be \(C, H \* W, K\) uint8"),
        (np.zeros((2, 6, 3), np.uint8), (2, 2), "grid must have the 6 cells"),
        (np.ones((2, 6, 3), np.uint8), (2, 3), "centroid 0 of every class must be zeros"),
    ],
)
def test_a_codebook_is_checked(centroids, grid, rule):
    with pytest.raises(ValueError, match=rule):
        MapCodebook(centroids, grid)
