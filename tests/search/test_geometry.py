"""Geometric verification: matches, transforms and outlines of warped pictures, whose warp is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from zoo.search.geometry import corners, find_object, match_keypoints, project
from zoo.types import Batch, Representation

cv2 = pytest.importorskip("cv2", reason="needs the extra 'geometry'")

WIDTH, HEIGHT = 240, 180
HOMOGRAPHY = np.array([[0.8, -0.25, 90.0], [0.2, 0.75, 40.0], [3e-4, 2e-4, 1.0]])
AFFINE = np.array([[0.7, -0.3, 100.0], [0.25, 0.8, 30.0], [0.0, 0.0, 1.0]])


def texture(seed, width=WIDTH, height=HEIGHT):
    """Makes a picture full of corners."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.uniform(60, 190, (height // 12, width // 12, 3)), (width, height))
    for _ in range(120):
        x, y = rng.integers(0, width), rng.integers(0, height)
        cv2.rectangle(picture, (x, y), (x + rng.integers(4, 20), y + rng.integers(4, 20)), rng.uniform(0, 255, 3), -1)
    return picture.clip(0, 255).astype(np.uint8)


def warped(picture, matrix, background):
    """Pastes a picture into another, where `matrix` takes its px (of which 0, 0 is the corner of the first one)."""
    to_corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    of_centres = np.linalg.inv(to_corner) @ matrix @ to_corner  # OpenCV calls the centre of the first px 0, 0
    size = background.shape[1::-1]
    mask = cv2.warpPerspective(np.ones(picture.shape[:2], np.uint8), of_centres, size)
    seen = cv2.warpPerspective(picture, of_centres, size)
    return np.where(mask[..., None] > 0, seen, background)


@pytest.fixture(scope="module")
def model():
    return zoo.create_model("local_features", max_keypoints=600).eval()


def features(model, *pictures):
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    return model.represent(Batch(index=torch.arange(len(pictures)), images=images), "gallery")


@pytest.fixture(scope="module")
def scene(model):
    query, other = texture(0), [texture(seed, 400, 300) for seed in (1, 2, 3)]
    hits = [other[0], warped(query, HOMOGRAPHY, other[1]), warped(query, AFFINE, other[2])]
    return features(model, query), features(model, *hits)


SIZE = {"width": WIDTH, "height": HEIGHT}


@pytest.mark.parametrize(("transform", "hit", "matrix"), [("homography", 1, HOMOGRAPHY), ("affine", 2, AFFINE)])
def test_the_object_is_found_where_it_was_put(scene, transform, hit, matrix):
    reranker = zoo.create("reranker", "geometric_verification", transform=transform, threshold=0.005)
    query, hits = scene
    found = reranker(query, hits, SIZE, [{"id": name, "width": 400, "height": 300} for name in "abc"])
    assert list(found.ids)[-1] == "a"
    assert found.scores[-1] == 0
    shown = found.evidence[found.ids.index("abc"[hit])]
    outline = project(corners((0, 0, WIDTH, HEIGHT)), matrix)
    np.testing.assert_allclose(shown["hull"], outline, atol=2)
    np.testing.assert_allclose(shown["box"], [*outline.min(0).clip(0), *outline.max(0).clip(0, (400, 300))], atol=2)
    assert shown["query_box"] == [0, 0, WIDTH, HEIGHT]
    assert shown["matches"] >= shown["inliers"] == len(shown["points"]) > 50
    points = np.array(shown["points"])
    went = cv2.perspectiveTransform(points[None, :, :2], matrix)[0]
    assert np.abs(went - points[:, 2:]).max() < 5
    assert "box" not in found.evidence[-1]


def test_the_object_may_be_a_box_of_the_query_or_what_its_keypoints_span(scene):
    reranker = zoo.create("reranker", "geometric_verification")
    query, hits = scene
    shown = reranker(query, hits.rows(slice(1, 2)), {**SIZE, "box": [20, 30, 120, 130]}).evidence[0]
    np.testing.assert_allclose(shown["hull"], project(corners((20, 30, 120, 130)), HOMOGRAPHY), atol=2)
    spanned = reranker(query, hits.rows(slice(1, 2))).evidence[0]["query_box"]
    places = query.keypoints[0][query.keypoint_mask[0]]
    assert spanned == [*places.amin(0).tolist(), *places.amax(0).tolist()]


def test_the_same_seed_finds_the_same(scene):
    reranker = zoo.create("reranker", "geometric_verification", seed=3)
    assert reranker(*scene, SIZE).evidence == reranker(*scene, SIZE).evidence


