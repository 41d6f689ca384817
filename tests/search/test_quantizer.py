"""The product quantiser against faiss and brute force."""

from __future__ import annotations

import pickle

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.files import BadFile
from zoo.search import ProductQuantizer
from zoo.search.local_maps import read_quantizer


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(parts=4, count=16, size=3, seed=0):
    return ProductQuantizer(normal(parts, count, size, seed=seed))


def nearest(x, centroids):
    """Returns the codes of x (N, D), and by how much the second nearest centroid is farther, by brute force."""
    parts = np.asarray(x, np.float64).reshape(len(x), len(centroids), 1, -1)
    distances = np.square(parts - np.asarray(centroids, np.float64)).sum(axis=3)
    two = np.sort(distances, axis=2)
    return distances.argmin(axis=2), two[:, :, 1] - two[:, :, 0]


@pytest.mark.parametrize(("m", "k"), [(4, 256), (8, 16)])
def test_fitting_and_coding_equal_faiss(m, k):
    x, others = normal(2000, 24).numpy(), normal(300, 24, seed=1).numpy()
    reference = faiss.ProductQuantizer(24, m, k.bit_length() - 1)
    reference.cp.seed, reference.cp.min_points_per_centroid = 7, 1
    reference.train(x)
    quantizer = ProductQuantizer.fit(x, m, k, seed=7)
    theirs = faiss.vector_to_array(reference.centroids).reshape(m, k, -1)
    assert np.allclose(quantizer.centroids, theirs, atol=1e-5)
    same = ProductQuantizer(theirs)
    codes = same.encode(others)
    assert (codes.dtype, codes.shape) == (torch.uint8, (300, m))
    assert np.allclose(same.decode(codes), reference.decode(reference.compute_codes(others)), atol=1e-6)


def test_codes_are_the_nearest_centroids():
    quantizer, x = drawn(count=200), normal(700, 12, seed=1)  # more rows than are encoded at a time
    wanted, gap = nearest(x, quantizer.centroids)
    codes = quantizer.encode(x).numpy()
    assert np.array_equal(codes[gap > 1e-5], wanted[gap > 1e-5])
    elsewhere = quantizer._encoded(x).numpy()  # as a graphics card does it
    assert np.array_equal(elsewhere[gap > 1e-5], wanted[gap > 1e-5])


def test_of_equally_near_centroids_the_first_is_taken():
    quantizer = ProductQuantizer(torch.tensor([[[1.0], [3.0], [1.0], [3.0]]]))
    assert quantizer.encode(torch.tensor([[2.0], [0.0], [9.0]])).tolist() == [[0], [0], [1]]


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 4), st.integers(0, 9), st.integers(1, 4), st.data())
def test_distances_by_tables_are_those_to_what_codes_decode_to(parts, count, size, rows, queries, data):
    quantizer = drawn(parts, count, size, seed=rows)
    codes = quantizer.encode(normal(rows, parts * size, seed=1))
    asked = normal(queries, parts * size, seed=2)
    found = quantizer.distances(quantizer.distance_tables(asked), codes)
    decoded = quantizer.decode(codes).double()
    differences = (asked.double()[:, None] - decoded[None]).square()
    assert found.shape == (queries, rows)
    torch.testing.assert_close(found.double(), differences.sum(dim=2), rtol=1e-5, atol=1e-5)
    chosen = data.draw(st.lists(st.integers(0, parts - 1), unique=True))
    some = quantizer.distances(quantizer.distance_tables(asked), codes, chosen)
    wanted = differences.unflatten(2, (parts, size))[:, :, chosen].sum(dim=(2, 3))
    torch.testing.assert_close(some.double(), wanted, rtol=1e-5, atol=1e-5)
    products = quantizer.product_tables(asked)
    summed = sum(products[part, codes[:, part].long()] for part in range(parts))
    torch.testing.assert_close(summed.double(), decoded @ asked.double().T, rtol=1e-5, atol=1e-5)
    lengths = sum(quantizer.squared_norms[part, codes[:, part]] for part in range(parts))
    assert np.allclose(lengths, decoded.square().sum(dim=1), atol=1e-4)


