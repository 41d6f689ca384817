"""The poolings, scales and fitted statistics of the model against NumPy and scikit-learn on the network's features."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from sklearn.decomposition import PCA

import zoo
from zoo import checkpoints, ops
from zoo.models.global_descriptor.module import GlobalDescriptor
from zoo.ops.netvlad import NetVLAD
from zoo.registry import UsageError
from zoo.types import Batch

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))


def tiny(**parameters):
    torch.manual_seed(0)
    return zoo.create_model("global_descriptor", **{**GlobalDescriptor.tiny, **parameters})


def some(count, seed=0, size=(64, 96), sizes=1):
    """Returns seeded batches of four images, of several sizes, in an order that isn't that of their positions."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randperm(count, generator=generator).split(4)
    return [
        Batch(index=part, images=torch.rand(len(part), 3, size[0] + 16 * (place % sizes), size[1], generator=generator))
        for place, part in enumerate(parts)
    ]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("parameters", "label", "pool"),
    [
        ({"pooling": "mac"}, "MAC", ops.mac),
        ({"pooling": "spoc"}, "SPoC", ops.spoc),
        ({"pooling": "spoc", "centre_prior": True}, "SPoC + centre prior", lambda x: ops.spoc(x, centre_prior=True)),
        ({}, "GeM", ops.gem),
        ({"p": 5.0}, "GeM", lambda x: ops.gem(x, 5.0)),
        ({"pooling": "crow", "a": 1.0, "b": 3.0}, "CroW", lambda x: ops.crow(x, 1.0, 3.0)),
        ({"pooling": "ucrow", "centre_prior": True}, "uCroW", ops.spoc),
    ],
)
def test_each_pooling_gets_its_parameters_and_is_called_by_its_name(parameters, label, pool):
    model, (batch,) = tiny(**parameters), some(4)
    expected = F.normalize(pool(model.net.backbone(batch.images)), dim=1)
    torch.testing.assert_close(model.embed(batch).vector, expected, rtol=1e-4, atol=1e-6)
    assert list(model.descriptors(batch)) == [label] == [model.descriptor_name]
    assert not model.needs_fitting


def test_unit_vectors_of_scales_are_added_up():
    model, (batch,) = tiny(scales=[1, 0.5, 2.0]), some(4)
    alone = tiny()
    expected = 0
    for size in ((64, 96), (32, 48), (128, 192)):
        images = torchvision.transforms.functional.resize(batch.images, size, antialias=True)
        expected = expected + alone.embed(replace(batch, images=images)).vector
    torch.testing.assert_close(model.embed(batch).vector, F.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 300), (300, 1)])
@pytest.mark.parametrize("parameters", [{}, {"scales": [1.0, 0.1]}, {"image_size": 40}])
def test_crops_of_a_few_pixels_have_a_descriptor(size, parameters):
    model = tiny(backbone="mobilenetv2_100", **parameters)
    vector = model.embed(Batch(torch.arange(2), torch.rand(2, 3, *size)), "query").vector
    assert vector.isfinite().all()
    assert vector.shape == (2, 1280)


@pytest.mark.parametrize("whiten", [False, True])
def test_whitening_is_scikit_learns_between_two_normalisations(whiten):
    model = tiny(whitening="pca_whiten" if whiten else "pca", dimension=5)
    batches, (asked,) = some(30, sizes=2), some(4, seed=9)
    model.fit_statistics(batches, None)
    rows = np.concatenate([model.net.pooled(batch.images).double().numpy() for batch in batches])
    pca = PCA(5, whiten=whiten, svd_solver="full").fit(rows)
    expected = unit(pca.transform(model.net.pooled(asked.images).double().numpy()))
    got = model.embed(asked).vector.numpy()
    np.testing.assert_allclose(got * np.sign((got * expected).sum(0)), expected, atol=1e-3)
    assert model.descriptor_name == ("GeM, PCA whitening" if whiten else "GeM, PCA")


def test_a_label_may_be_the_number_zero():
    model = tiny(whitening="learned", dimension=2)
    model.fit_statistics(some(8), [0, 0, *range(1, 7)])
    assert model.embed(some(4)[0]).vector.isfinite().all()


def test_labels_are_those_of_positions_and_an_empty_one_is_shared_by_nobody():
    labels = [f"class {place % 3}" if place < 24 else "" for place in range(30)]
    models = [tiny(whitening="learned", dimension=5, shrinkage=0.3) for _ in range(3)]
    models[0].fit_statistics(some(30), labels)
    batches = some(30)
    models[1].fit_statistics(batches[::-1], labels)
    rows = torch.empty(30, models[2].net.whitening.mean.numel())
    for batch in batches:
        rows[batch.index] = models[2].net.pooled(batch.images)
    models[2].net.whitening.fit_learned(rows, [label or place for place, label in enumerate(labels)], 0.3)
    first, *others = (model.embed(some(4, seed=9)[0]).vector for model in models)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-3, atol=1e-4)


def test_netvlad_is_fitted_on_the_maps_of_all_scales():
    model, batches = tiny(pooling="netvlad", clusters=3, scales=[1.0, 0.5]), some(8)
    model.fit_statistics(batches, None)
    expected = NetVLAD(model.net.backbone.channels, 3).fit(
        model.net.backbone(images)
        for batch in batches
        for images in (batch.images, F.interpolate(batch.images, scale_factor=0.5, mode="bilinear", antialias=True))
    )
    torch.testing.assert_close(model.net.pool.centres, expected.centres)
    assert model.embed(batches[0]).vector.shape == (4, 3 * model.net.backbone.channels)


