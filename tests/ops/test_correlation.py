"""R-Match against its sum written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.ops.correlation import r_match


def by_hand(gallery, query):
    total = 0.0
    for own in query.reshape(len(query), -1).T:
        total += max(own @ other for other in gallery.reshape(len(gallery), -1).T)
    return total


@pytest.mark.parametrize("queries", [1, 4])
def test_each_query_location_takes_its_best_gallery_location(queries):
    rng = np.random.default_rng(0)
    gallery, query = rng.normal(size=(4, 6, 5, 3)), rng.normal(size=(queries, 6, 2, 4))
    wanted = [by_hand(gallery[item], query[item % queries]) for item in range(4)]
    found = r_match(torch.from_numpy(gallery), torch.from_numpy(query))
    assert found.tolist() == pytest.approx(wanted)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_shuffled_locations_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    query = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=generator)
    shuffled = gallery.flatten(2)[:, :, torch.randperm(16, generator=generator)].unflatten(2, (4, 4))
    torch.testing.assert_close(r_match(shuffled, query), r_match(gallery, query))


def test_an_image_matches_itself_at_every_location():
    maps = torch.nn.functional.normalize(torch.randn(3, 8, 4, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    assert r_match(maps, maps).tolist() == pytest.approx([20.0] * 3, abs=1e-4)


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"same D, got \(1, 3, 2, 2\) and \(1, 4, 2, 2\)"):
        r_match(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))
