"""A simulated city: its counts and poses, what its descriptors say, and its tables read back."""

from __future__ import annotations

import csv
from dataclasses import fields

import numpy as np
import pytest
from scipy.spatial import cKDTree

from zoo.data._simulated_city import Recipe, World, simulate_city, write_msls
from zoo.truth import readers

WORLD = World(seed=5, dimension=128)
COLUMNS = {
    "raw": ["key", "lon", "lat", "ca", "captured_at", "pano"],
    "postprocessed": ["key", "easting", "northing", "unique_cluster", "control_panel", "night", "view_direction"],
    "seq_info": ["key", "sequence_key", "frame_number"],
    "subtask_index": ["key", "all", "w2s", "s2w", "d2n", "n2d", "o2n", "n2o"],
}


@pytest.fixture(scope="module")
def city():
    return simulate_city(world=WORLD, seed=3, database=600, queries=250)


@pytest.fixture(scope="module")
def large():
    return simulate_city(world=WORLD, seed=1, database=2500, queries=1000)


def near(city, radius=25.0):
    """Returns (Q, N) bool: which database images were recorded within so many metres of each query."""
    away = city.query.poses[:, None, :2] - city.database.poses[None, :, :2]
    return np.hypot(away[..., 0], away[..., 1]) <= radius


def turned(a, b):
    """Returns by how many degrees headings differ."""
    return abs((a - b + 180) % 360 - 180)


def same(a, b):
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


def test_a_seed_gives_the_same_city(city):
    again = simulate_city(world=World(seed=5, dimension=128), seed=3, database=600, queries=250)
    assert same(city.database, again.database)
    assert same(city.query, again.query)


def test_seeds_and_worlds_differ(city):
    for world, seed in ((WORLD, 4), (World(seed=6, dimension=128), 3)):
        other = simulate_city(world=world, seed=seed, database=600, queries=250)
        assert not np.array_equal(other.database.poses, city.database.poses)
        assert abs(other.database.descriptors - city.database.descriptors).max() > 0.05
    other = simulate_city(world=WORLD, seed=4, database=600, queries=250)
    assert not {*other.database.keys, *other.query.keys} & {*city.database.keys, *city.query.keys}
    assert cKDTree(other.database.poses[:, :2]).query(city.database.poses[:, :2])[0].min() > 1000


def test_the_dimension_leaves_the_poses_as_they_are(city):
    wide = simulate_city(world=World(seed=5, dimension=300), seed=3, database=600, queries=250)
    assert np.array_equal(wide.query.poses, city.query.poses)
    assert wide.query.descriptors.shape == (250, 300)
    similar, similar_wide = (c.query.descriptors @ c.database.descriptors.T for c in (city, wide))
    assert np.corrcoef(similar.ravel(), similar_wide.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("counts", [(1, 1), (7, 3), (301, 99)])
def test_counts_are_exact(counts):
    city = simulate_city(world=WORLD, seed=0, database=counts[0], queries=counts[1])
    for side, count in zip((city.database, city.query), counts, strict=True):
        assert len(set(side.keys)) == count
        assert side.poses.shape == (count, 3)
        assert side.descriptors.shape == (count, 128)
        assert all(getattr(side, name).shape == (count,) for name in ("sequence", "frame", "captured_at", "night"))


def test_descriptors_are_unit_vectors(city):
    for side in (city.database, city.query):
        assert side.descriptors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(side.descriptors, axis=1), 1, atol=1e-5)


def test_frames_of_a_sequence_follow_one_another(city):
    for side in (city.database, city.query):
        follows = side.sequence[1:] == side.sequence[:-1]
        assert (side.frame[1:] == np.where(follows, side.frame[:-1] + 1, 0)).all()
        assert (np.diff(side.sequence)[~follows] == 1).all()
        steps = np.linalg.norm(np.diff(side.poses[:, :2], axis=0), axis=1)[follows]
        assert 4 < np.median(steps) < 10
        assert steps.max() < 25
        assert (np.diff(side.captured_at)[follows] > 0).all()
        for of_sequence in (side.night, side.sideways):
            assert (of_sequence[1:] == of_sequence[:-1])[follows].all()


def test_cameras_look_along_their_way_or_across_it(city):
    side = city.database
    ahead = np.diff(side.poses[:, :2], axis=0)
    off = turned(np.degrees(np.arctan2(ahead[:, 0], ahead[:, 1])), side.poses[:-1, 2])
    follows = side.sequence[1:] == side.sequence[:-1]
    assert np.median(off[follows & ~side.sideways[:-1]]) < 20
    if side.sideways.any():
        assert 60 < np.median(off[follows & side.sideways[:-1]]) < 120
    assert ((side.poses[:, 2] >= 0) & (side.poses[:, 2] < 360)).all()


