"""Local features against OpenCV called directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from zoo.types import Batch

cv2 = pytest.importorskip("cv2", reason="needs the extra 'geometry'")


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (12, 16, 3)).repeat(10, 0).repeat(10, 1) + rng.normal(0, 3, (120, 160, 3))
    return picture.clip(0, 255).astype(np.uint8)


def batch(*pictures):
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    return Batch(index=torch.arange(len(pictures)), images=images)


def directly(pixels, detector):
    points, found = detector.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
    order = sorted(range(len(points)), key=lambda place: -points[place].response)
    return np.array([points[place].pt for place in order]), found[order]


def rootsift(rows):
    return np.sqrt(rows / rows.sum(1, keepdims=True))


def sift(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bits(rows):
    return np.array([[int(bit) for byte in row for bit in f"{byte:08b}"] for row in rows])


@pytest.mark.parametrize(
    ("descriptor", "make", "prepare"),
    [("rootsift", "SIFT_create", rootsift), ("sift", "SIFT_create", sift), ("orb", "ORB_create", bits)],
)
def test_keypoints_are_those_of_opencv_strongest_first(pixels, descriptor, make, prepare):
    model = zoo.create_model("local_features", descriptor=descriptor, max_keypoints=30)
    found = model.embed(batch(pixels))
    places, rows = directly(pixels, getattr(cv2, make)(nfeatures=30) if make == "ORB_create" else cv2.SIFT_create())
    count = min(30, len(places))
    assert count > 5
    assert found.keypoint_mask[0].tolist() == [True] * count + [False] * (30 - count)
    np.testing.assert_allclose(found.keypoints[0, :count], places[:count] + 0.5, atol=1e-4)
    np.testing.assert_allclose(found.keypoint_descriptors[0, :count], prepare(rows[:count]), atol=1e-5)


def test_pictures_keep_to_themselves_and_one_colour_has_no_keypoints(pixels):
    model = zoo.create_model("local_features", max_keypoints=50)
    together = model.represent(batch(pixels, np.full_like(pixels, 100), pixels[::-1]))
    assert together.keypoints.shape == (3, 50, 2)
    assert together.keypoint_mask.sum(1).tolist()[1] == 0
    alone = model.represent(batch(pixels[::-1]))
    for field in model.kinds:
        assert torch.equal(getattr(together, field)[2], getattr(alone, field)[0])
    assert together.fingerprint == zoo.create_model("local_features", max_keypoints=50).fingerprint()
    assert together.fingerprint != zoo.create_model("local_features", max_keypoints=51).fingerprint()


def test_there_is_no_vector_to_search_by(pixels):
    model = zoo.create_model("local_features")
    with pytest.raises(ValueError, match=r"no vector to rank by: .*reranker=geometric_verification"):
        model.descriptors(batch(pixels))
    with pytest.raises(ValueError, match=r"\['vector'\], the model fills \['keypoints'"):
        zoo.create("index", "flat").add([0], model.represent(batch(pixels)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"descriptor": "surf"}, "one of rootsift, sift, orb, got 'surf'"),
        ({"max_keypoints": 0}, "an integer of at least 1, got 0"),
        ({"max_keypoints": 1.5}, "an integer of at least 1, got 1.5"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("local_features", **parameters)
