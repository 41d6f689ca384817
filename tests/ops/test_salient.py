"""The Hessian detector on blobs of known place and size, where theory gives the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from zoo.ops.salient import _blurred, hessian_points

USUAL = {"threshold": (16 / 3 / 255) ** 2, "edge_ratio": 10.0}


def blobs(*parts, height=96, width=128, ground=0.2):
    """Draws Gaussian blobs of (x, y, σ, brightness), in px, as a grey image (1, 3, H, W)."""
    y, x = np.mgrid[:height, :width] + 0.5
    image = np.full((height, width), ground)
    for left, top, sigma, brightness in parts:
        image += brightness * np.exp(-((x - left) ** 2 + (y - top) ** 2) / (2 * sigma**2))
    return torch.tensor(image, dtype=torch.float32).expand(1, 3, height, width)


def strongest(points):
    return points[points[:, 3].argmax()]


@settings(max_examples=25)
@given(st.integers(30, 98), st.integers(30, 66), st.floats(2.2, 8), st.sampled_from([-0.15, 0.5]))
def test_a_blob_is_found_at_its_place_and_scale(x, y, sigma, brightness):
    (points,) = hessian_points(blobs((x, y, sigma, brightness)), **USUAL)
    found = strongest(points)
    step = max(1, 2 ** int(np.log2(sigma / 1.6) + 0.34))  # px between two places of the octave that finds it
    assert np.hypot(found[0] - x, found[1] - y) <= step
    # The response σ⁴ · det is largest at the blob's own σ; what the camera's blur of 0.5 px takes away is small.
    assert abs(np.log2(found[2] / sigma)) <= 1 / 6 + 0.1


def test_blobs_apart_are_found_one_by_one():
    made = [(30, 30, 3, 0.5), (90, 30, 4, -0.15), (60, 70, 6, 0.4)]
    (points,) = hessian_points(blobs(*made), **USUAL)
    for x, y, _, _ in made:
        assert (points[:, :2] - torch.tensor([x, y])).norm(dim=1).min() <= 4


@pytest.mark.parametrize("pattern", ["flat", "ramp", "step", "bar"])
def test_what_is_no_blob_has_no_points(pattern):
    x = torch.arange(128.0).expand(96, 128)
    image = {"flat": x * 0 + 0.5, "ramp": x / 128, "step": (x > 64).float(), "bar": ((x > 60) & (x < 66)).float()}[
        pattern
    ]
    (points,) = hessian_points(image.expand(1, 3, 96, 128), **USUAL)
    assert not len(points)


def test_an_image_has_its_points_whatever_its_batch():
    images = (torch.rand(3, 3, 70, 90, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    together = hessian_points(images, **USUAL)
    assert all(len(points) > 3 for points in together)
    for image, points in zip(images, together, strict=True):
        (alone,) = hessian_points(image[None], **USUAL)
        assert torch.equal(alone, points)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (15, 15), (16, 17), (200, 1)])
def test_small_images_do_no_harm(shape):
    points = hessian_points(torch.rand(2, 3, *shape), **USUAL)
    assert [part.shape[1] for part in points] == [4, 4]


def test_points_are_ordered_and_above_the_threshold():
    (points,) = hessian_points(torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(1)), **USUAL)
    keys = [tuple(row) for row in points[:, [2, 1, 0]].tolist()]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert (points[:, 3] > USUAL["threshold"]).all()
    (fewer,) = hessian_points(torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(1)), 1e-2, 10.0)
    assert torch.equal(fewer, points[points[:, 3] > 1e-2])


@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.5])
def test_the_blur_is_scipys(sigma):
    image = torch.rand(1, 40, 50, generator=torch.Generator().manual_seed(2))
    expected = gaussian_filter(image[0].double().numpy(), sigma, mode="nearest", radius=round(4 * sigma))
    np.testing.assert_allclose(_blurred(image, sigma)[0].numpy(), expected, atol=1e-6)
