"""Distances against SciPy, and ties that must be ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from zoo.ops import distances
from zoo.ops.distances import l2_distances


@pytest.mark.parametrize("dim", [1, 7, 1500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_equals_scipy(dim, dtype):
    rows = (torch.rand(5000, dim, generator=torch.Generator().manual_seed(0)) * 200).to(dtype)
    found = l2_distances(rows[:3], rows)
    np.testing.assert_allclose(found.numpy(), cdist(rows[:3].double(), rows.double()), atol=1e-5)


@pytest.mark.parametrize("dim", [7, 1500])
def test_normalised_equals_scipy_on_normalised_rows(dim):
    rows = torch.randint(0, 200, (3000, dim), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows[5] = 0
    unit = rows.double().numpy()
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    found = l2_distances(rows[:7], rows, normalised=True)
    np.testing.assert_allclose(found.numpy(), cdist(unit[:7], unit), atol=1e-7)


def test_long_rows_are_taken_in_smaller_blocks(monkeypatch):
    rows = torch.rand(40, 1200, generator=torch.Generator().manual_seed(0))
    whole = l2_distances(rows[:3], rows)
    monkeypatch.setattr(distances, "_GALLERY_NUMBERS", 1200 * 7)
    torch.testing.assert_close(l2_distances(rows[:3], rows), whole)


def test_an_empty_gallery_has_no_distances():
    assert l2_distances(torch.rand(3, 4), torch.empty(0, 4)).shape == (3, 0)


@pytest.mark.parametrize("dim", [6, 3000])
def test_equal_distances_tie_whatever_the_number_of_queries(dim):
    """Permuting the coordinates of two-valued, normalised vectors leaves their distance to a constant one as it is."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([(torch.rand(dim, generator=generator).argsort() < dim // 3).float() for _ in range(200)])
    rows = torch.nn.functional.normalize(rows, dim=1)
    constant = torch.full((1, dim), dim**-0.5)
    assert l2_distances(constant, rows).unique().numel() == 1
    many, few = l2_distances(rows[:10], rows)[:3], l2_distances(rows[:3], rows)
    torch.testing.assert_close(many, few)
    assert torch.equal(many.argsort(stable=True), few.argsort(stable=True))


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_descriptors_of_any_scale_keep_their_order(scale):
    rows = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(l2_distances(rows[:5], rows).argsort(), l2_distances(rows[:5] * scale, rows * scale).argsort())
