"""R-MAC against the definition of the paper in NumPy loops, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from zoo.ops.pooling import rmac, rmac_regions

SIDES = st.integers(1, 14)
LEVELS = st.integers(1, 4)


def overlap(height, width, count):
    """Returns what two neighbours among `count` equally spaced largest squares share, in units of a square."""
    shorter, longer = sorted((height, width))
    step = (longer - shorter) / (count - 1)
    return (shorter - step) / shorter


def paper_regions(height, width, levels):
    """Transcribes Sec. 4.2: level → list of (top, left, side)."""
    shorter = min(height, width)
    m = 1
    if height != width:
        m = min(range(2, 100), key=lambda count: round(abs(overlap(height, width, count) - 0.4), 9))
    found = {}
    for level in range(1, levels + 1):
        side = int(np.floor(2 * shorter / (level + 1) + 1e-9))
        if side == 0:
            continue
        rows = level + m - 1 if height > width else level
        columns = level + m - 1 if width > height else level
        tops = np.floor(np.linspace(0, height - side, rows) + 1e-9).astype(int)
        lefts = np.floor(np.linspace(0, width - side, columns) + 1e-9).astype(int)
        found[level] = [(top, left, side) for top in tops for left in lefts]
    return found


def paper_rmac(one_map, levels):
    """Sums unit vectors of channel maxima over all regions of a map (C, H, W)."""
    total = np.zeros(len(one_map))
    for squares in paper_regions(*one_map.shape[1:], levels).values():
        for top, left, side in squares:
            vector = np.array([channel[top : top + side, left : left + side].max() for channel in one_map])
            norm = np.sqrt((vector**2).sum())
            total += vector / norm if norm > 0 else vector
    return total


def activations(height, width, seed, batch=2, channels=5):
    """Returns what a ReLU leaves: about half of it zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).relu()


@given(SIDES, SIDES, LEVELS, st.integers(0, 9))
def test_equals_the_definition(height, width, levels, seed):
    maps = activations(height, width, seed)
    expected = np.stack([paper_rmac(one.numpy(), levels) for one in maps])
    np.testing.assert_allclose(rmac(maps, levels).numpy(), expected, rtol=1e-9, atol=1e-12)


@given(st.integers(1, 40), st.integers(1, 40), LEVELS)
def test_regions_are_those_of_the_paper(height, width, levels):
    by_level = paper_regions(height, width, levels).values()
    expected = [(top, top + side - 1, left, left + side - 1) for squares in by_level for top, left, side in squares]
    regions = rmac_regions(height, width, levels)
    assert regions.dtype == torch.int64
    assert [tuple(row) for row in regions.tolist()] == expected


@pytest.mark.parametrize(
    ("height", "width", "counts"),
    [(7, 7, (1, 4, 9)), (24, 32, (2, 6, 12)), (32, 24, (2, 6, 12)), (10, 80, (13, 28, 45)), (1, 1, (1, 0, 0))],
)
def test_number_of_regions(height, width, counts):
    assert [len(rmac_regions(height, width, levels)) for levels in (1, 2, 3)] == np.cumsum(counts).tolist()


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_largest_regions_cover_the_map_from_border_to_border(height, width):
    covered = np.zeros((height, width), bool)
    for top, bottom, left, right in rmac_regions(height, width, 1).tolist():
        assert bottom - top == right - left == min(height, width) - 1
        covered[top : bottom + 1, left : right + 1] = True
    assert covered.all()


@given(SIDES, SIDES, LEVELS, st.floats(1e-3, 1e3))
def test_scaling_a_map_changes_nothing(height, width, levels, factor):
    maps = activations(height, width, 0)
    torch.testing.assert_close(rmac(factor * maps, levels), rmac(maps, levels))


@given(SIDES, SIDES, LEVELS, st.permutations(range(5)))
def test_channels_are_treated_alike(height, width, levels, order):
    maps = activations(height, width, 1)
    torch.testing.assert_close(rmac(maps[:, order], levels), rmac(maps, levels)[:, order])


@given(SIDES, SIDES, LEVELS)
def test_rows_and_columns_are_treated_alike(height, width, levels):
    maps = activations(height, width, 2)
    torch.testing.assert_close(rmac(maps.mT, levels), rmac(maps, levels))


@pytest.mark.parametrize(("height", "width", "levels"), [(4, 4, 3), (7, 7, 3), (12, 12, 3), (12, 24, 1), (4, 8, 1)])
@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_mirrored_maps_have_the_same_vector_where_steps_are_whole(height, width, levels, axes):
    maps = activations(height, width, 3)
    torch.testing.assert_close(rmac(maps.flip(axes), levels), rmac(maps, levels))


@given(st.integers(1, 40), st.integers(1, 40), LEVELS)
def test_mirrored_regions_are_at_most_a_cell_off(height, width, levels):
    regions = rmac_regions(height, width, levels)
    mirrored = torch.stack([height - 1 - regions[:, 1], height - 1 - regions[:, 0]], 1)
    sizes = regions[:, 1] - regions[:, 0]
    for size in sizes.unique():
        tops, again = regions[sizes == size, 0].sort()[0], mirrored[sizes == size, 0].sort()[0]
        assert (tops - again).abs().max() <= 1


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_the_first_level_of_a_square_map_is_the_whole(side):
    maps = activations(side, side, 4)
    torch.testing.assert_close(rmac(maps, levels=1), F.normalize(maps.amax((2, 3)), dim=1))


def test_a_single_cell_is_its_unit_vector_once():
    maps = activations(1, 1, 5)
    torch.testing.assert_close(rmac(maps, levels=3), F.normalize(maps[:, :, 0, 0], dim=1))


def test_a_map_without_activations_gives_zero():
    assert torch.equal(rmac(torch.zeros(2, 3, 6, 4)), torch.zeros(2, 3))


def test_gradients_are_those_of_finite_differences():
    maps = activations(4, 6, 6, batch=1, channels=2).add(0.01 * torch.rand(1, 2, 4, 6)).requires_grad_()
    torch.autograd.gradcheck(lambda x: rmac(x, 2), maps)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"x must be \(B, C, H, W\), got shape \(3, 4, 4\)"):
        rmac(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        rmac(torch.zeros(1, 3, 4, 4), levels=0)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        rmac(torch.zeros(1, 3, 4, 0))
