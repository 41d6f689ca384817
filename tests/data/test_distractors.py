"""Shuffled, mirrored, swapped and warped pictures: what they keep, what they destroy, and what they depend on."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.distractors import (
    affine,
    generator,
    kept_neighbours,
    mirror,
    patch_order,
    random_affine,
    separate_pairs,
    shuffle_patches,
    swap_boxes,
)
from zoo.files import BadFile


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height, width):
    """A picture in which interpolation is nearly exact."""
    y, x = np.mgrid[:height, :width]
    bands = [np.sin(y / 9 + x / 13), np.cos(y / 11 - x / 7), np.sin((y + x) / 15)]
    return (np.stack(bands, axis=-1) * 100 + 128).astype(np.uint8)


def neighbours(grid):
    """Lists (relation, patch, patch) of a grid of patches, cell by cell."""
    n = len(grid)
    found = set()
    for y in range(n):
        for x in range(n):
            if x + 1 < n:
                found.add(("right", grid[y][x], grid[y][x + 1]))
            if y + 1 < n:
                found.add(("below", grid[y][x], grid[y + 1][x]))
    return found


@given(st.integers(2, 12), st.integers(0, 10**6))
@settings(max_examples=30)
def test_no_neighbours_stay_neighbours(n, seed):
    order = patch_order(n, np.random.default_rng(seed))
    assert sorted(order) == list(range(n * n))
    before = neighbours(np.arange(n * n).reshape(n, n).tolist())
    assert before & neighbours(order.reshape(n, n).tolist()) == set()


@given(st.integers(2, 6).flatmap(lambda n: st.permutations(range(n * n))))
@settings(max_examples=50)
def test_kept_neighbours_are_counted(order):
    n = round(len(order) ** 0.5)
    grid = np.array(order).reshape(n, n)
    before = neighbours(np.arange(n * n).reshape(n, n).tolist())
    assert kept_neighbours(grid) == len(before & neighbours(grid.tolist()))
    assert kept_neighbours(np.arange(n * n).reshape(n, n)) == 2 * n * (n - 1)


def test_patches_are_those_of_the_order_and_no_pixel_is_lost_where_sides_divide():
    pixels = noise(20, 30)
    shuffled = shuffle_patches(pixels, 5, np.random.default_rng(3))
    order = patch_order(5, np.random.default_rng(3))
    for place, patch in enumerate(order):
        (y, x), (v, u) = divmod(place, 5), divmod(patch, 5)
        wanted = pixels[4 * v : 4 * v + 4, 6 * u : 6 * u + 6]
        assert np.array_equal(shuffled[4 * y : 4 * y + 4, 6 * x : 6 * x + 6], wanted)
    assert np.array_equal(np.sort(shuffled.reshape(-1, 3), axis=0), np.sort(pixels.reshape(-1, 3), axis=0))


@given(st.integers(2, 7), st.integers(7, 40), st.integers(7, 40), st.integers(0, 99))
@settings(max_examples=40)
def test_sides_that_do_not_divide_cost_a_line_a_patch_at_most(n, height, width, seed):
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y, x, np.zeros_like(y)], axis=-1).astype(np.uint8)
    shuffled = shuffle_patches(pixels, n, np.random.default_rng(seed))
    assert shuffled.shape == pixels.shape
    seen = len(np.unique(shuffled.reshape(-1, 3), axis=0))
    assert seen >= (height - n) * (width - n)
    if height % n == 0 and width % n == 0:
        assert seen == height * width


def test_the_picture_is_left_as_it_was():
    pixels = noise(24, 24)
    before = pixels.copy()
    for change in (
        lambda: shuffle_patches(pixels, 4, np.random.default_rng(0)),
        lambda: mirror(pixels),
        lambda: affine(pixels, np.eye(2)),
        lambda: swap_boxes(pixels, [0, 0, 5, 5], [10, 10, 20, 20]),
    ):
        assert not np.shares_memory(change(), pixels)
        assert np.array_equal(pixels, before)


def test_mirror_reverses_the_columns():
    pixels = noise(5, 8)
    assert np.array_equal(mirror(pixels)[:, 0], pixels[:, 7])
    assert np.array_equal(mirror(mirror(pixels)), pixels)


def test_affine_maps_are_what_they_say():
    pixels = noise(21, 21)
    assert np.array_equal(affine(pixels, np.eye(2)), pixels)
    quarter = np.array([[0, -1], [1, 0]])  # down goes to the right, right goes up
    assert np.array_equal(affine(pixels, quarter), np.rot90(pixels, 1))
    picture, matrix = smooth(80, 90), random_affine(np.random.default_rng(1))
    there = affine(picture, matrix).astype(int)
    centre = np.array([79, 89]) / 2
    for offset in ([5, 3], [-8, 10], [0, -12]):  # a point of the picture is seen where the matrix takes it
        y, x = np.rint(centre + offset).astype(int)
        v, u = np.rint(centre + matrix @ ([y, x] - centre)).astype(int)
        assert np.abs(there[v, u] - picture[y, x]).max() < 25
    back = affine(affine(picture, matrix), np.linalg.inv(matrix))[30:50, 35:55].astype(int)
    assert np.abs(back - picture[30:50, 35:55]).mean() < 2


@given(st.integers(0, 10**6))
@settings(max_examples=50)
def test_random_affine_maps_stay_within_their_bounds(seed):
    matrix = random_affine(np.random.default_rng(seed))
    assert 0.7**2 - 1e-9 <= np.linalg.det(matrix) <= 1.4**2 + 1e-9  # never mirrored
    assert np.linalg.cond(matrix) < 1.3


def test_swapped_objects_change_places_and_nothing_else_does():
    pixels = noise(30, 40)
    one, other = [2, 3, 12, 10], [20, 15, 30, 22]
    swapped = swap_boxes(pixels, one, other)
    assert np.array_equal(swapped[3:10, 2:12], pixels[15:22, 20:30])
    assert np.array_equal(swapped[15:22, 20:30], pixels[3:10, 2:12])
    outside = np.ones((30, 40), bool)
    outside[3:10, 2:12] = outside[15:22, 20:30] = False
    assert np.array_equal(swapped[outside], pixels[outside])
    assert np.array_equal(swap_boxes(swapped, one, other), pixels)
    flat = np.zeros((30, 40, 3), np.uint8)
    flat[0:4, 0:4], flat[10:20, 10:30] = 50, 200
    resized = swap_boxes(flat, [0, 0, 4, 4], [10, 10, 30, 20])
    assert (resized[0:4, 0:4] == 200).all()
    assert (resized[10:20, 10:30] == 50).all()


BOXES = st.tuples(*(st.integers(0, 20) for _ in range(2)), *(st.integers(1, 12) for _ in range(2)))


@given(st.lists(BOXES, max_size=6))
@settings(max_examples=60)
def test_separate_pairs_share_no_pixel(sides):
    boxes = [(x, y, x + width, y + height) for x, y, width, height in sides]
    painted = []
    for box in boxes:
        mask = np.zeros((40, 40), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        painted.append(mask)
    wanted = [
        (a, b) for (a, one), (b, other) in combinations(zip(boxes, painted, strict=True), 2) if not (one & other).any()
    ]
    assert separate_pairs(boxes) == wanted


def test_a_generator_depends_on_image_copy_and_seed_alone():
    def draw(*key):
        return tuple(generator(*key).integers(0, 10**9, 3))

    keys = [("a", 0, 0), ("a", 1, 0), ("a", 0, 1), ("b", 0, 0), ("a0", 0, 0), ("ä/b", 0, 0)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw("a", 0, 0) == draw("a", 0, 0) == (508506883, 836791105, 18436475)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: shuffle_patches(noise(9, 20), 10, generator("a", 0, 0)), "n must be from 2 to .* 9 px, got 10"),
        (lambda: shuffle_patches(noise(9, 20), 1, generator("a", 0, 0)), "n must be from 2.*got 1"),
        (lambda: patch_order(1, generator("a", 0, 0)), "n must be at least 2, got 1"),
        (lambda: mirror(np.zeros((4, 4))), r"pixels must be \(H, W, 3\) uint8, got \(4, 4\) float64"),
        (lambda: affine(noise(4, 4), np.ones((2, 2))), "matrix must be 2 × 2 and have an inverse"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change()


def test_a_box_outside_the_picture_is_refused():
    with pytest.raises(BadFile, match="box must overlap"):
        swap_boxes(noise(9, 9), [0, 0, 5, 5], [20, 20, 30, 30])
