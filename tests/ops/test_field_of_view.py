"""Overlap of fields of view against Shapely's polygons and closed forms, and the table of pairs against all pairs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import ops
from zoo.ops.field_of_view import affinity_block, field_of_view_overlap, overlapping_pairs

RADIUS = 50.0
ANGLES = (0.5, 30.0, 60.0, 90.0, 135.0, 180.0, 181.0, 270.0, 359.0, 360.0)

METRES = st.floats(-60, 60)
POSE = st.tuples(METRES, METRES, st.floats(-720, 720))
# Edges, arcs and apexes of such poses often coincide.
LATTICE = st.tuples(*[st.integers(-4, 4).map(lambda step: step * 25.0)] * 2, st.integers(-8, 8).map(lambda n: n * 45.0))
ANGLE = st.one_of(st.sampled_from(ANGLES), st.floats(1, 360))


def polygons(poses, angle, corners=4096):
    """Returns sectors with `corners` corners on the arc."""
    turns = np.deg2rad(poses[:, 2:] + np.linspace(-angle / 2, angle / 2, corners))
    arcs = poses[:, None, :2] + RADIUS * np.stack([np.sin(turns), np.cos(turns)], axis=2)
    return shapely.polygons(arcs[:, 1:] if angle == 360 else np.concatenate([poses[:, None, :2], arcs], axis=1))


def reference(a, b, angle):
    shared = shapely.area(shapely.intersection(polygons(a, angle), polygons(b, angle)))
    return shared / (RADIUS**2 * math.radians(angle / 2))


def near_pairs(seed, count, origin=0.0):
    generator = np.random.default_rng(seed)
    a = generator.uniform((0, 0, 0), (1000, 1000, 360), (count, 3))
    b = np.concatenate([a[:, :2] + generator.uniform(-60, 60, (count, 2)), generator.uniform(0, 360, (count, 1))], 1)
    shift = np.array([origin, origin, 0])
    return a + shift, b + shift


def lens(distance):
    return 2 * math.acos(distance / 2) - distance / 2 * math.sqrt(4 - distance**2)


def overlap(a, b, angle, mode="area"):
    return field_of_view_overlap(np.array(a, float), np.array(b, float), RADIUS, angle, mode).item()


@pytest.mark.parametrize("angle", ANGLES)
def test_random_pairs_have_shapelys_overlap(angle):
    a, b = near_pairs(0, 60)
    np.testing.assert_allclose(field_of_view_overlap(a, b, RADIUS, angle), reference(a, b, angle), rtol=0, atol=1e-6)


@settings(max_examples=100)
@given(LATTICE, LATTICE, st.sampled_from(ANGLES))
def test_poses_that_coincide_in_part_have_shapelys_overlap(a, b, angle):
    expected = reference(np.array([a]), np.array([b]), angle)[0]
    assert overlap(a, b, angle) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("angle", [5, *ANGLES[1:]])
def test_coincidence_and_order_make_no_difference(angle):
    generator = np.random.default_rng(7)
    bearing = generator.integers(0, 24, 20_000) * 15.0
    distance = generator.choice([0, 1e-9, 12.5, 25, 50, 50 * 2**0.5, 50 * 3**0.5, 75, 99.999999, 100], 20_000)
    turns = [0, angle / 2, -angle / 2, 180, 180 + angle / 2, 180 - angle / 2, angle, -angle, 22.5, 60, 90]
    headings = bearing + generator.choice(turns, (2, 20_000))
    easting, northing = distance * np.sin(np.deg2rad(bearing)), distance * np.cos(np.deg2rad(bearing))
    a, b = np.stack([0 * bearing, 0 * bearing, headings[0]], 1), np.stack([easting, northing, headings[1]], 1)
    expected = field_of_view_overlap(a, b, RADIUS, angle)
    np.testing.assert_allclose(field_of_view_overlap(b, a, RADIUS, angle), expected, rtol=0, atol=1e-13)
    for motion in (1e-12, 1e-9, 1e-5):  # m or degrees; a narrow sector's share changes by it in units of its width
        moved = a + motion * generator.standard_normal(a.shape)
        allowed = 100 / angle * motion + 1e-13
        np.testing.assert_allclose(field_of_view_overlap(moved, b, RADIUS, angle), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize(("angle", "step"), [(90, 0), (90, 30), (90, 90), (90, 180), (180, 45), (180, 180), (40, 10)])
def test_at_one_place_the_angles_count(angle, step):
    assert overlap((7, -3, 20), (7, -3, 20 + step), angle) == pytest.approx(max(0, 1 - step / angle), abs=1e-15)


@pytest.mark.parametrize(("step", "expected"), [(0, 1), (40, 230 / 270), (90, 180 / 270), (180, 180 / 270)])
def test_wide_sectors_at_one_place_may_meet_on_both_sides(step, expected):
    assert overlap((0, 0, 10), (0, 0, 10 + step), 270) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("distance", [1e-9, 0.1, 1.0, 1.5, 1.999, 2.0, 2.1])
def test_discs_and_half_discs_share_a_lens(distance):
    expected = lens(distance) / math.pi if distance < 2 else 0.0
    place = (RADIUS * distance, 0)
    assert overlap((0, 0, 12), (*place, 300), 360) == pytest.approx(expected, abs=1e-14)
    assert overlap((0, 0, 0), (*place, 0), 180) == pytest.approx(expected, abs=1e-14)
    if distance >= 1:  # half-discs that look at each other hold the whole lens
        assert overlap((0, 0, 90), (*place, 270), 180) == pytest.approx(2 * expected, abs=1e-14)


def test_a_right_angle_looking_at_another_across_its_diagonal():
    # Two quarter discs of radius 1 around opposite corners of a unit square share pi / 2 - 1.
    got = overlap((0, 0, 45), (RADIUS, RADIUS, 225), 90)
    assert got == pytest.approx((math.pi / 2 - 1) / (math.pi / 4), abs=1e-15)
    # The second of two side by side, half a radius apart, is cut by the first one's arc.
    shared = math.pi / 6 - math.sqrt(3) / 8
    assert overlap((0, 0, 45), (RADIUS / 2, 0, 45), 90) == pytest.approx(shared / (math.pi / 4), abs=1e-15)


@pytest.mark.parametrize(
    ("a", "b", "angle"),
    [
        ((0, 0, 0), (0, 0, 180), 180),
        ((0, 0, 0), (0, 0, 90), 90),
        ((0, 0, 45), (30, 0, 135), 90),
        ((0, 0, 0), (0, 100, 180), 60),
        ((3, 4, 0), (3, 4, 120), 120),
        ((0, 0, 0), (70.71067811865476, 0, 0), 90),
    ],
)
def test_sectors_that_touch_share_nothing(a, b, angle):
    assert overlap(a, b, angle) == overlap(b, a, angle) == 0


@given(POSE, POSE, ANGLE)
def test_overlap_is_symmetric_within_bounds_and_agrees_with_iou(a, b, angle):
    area = overlap(a, b, angle)
    assert 0 <= area <= 1
    assert overlap(b, a, angle) == pytest.approx(area, abs=1e-12)
    assert overlap(a, b, angle, "iou") == pytest.approx(area / (2 - area), abs=1e-15)
    assert overlap(a, a, angle) == overlap(a, a, angle, "iou") == 1


@given(POSE, POSE, ANGLE, st.floats(0, 360), st.floats(-300, 300), st.integers(-3, 3), st.floats(0.01, 100))
def test_overlap_does_not_depend_on_the_frame(a, b, angle, rotation, shift, turns, unit):
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    moved = [
        (unit * (x * cosine + y * sine + shift), unit * (y * cosine - x * sine), heading + rotation + 360 * turns)
        for x, y, heading in (a, b)
    ]
    got = field_of_view_overlap(*np.array(moved), RADIUS * unit, angle).item()
    assert got == pytest.approx(overlap(a, b, angle), abs=1e-11)
    mirrored = [(-x, y, -heading) for x, y, heading in (a, b)]
    assert overlap(*mirrored, angle) == pytest.approx(overlap(a, b, angle), abs=1e-12)


@given(POSE, POSE, ANGLE, ANGLE)
def test_the_shared_area_grows_with_the_angle(a, b, one, other):
    narrow, wide = sorted((one, other))
    assert overlap(a, b, narrow) * narrow <= overlap(a, b, wide) * wide + 1e-10


@given(POSE, st.floats(0, 360), st.floats(0, 360), ANGLE)
def test_nothing_is_shared_beyond_two_radii(a, bearing, heading, angle):
    away = 2.0000001 * RADIUS
    b = (a[0] + away * math.cos(math.radians(bearing)), a[1] + away * math.sin(math.radians(bearing)), heading)
    assert overlap(a, b, angle) == 0


def test_places_far_from_the_origin_keep_their_precision():
    a, b = near_pairs(1, 200)
    a[:, :2], b[:, :2] = np.round(a[:, :2], 3), np.round(b[:, :2], 3)
    shift = np.array([5e5, 9.9e6, 3600.0])
    expected = field_of_view_overlap(a, b, RADIUS, 90.0)
    np.testing.assert_allclose(field_of_view_overlap(a + shift, b + shift, RADIUS, 90.0), expected, rtol=0, atol=1e-9)


def test_poses_broadcast_like_tensors():
    a, b = near_pairs(2, 300)
    table = field_of_view_overlap(a[:, None], b)
    assert table.shape == (300, 300)
    for row in (0, 1, 299):
        assert torch.equal(table[row], field_of_view_overlap(a[row], b))
    assert torch.equal(table.diagonal(), field_of_view_overlap(a, b))
    assert field_of_view_overlap(a[0], b[0]).shape == ()
    assert field_of_view_overlap(a[:0], b[0]).shape == (0,)
    assert field_of_view_overlap(a[:3, None], b[:0]).shape == (3, 0)


def test_the_result_is_as_precise_as_the_poses():
    a, b = near_pairs(3, 50)
    expected = field_of_view_overlap(a, b)
    assert expected.dtype == torch.float64
    assert torch.equal(field_of_view_overlap(torch.from_numpy(a), torch.from_numpy(b).requires_grad_()), expected)
    single = field_of_view_overlap(torch.from_numpy(a).float(), b.astype(np.float32))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=0)
    assert field_of_view_overlap(torch.from_numpy(a).float(), b).dtype == torch.float64
    assert field_of_view_overlap(torch.tensor([0, 0, 0]), np.array([0, 0, 45])).dtype == torch.float32
    assert torch.equal(ops.field_of_view_overlap(a, b, 50.0, 90.0, "area"), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros(2)}, r"a must be \(..., 3\), got shape \(2,\)"),
        ({"b": np.zeros((3, 4))}, r"b must be \(..., 3\), got shape \(3, 4\)"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}, r"must broadcast, got shapes \(2, 3\) and \(3, 3\)"),
        ({"a": np.array([[0, 0, 0], [0, np.nan, 1]])}, r"a must be finite, got \[0.0, nan, 1.0\]"),
        ({"radius": 0.0}, "radius must be above 0 and finite, got 0.0"),
        ({"radius": math.nan}, "radius must be above 0"),
        ({"angle": 0}, "angle must be above 0 and at most 360 degrees, got 0"),
        ({"angle": 361}, "angle must be above 0 and at most 360 degrees, got 361"),
        ({"mode": "union"}, "mode must be one of area, iou, got 'union'"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        field_of_view_overlap(**{"a": np.zeros(3), "b": np.zeros(3), **change})


def dense(starts, columns, values):
    size = len(starts) - 1
    table = torch.zeros(size, size)
    rows = torch.repeat_interleave(torch.arange(size), starts.diff())
    table[rows, columns.long()] = values
    return table


def crowd(seed, count, side):
    poses = np.random.default_rng(seed).uniform((0, 0, -360), (side, side, 720), (count, 3))
    poses[: count // 10] = poses[-(count // 10) - 1 : -1]
    return poses + np.array([5e5, 6e6, 0])


@pytest.mark.parametrize(
    ("count", "side", "angle", "mode"),
    [(400, 400, 90, "area"), (300, 700, 60, "iou"), (200, 300, 300, "area"), (30, 5000, 90, "area")],
)
def test_the_table_holds_all_pairs_that_overlap(count, side, angle, mode):
    poses = crowd(4, count, side)
    starts, columns, values = overlapping_pairs(poses, RADIUS, angle, mode)
    assert [starts.dtype, columns.dtype, values.dtype] == [torch.int64, torch.int32, torch.float32]
    assert len(columns) == len(values) == starts[-1]
    expected = field_of_view_overlap(poses[:, None], poses, RADIUS, angle, mode)
    got = dense(starts, columns, values)
    torch.testing.assert_close(got.double(), expected, atol=1e-7, rtol=0)
    assert torch.equal(got, got.T)
    assert torch.equal(got > 0, expected > 0)
    assert (values > 0).all()
    assert (got.diagonal() == 1).all()
    for first, last in pairwise(starts.tolist()):
        assert (columns[first:last].diff() > 0).all()


def test_a_table_of_more_pairs_than_are_collected_at_a_time():
    poses = crowd(5, 1700, 30)
    got = dense(*overlapping_pairs(torch.from_numpy(poses), RADIUS, 180, "area"))
    expected = field_of_view_overlap(poses[:, None], poses, RADIUS, 180)
    assert (expected > 0).sum() > 2 * 1.3e6
    torch.testing.assert_close(got, expected.float(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("count", [0, 1])
def test_a_table_of_no_pairs(count):
    table = overlapping_pairs(np.zeros((count, 3)), RADIUS, 90, "area")
    assert [part.tolist() for part in table] == [list(range(count + 1)), [0] * count, [1.0] * count]
    with pytest.raises(ValueError, match=r"poses must be \(N, 3\), got shape \(\d, 1, 3\)"):
        overlapping_pairs(np.zeros((count, 1, 3)), RADIUS, 90, "area")


@pytest.mark.parametrize("as_arrays", [False, True])
def test_affinities_are_entries_of_the_table(as_arrays):
    table = overlapping_pairs(crowd(6, 300, 300), RADIUS, 90, "area")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-1, 300, (5, 40), generator=generator)
    anchors = torch.stack([torch.randperm(300, generator=generator)[:30] for _ in range(5)])
    anchors[:, ::7] = -1
    anchors[:, 1] = anchors[:, 2]
    expected = dense(*table)[rows[:, :, None], anchors[:, None]]
    expected[(rows < 0)[:, :, None] | (anchors < 0)[:, None]] = 0
    inputs = [part.numpy() if as_arrays else part for part in (*table, rows, anchors)]
    got = affinity_block(*inputs)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
    assert (got > 0).any()
    assert affinity_block(*table, rows[:, :0], anchors).shape == (5, 0, 30)


@pytest.mark.parametrize(
    ("rows", "anchors", "message"),
    [
        ([[0, 3]], [[0]], "rows must be from -1 to 2, got 0 to 3"),
        ([[0]], [[-2]], "anchors must be from -1 to 2, got -2 to -2"),
        ([[0]], [[0], [1]], r"must have the same B, got shapes \(1, 1\) and \(2, 1\)"),
        ([0], [[0]], r"rows \(B, K\) and anchors \(B, L\)"),
    ],
)
def test_images_that_a_table_has_not_are_refused(rows, anchors, message):
    table = overlapping_pairs(np.zeros((3, 3)), RADIUS, 90, "area")
    with pytest.raises(ValueError, match=message):
        affinity_block(*table, np.array(rows), np.array(anchors))
