"""The model against a literal transcription of the paper's equations, its variants, and its behaviour on odd images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import logm

import zoo
from zoo import checkpoints
from zoo.models.regional_aggregation.module import RegionalAggregation
from zoo.models.regional_aggregation.net import drop_last_pool
from zoo.types import Batch

TINY = dict(RegionalAggregation.tiny)


def build(**parameters):
    torch.manual_seed(0)
    return zoo.create_model("regional_aggregation", **{**TINY, **parameters})


def fitted(**parameters):
    model = build(**parameters)
    model.fit_statistics([photos(0), photos(1)], None)
    return model


def photos(seed, count=4, height=96, width=128):
    """Makes images with bright and dark discs, so that there are blobs to find."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    images = rng.uniform(0, 0.1, (count, 3, height, width))
    for image in images:
        for _ in range(12):
            disc = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < rng.uniform(3, 12) ** 2
            image[:, disc] = rng.uniform(0, 1, (3, 1))
    return Batch(index=torch.arange(count), images=torch.tensor(images, dtype=torch.float32))


@pytest.fixture(scope="module")
def model():
    return fitted()


def unit(vector):
    return vector / np.linalg.norm(vector)


def literal(model, images, found):
    """Transcribes Eqs. 1, 2, 4, 5, 6 and 9 for the regions of one image, whose cells are tested by their corners."""
    maps = model.net.backbone(images).detach()[0].double().numpy()
    channels, height, width = maps.shape
    alpha = maps.sum(0) / np.sqrt((maps.sum(0) ** 2).sum())
    share = (maps > 0).mean((1, 2))
    beta = np.log((channels * 1e-6 + share.sum()) / (1e-6 + share))
    expected = []
    for hull in found.region_hulls[0].numpy():
        inside = [(r, c) for r in range(height) for c in range(width) if within(hull, r, c, maps.shape, images.shape)]
        local = np.array([beta * maps[:, r, c] for r, c in inside])
        weights = np.array([alpha[r, c] for r, c in inside])
        expected.append(whitened(model, unit(pooled(model, local, weights))))
    return np.stack(expected)


def within(hull, row, column, map_shape, image_shape):
    x, y = (column + 0.5) * image_shape[3] / map_shape[2], (row + 0.5) * image_shape[2] / map_shape[1]
    following = np.roll(hull, -1, axis=0)
    turns = (following - hull)[:, 0] * (y - hull[:, 1]) - (following - hull)[:, 1] * (x - hull[:, 0])
    return (turns >= -1e-3).all()


def pooled(model, local, weights):
    if model.net.reduction is None:
        return (weights[:, None] * local).sum(0)
    local = local @ model.net.reduction.projection.double().numpy().T
    average = sum(w * np.outer(f, f) for w, f in zip(weights, local, strict=True)) / weights.sum()
    ridge = model.net.eps * np.trace(average) / len(average)
    return logm(average + ridge * np.eye(len(average)))[np.triu_indices(len(average))]


def whitened(model, vector):
    fitted = model.net.whitening
    return unit(fitted.projection.double().numpy() @ (vector - fitted.mean.double().numpy()))


@pytest.mark.parametrize("order", [1, 2])
def test_descriptors_are_those_of_the_equations(order):
    model = fitted(order=order)
    batch = photos(7, count=2)
    found = model.embed(batch)
    for image in range(2):
        one = batch.images[image : image + 1]
        expected = literal(model, one, found.rows([image]))
        np.testing.assert_allclose(found.regions[image].numpy(), expected, atol=2e-4)
        assert torch.equal(found.vector[image], found.regions[image, 0])


def test_regions_are_those_of_the_image(model):
    found = model.embed(photos(3))
    assert found.regions.shape == (4, 8, 3)
    assert found.region_hulls.shape == (4, 8, 32, 2)
    assert found.region_mask[:, 0].all()
    assert found.region_mask[:, 1:].any()
    assert torch.equal(found.region_boxes[:, 0], torch.tensor([0.0, 0, 128, 96]).expand(4, 4))
    torch.testing.assert_close(found.region_boxes[..., :2], found.region_hulls.amin(2))
    torch.testing.assert_close(found.region_boxes[..., 2:], found.region_hulls.amax(2))
    missing = ~found.region_mask
    for name in ("regions", "region_boxes", "region_hulls"):
        rows = getattr(found, name)
        assert torch.equal(rows[missing], rows[:, :1].expand_as(rows)[missing])
    torch.testing.assert_close(found.regions.norm(dim=2), torch.ones(4, 8))


def test_the_variants_of_the_papers_figure(model):
    batch = photos(3)
    names = {}
    for order in (1, 2):
        for regions in ("whole", "all"):
            variant = fitted(order=order, regions=regions)
            names[variant.descriptor_name] = {name: rows.shape for name, rows in variant.descriptors(batch).items()}
    assert names == {
        "O1_W": {"O1_W": (4, 3)},
        "O1_R": {"O1_R": (4, 8, 3), "O1_W": (4, 3)},
        "O2_W": {"O2_W": (4, 3)},
        "O2_R": {"O2_R": (4, 8, 3), "O2_W": (4, 3)},
    }


def test_a_query_may_be_its_whole_image_alone(model):
    batch = photos(3)
    whole = fitted(query_regions="whole")
    assert torch.equal(whole.embed(batch).regions, model.embed(batch).regions)
    query = whole.embed(batch, "query")
    assert query.regions.shape == (4, 1, 3)
    torch.testing.assert_close(query.vector, model.embed(batch, "query").vector)