def test_empty_batches_are_passed_over():
    model, batches = tiny(whitening="pca", dimension=3), some(8)
    nothing = Batch(torch.empty(0, dtype=torch.int64), torch.empty(0, 3, 0, 0))
    model.fit_statistics([nothing, *batches, nothing], None)
    other = tiny(whitening="pca", dimension=3)
    other.fit_statistics(batches, None)
    assert other.fingerprint() == model.fingerprint()


def test_the_fingerprint_changes_when_statistics_are_fitted_and_when_a_file_is_loaded():
    model, batches = tiny(whitening="pca", dimension=3), some(8)
    before = model.fingerprint()
    model.fit_statistics(batches, None)
    after = model.represent(batches[0]).fingerprint
    assert len({before, after}) == 2
    model.fit_statistics(some(8, seed=1), None)
    assert model.fingerprint() not in (before, after)
    with torch.inference_mode():
        other = tiny(whitening="pca", dimension=3)
        assert other.fingerprint() == before
        other.load_state_dict(model.state_dict())
        assert other.fingerprint() == model.fingerprint()


@pytest.mark.parametrize(
    "parameters",
    [
        {"pooling": "netvlad", "clusters": 2, "whitening": "pca_whiten", "dimension": 4},
        {"pooling": "neural_codes", "layer": "fc", "whitening": "learned", "dimension": 4},
    ],
)
def test_a_file_alone_rebuilds_a_fitted_model_and_says_what_it_was_fitted_on(parameters, tmp_path):
    model, batches = tiny(**parameters), some(8)
    model.fit_statistics(batches, [position % 2 for position in range(8)])
    model.registered["fitted_on"] = {"data": "folder", "images": 8}
    checkpoints.save_weights(model, tmp_path / "fitted.safetensors")
    again = zoo.load_model(str(tmp_path / "fitted.safetensors"))
    assert torch.equal(again.embed(batches[0]).vector, model.embed(batches[0]).vector)
    assert again.registered == model.registered
    assert again.fingerprint() == model.fingerprint()
    with pytest.raises(UsageError, match="don't fit the model 'global_descriptor'"):
        zoo.load_model(str(tmp_path / "fitted.safetensors"), dimension=3)


def test_what_can_not_be_fitted_is_said_before_and_after():
    with pytest.raises(ValueError, match=r"dimension must be below the number of images .*, 5, got 5"):
        tiny(whitening="pca", dimension=5).check_fitting(5, None)
    with pytest.raises(ValueError, match=r"dimension must be below the number of images .*, 4, got 5"):
        tiny(whitening="pca", dimension=5).fit_statistics(some(4), None)
    with pytest.raises(ValueError, match="whitening=learned needs labels: a folder for each class, or a table"):
        tiny(whitening="learned", dimension=5).check_fitting(50, None)
    with pytest.raises(RuntimeError, match="must be fitted on a set of images"):
        tiny(whitening="pca").embed(some(4)[0])
    with pytest.raises(ValueError, match=r"dimension must lie in 1 … \d+, the descriptor's own, got 9999"):
        tiny(whitening="pca", dimension=9999)
    with pytest.raises(ValueError, match=r"images that whitening is fitted on, 0, got 5"):
        tiny(whitening="pca", dimension=5).fit_statistics([], None)
    with pytest.raises(ValueError, match=r"dimension must be at most [\d,]+ of descriptors of [\d,]+, got null"):
        tiny(pooling="netvlad", clusters=512, whitening="pca")
    with pytest.raises(ValueError, match=r"whitening=learned needs descriptors of at most 16,384 numbers, got [\d,]+"):
        tiny(pooling="netvlad", clusters=512, whitening="learned", dimension=8)


def test_neural_codes_say_what_they_need():
    for parameters, said in (
        ({"layer": None}, "pooling=neural_codes needs a layer, such as classifier.3 of torchvision/vgg16"),
        ({"layer": "fc", "image_size": 64}, r"image_size must be null and scales \[1\], got 64 and \[1.0\]"),
        ({"layer": "fc", "scales": [1, 2]}, r"image_size must be null and scales \[1\], got None and \[1, 2\]"),
        ({"layer": "layer1"}, "layer must give a vector an image"),
    ):
        with pytest.raises(ValueError, match=said):
            tiny(pooling="neural_codes", **parameters)


@torch.no_grad()
@pytest.mark.skipif(not (REAL / "weights").is_dir(), reason=f"no {REAL / 'weights'} (real data)")
def test_neural_codes_of_published_weights_are_the_networks_scores():
    file = REAL / "weights" / "squeezenet1_1.safetensors"
    parameters = {"backbone": "torchvision/squeezenet1_1", "backbone_weights": str(file), "layer": "classifier"}
    model = tiny(pooling="neural_codes", **parameters)
    network = torchvision.models.squeezenet1_1()
    network.load_state_dict(load_file(file))
    images = torch.rand(2, 3, 300, 200)
    resized = torchvision.transforms.functional.resize(images, (224, 224), antialias=True)
    normalised = torchvision.transforms.functional.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = F.normalize(network.eval()(normalised), dim=1)
    torch.testing.assert_close(model.embed(Batch(torch.arange(2), images)).vector, expected, rtol=1e-3, atol=1e-4)
    assert model.descriptor_name == "neural codes"