def test_places_are_seen_by_several_sequences_in_both_directions(large):
    relevant = near(large)
    assert (relevant.sum(axis=1) > 0).mean() > 0.8
    passes = [len(set(large.database.sequence[row])) for row in relevant if row.any()]
    assert np.median(passes) >= 2
    rows, columns = relevant.nonzero()
    off = turned(large.query.poses[rows, 2], large.database.poses[columns, 2])
    assert (off < 30).mean() > 0.25
    assert (off > 150).mean() > 0.1


def test_sequences_are_taken_at_different_times(large):
    side = large.database
    days = side.captured_at[side.frame == 0].astype("datetime64[ms]").astype("datetime64[D]")
    assert len(set(days.tolist())) > 0.8 * len(days)
    assert 0 < side.night.mean() < 0.5


def test_similarity_falls_with_distance(large):
    similar = large.query.descriptors @ large.database.descriptors.T
    away = large.query.poses[:, None, :2] - large.database.poses[None, :, :2]
    away = np.hypot(away[..., 0], away[..., 1])
    facing = turned(large.query.poses[:, None, 2], large.database.poses[None, :, 2])
    rings = [(0, 5), (5, 15), (15, 30), (60, 200)]
    means = [similar[(facing < 20) & (away >= low) & (away < high)].mean() for low, high in rings]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1] + 0.15
    assert means[0] > similar[(facing > 150) & (away < 5)].mean() + 0.1


def test_retrieval_is_about_as_hard_as_in_real_cities(large):
    relevant = near(large)
    similar = large.query.descriptors @ large.database.descriptors.T
    first = similar.argmax(axis=1)
    asked = relevant.any(axis=1)
    right = relevant[np.arange(len(first)), first][asked].mean()
    assert 0.35 < right < 0.75
    wrong = first[asked & ~relevant[np.arange(len(first)), first]]
    spread = large.database.poses[wrong, :2].std(axis=0) / large.database.poses[:, :2].std(axis=0)
    assert (spread > 0.6).all()  # wrong neighbours lie all over the city


def test_what_cities_share_can_be_projected_out(large):
    """A linear map that is known from the world alone finds more: a learned one has something to find."""
    recipe, relevant = WORLD.recipe, near(large)
    asked = relevant.any(axis=1)
    kept = WORLD.basis[: recipe.content + recipe.shared]
    right = []
    for rows in (WORLD.basis, kept):
        queries, database = (side.descriptors @ rows.T for side in (large.query, large.database))
        first = (queries @ (database / np.linalg.norm(database, axis=1, keepdims=True)).T).argmax(axis=1)
        right.append(relevant[np.arange(len(first)), first][asked].mean())
    assert right[0] + 0.04 < right[1] < 0.95


def test_tables_read_back(city, tmp_path):
    write_msls(tmp_path, "springfield", city)
    lists = readers.read_msls(tmp_path, ["springfield"], radius=25.0, leaderboard=False)
    relevant = near(city)
    assert lists.gallery_ids == city.database.keys
    assert lists.query_ids == tuple(key for key, row in zip(city.query.keys, relevant, strict=True) if row.any())
    found = [{*row} for row in lists.groups["relevant"]]
    assert found == [{city.database.keys[item] for item in row.nonzero()[0]} for row in relevant if row.any()]
    assert not lists.excluded


def test_tables_have_the_columns_of_msls(city, tmp_path):
    write_msls(tmp_path, "springfield", city)
    for name, side in (("query", city.query), ("database", city.database)):
        for table, columns in COLUMNS.items():
            file = tmp_path / "train_val" / "springfield" / name / f"{table}.csv"
            with file.open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            assert list(rows[0]) == ["", *columns]
            assert [row["key"] for row in rows] == list(side.keys)
            assert [row[""] for row in rows] == [str(number) for number in range(len(rows))]
            if table == "postprocessed":
                places = [[float(row[axis]) for axis in ("easting", "northing")] for row in rows]
                assert np.array_equal(places, side.poses[:, :2])
                assert {row["night"] for row in rows} <= {"True", "False"}
            if table == "raw":
                assert [float(row["ca"]) for row in rows] == side.poses[:, 2].tolist()
                assert all(-90 < float(row["lat"]) < 90 and -180 < float(row["lon"]) < 180 for row in rows)
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_cannot_be_is_refused():
    for field, value in (("turn", 1.5), ("memory", -0.1), ("block", 0.0), ("spacing", (9.0, 4.0))):
        with pytest.raises(ValueError, match=f"{field} must be"):
            Recipe(**{field: value})
    with pytest.raises(ValueError, match="dimension must be at least"):
        World(seed=0, dimension=Recipe().latent - 1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        simulate_city(world=WORLD, seed=0, database=0, queries=1)