def test_clusters_and_points_reach_the_regions():
    batch = photos(3)
    assert fitted(clusters=2).embed(batch).regions.shape == (4, 4, 3)
    model = fitted()
    active = fitted(points="activations").embed(batch)
    assert not torch.equal(active.region_boxes, model.embed(batch).region_boxes)
    many = fitted(min_points=10**6).embed(batch)  # nobody has so many blobs
    assert many.region_boxes[:, 1:].diff(dim=0).abs().sum() > 0 or many.region_mask.sum() == 4


def test_an_image_is_described_alone_and_twice_alike(model, monkeypatch):
    batch = photos(5)
    together = model.embed(batch)
    again = model.embed(batch)
    assert all(torch.equal(rows, getattr(again, name)) for name, rows in together.filled().items())
    monkeypatch.setattr("zoo.backbones._CPU_PIXELS", 2 * 96 * 128)
    for other in (model.embed(batch), model.embed(replace(batch, images=batch.images.double()))):
        torch.testing.assert_close(other.regions, together.regions, atol=1e-4, rtol=1e-4)
        assert torch.equal(other.region_boxes, together.region_boxes)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.embed(batch).regions, together.regions, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 3), (33, 31)])
@pytest.mark.parametrize("content", ["blank", "noise"])
def test_tiny_and_blank_images_have_finite_descriptors(model, shape, content):
    images = torch.zeros(2, 3, *shape) if content == "blank" else torch.rand(2, 3, *shape)
    found = model.embed(Batch(index=torch.arange(2), images=images))
    assert all(rows.isfinite().all() for rows in found.filled().values())
    assert found.region_mask[:, 0].all()
    assert (found.region_boxes >= 0).all()
    assert (found.region_boxes[..., 2] <= shape[1]).all()
    assert (found.region_boxes[..., 3] <= shape[0]).all()


def test_a_map_without_activation_has_its_whole_region_alone(model, monkeypatch):
    monkeypatch.setattr(model.net.backbone, "forward", lambda images: torch.zeros(len(images), 96, 3, 4))
    found = model.embed(Batch(index=torch.arange(1), images=torch.zeros(1, 3, 96, 128)))
    assert found.region_mask.tolist() == [[True] + [False] * 7]
    assert found.regions.isfinite().all()


def test_a_pooling_behind_the_last_convolution_is_left_out():
    model = build(backbone="torchvision/squeezenet1_1")  # ends in no pooling
    layers = model.net.backbone.network.features
    assert sum(isinstance(layer, torch.nn.MaxPool2d) for layer in layers) == 3
    layers.append(torch.nn.MaxPool2d(2))
    before = model.net.backbone(torch.zeros(1, 3, 128, 128)).shape[2]
    drop_last_pool(model.net.backbone)
    assert model.net.backbone(torch.zeros(1, 3, 128, 128)).shape[2] == 2 * before + 1
    assert sum(isinstance(layer, torch.nn.MaxPool2d) for layer in layers) == 3


def test_its_own_file_alone_rebuilds_it(model, tmp_path):
    checkpoints.save_weights(model, tmp_path / "model.safetensors")
    again = zoo.load_model(str(tmp_path / "model.safetensors"))
    assert torch.equal(again.embed(photos(3)).regions, model.embed(photos(3)).regions)


def test_it_refuses_to_embed_before_it_is_fitted():
    model = build()
    assert model.needs_fitting
    with pytest.raises(RuntimeError, match="fitted"):
        model.embed(photos(0))


def test_too_few_regions_are_an_error_with_both_numbers():
    model = build(dimension=8, order=1, regions="whole")
    said = r"dimension=8 must be fitted on more regions than that \(fit_regions=4096\), "
    with pytest.raises(ValueError, match=said + "the set has 4: take more images, or a smaller dimension"):
        model.fit_statistics([photos(0)], None)
    with pytest.raises(ValueError, match=said + "8 images have at most 8"):
        model.check_fitting(8, None)
    model.check_fitting(9, None)
    build(dimension=8).check_fitting(2, None)
    with pytest.raises(ValueError, match=r"reduced=4 .* \(fit_regions=4\)"):
        build(fit_regions=4).check_fitting(100, None)


def test_wrong_values_are_named():
    for changed, said in (
        ({"order": 3}, "order must be one of 1, 2, got 3"),
        ({"regions": "some"}, "regions must be one of all, whole, got 'some'"),
        ({"clusters": 0}, "clusters must be an integer of at least 1, got 0"),
        ({"eps": 0.0}, "eps must be a finite number above 0, got 0.0"),
        ({"max_share": 0.0}, "max_share must lie in 0 … 1, above 0, got 0.0"),
        ({"hessian_edge_ratio": 0.5}, "hessian_edge_ratio must be at least 1, got 0.5"),
        ({"reduced": 1000}, "reduced must be at most the network's 96 channels, got 1000"),
        ({"dimension": 11}, "dimension must be at most the 10 values of a 4×4 triangle, got 11"),
        ({"dimension": 1000, "order": 1}, "dimension must be at most the network's 96 channels, got 1000"),
    ):
        with pytest.raises(ValueError, match=said):
            zoo.create_model("regional_aggregation", **{**TINY, **changed})