def test_without_keypoints_nothing_is_found_and_the_order_stands(scene, model):
    query, hits = scene
    blank = features(model, np.full((300, 400, 3), 90, np.uint8))
    reranker = zoo.create("reranker", "geometric_verification")
    found = reranker(blank, hits)
    assert list(found.ids) == [0, 1, 2]
    assert found.scores.tolist() == [0, 0, 0]
    assert found.evidence == [{"inliers": 0, "matches": 0}] * 3
    mixed = Representation(**{
        name: torch.cat([getattr(blank, name), value[1:]]) for name, value in hits.filled().items()
    })  # fmt: skip
    assert reranker(query, mixed).ids[-1] == 0


def test_px_of_any_size_give_the_same_inliers(scene):
    query, hits = scene
    reranker = zoo.create("reranker", "geometric_verification")
    larger = replace(hits, keypoints=hits.keypoints * 8)
    small, large = reranker(query, hits, SIZE), reranker(query, larger, SIZE)
    assert large.scores.tolist() == pytest.approx(small.scores.tolist(), abs=3)
    for a, b in zip(small.evidence[:2], large.evidence[:2], strict=True):
        np.testing.assert_allclose(8 * np.array(a["hull"]), b["hull"], atol=8)


# Matches


def test_matches_are_mutual_and_distinct():
    rng = np.random.default_rng(0)
    query, hit = rng.normal(size=(30, 4)), rng.normal(size=(25, 4))
    squared = ((query[:, None] - hit) ** 2).sum(2)
    wanted = []
    for own, row in enumerate(np.sqrt(squared)):
        near, second = np.argsort(row)[:2]
        if squared[:, near].argmin() == own and row[near] < 0.8 * row[second]:
            wanted.append([own, near])
    found = match_keypoints(torch.from_numpy(query), torch.from_numpy(hit), 0.8)
    assert found.tolist() == wanted
    assert 0 < len(wanted) < len(match_keypoints(torch.from_numpy(query), torch.from_numpy(hit), 1.0))


def test_equal_descriptors_are_no_match_and_few_are_fine():
    twins = torch.ones(2, 4)
    assert match_keypoints(twins[:1], twins, 1.0).tolist() == []
    assert match_keypoints(twins[:1], twins[:1], 0.8).tolist() == [[0, 0]]
    assert match_keypoints(twins[:0], twins, 0.8).shape == (0, 2)
    assert match_keypoints(twins, twins[:0], 0.8).shape == (0, 2)
    with pytest.raises(ValueError, match="ratio must be above 0 and at most 1, got 0"):
        match_keypoints(twins, twins, 0)


# Transforms


@pytest.mark.parametrize("transform", ["homography", "affine"])
def test_a_transform_is_found_among_outliers(transform):
    rng = np.random.default_rng(0)
    matrix = HOMOGRAPHY if transform == "homography" else AFFINE
    query = rng.uniform(0, 200, (80, 2))
    hit = cv2.perspectiveTransform(query[None], matrix)[0]
    hit[50:] = rng.uniform(0, 300, (30, 2))
    found = find_object(query, hit, transform, 2.0, 2000, 0)
    assert found.inliers[:50].all()
    assert found.count < 55
    np.testing.assert_allclose(found.matrix, matrix, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("transform", ["homography", "affine"])
def test_what_no_camera_does_is_not_found(transform):
    rng = np.random.default_rng(0)
    query = rng.uniform(0, 200, (40, 2))
    line = np.c_[np.arange(40), 2 * np.arange(40)].astype(float)
    for hit in (query * [-1, 1], np.ones((40, 2)), line):
        own = line if hit is line else query
        assert find_object(own, hit, transform, 2.0, 500, 0).matrix is None
    assert find_object(query[:2], query[:2], transform, 2.0, 500, 0).count == 0
    with pytest.raises(ValueError, match="one of homography, affine, got 'rigid'"):
        find_object(query, query, "rigid", 2.0, 500, 0)


def test_an_outline_beyond_the_horizon_is_none():
    assert project(corners((0, 0, 10, 10)), np.eye(3)).tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert project(corners((0, 0, 10, 10)), np.array([[1, 0, 0], [0, 1, 0], [-0.2, 0, 1.0]])) is None
    assert project(corners((0, 0, 10, 10)), np.diag([-1.0, 1, 1])) is None


def test_a_missing_extra_is_named(monkeypatch):
    from zoo.registry import UsageError

    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    for kind, name in (("reranker", "geometric_verification"), ("model", "local_features")):
        with pytest.raises(UsageError, match=r"needs OpenCV: pip install 'spatial-zoo\[geometry\]'"):
            zoo.create(kind, name)