@settings(max_examples=20)
@given(st.permutations(range(12)))
def test_each_descriptor_is_coded_by_itself(order):
    quantizer, x = drawn(), normal(12, 12, seed=3)
    assert torch.equal(quantizer.encode(x[order]), quantizer.encode(x)[order])


@pytest.mark.parametrize("different", [1, 3, 16])
@pytest.mark.parametrize("repeated", [1, 50])
def test_few_different_rows_come_back_exactly(different, repeated):
    x = normal(different, 8).repeat(repeated, 1)
    quantizer = ProductQuantizer.fit(x, 2, 16, seed=0)
    assert quantizer.centroids.shape == (2, 16, 4)
    assert torch.equal(quantizer.decode(quantizer.encode(x)), x)


def test_no_centroid_stays_empty_where_most_rows_are_one():
    x = torch.cat([torch.zeros(500, 4), normal(40, 4)])
    quantizer = ProductQuantizer.fit(x, 1, 32, seed=0)
    assert np.isfinite(quantizer.centroids).all()
    error = (quantizer.decode(quantizer.encode(x)) - x).square().sum(dim=1)
    assert error.mean() < 0.2 * x.square().sum(dim=1).mean()


def test_decoded_descriptors_can_be_normalised():
    quantizer = drawn()
    codes = quantizer.encode(normal(6, 12)).view(2, 3, 4)
    plain, unit = quantizer.decode(codes), quantizer.decode(codes, renormalise=True)
    assert unit.shape == (2, 3, 12)
    assert torch.allclose(unit, plain / plain.norm(dim=2, keepdim=True))


def test_the_same_seed_gives_the_same_quantiser():
    x = normal(400, 8)
    one, again, other = (ProductQuantizer.fit(x, 2, 16, seed) for seed in (1, 1, 2))
    assert (one, hash(one), one.fingerprint()) == (again, hash(again), again.fingerprint())
    assert one not in (other, "something else")
    assert pickle.loads(pickle.dumps(one)) == one
    assert not hasattr(one, "device")  # by which a Representation tells tensors from what travels along


def test_a_file_brings_it_back_and_a_damaged_one_is_named(tmp_path):
    quantizer, path = drawn(), tmp_path / "codebook.safetensors"
    path.write_bytes(quantizer.to_bytes())
    assert read_quantizer(path) == quantizer
    path.write_bytes(quantizer.to_bytes()[:-1])
    for wrong, why in ((path, "is no product quantiser"), (tmp_path / "none", "can't be read"), (tmp_path, "no index")):
        with pytest.raises(BadFile, match=why) as caught:
            read_quantizer(wrong)
        assert str(wrong) in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ProductQuantizer.fit(normal(9, 10), 4, 4, 0), r"m must divide the dimension D = 10 .*2, 5, 10.*got 4"),
        (lambda: ProductQuantizer.fit(normal(9, 10), 2, 257, 0), "k must be at most 256, .*got 257"),
        (lambda: ProductQuantizer.fit(normal(0, 10), 2, 4, 0), r"at least one row, got \(0, 10\)"),
        (lambda: ProductQuantizer.fit(normal(9, 10) * torch.nan, 2, 4, 0), "x must be finite"),
        (lambda: ProductQuantizer.fit(normal(9, 10), 0, 4, 0), "m must be an integer of at least 1, got 0"),
        (lambda: ProductQuantizer(normal(2, 3)), r"centroids must be \(M, K, D/M\)"),
        (lambda: ProductQuantizer(normal(2, 3, 4) / 0), "centroids must be finite"),
        (lambda: drawn().encode(normal(3, 11)), r"must be \(N, 12\) for this quantiser, got \(3, 11\)"),
        (lambda: drawn().decode(torch.zeros(3, 5, dtype=torch.uint8)), r"codes must be \(..., 4\) uint8"),
        (lambda: drawn().decode(torch.full((1, 4), 16, dtype=torch.uint8)), "codes must be below 16, .*got 16"),
        (
            lambda: drawn().distances(torch.zeros(1, 4, 16), torch.zeros(1, 4, dtype=torch.uint8), [4]),
            r"subspaces must be from 0 to 3, got \[4\]",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
