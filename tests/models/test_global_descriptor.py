"""The descriptor against NumPy on timm's features, reload without the original weights, and its commands."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

import zoo
from zoo import checkpoints, config
from zoo.commands import _setup, train
from zoo.models.global_descriptor.module import GlobalDescriptor
from zoo.models.global_descriptor.net import resize_shorter
from zoo.ops.pooling import rmac
from zoo.registry import UsageError
from zoo.types import Batch

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "resnet.safetensors")
    return tmp_path / "resnet.safetensors"


@pytest.fixture
def model(file):
    return zoo.create_model("global_descriptor", backbone="test_resnet", backbone_weights=str(file), pooling="rmac")


@pytest.fixture
def batch():
    return GlobalDescriptor.tiny_batch()


def test_the_descriptor_is_the_unit_vector_of_the_pooled_map(model, batch):
    network = model.net.backbone.network
    with torch.no_grad():
        pooled = rmac(network.forward_features((batch.images - 0.5) / 0.5), 3).numpy()
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed(batch).vector.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert list(model.descriptors(batch)) == ["R-MAC"] == [model.descriptor_name]


def test_levels_reach_the_pooling(model, batch, file):
    parameters = {"backbone": "test_resnet", "backbone_weights": str(file), "pooling": "rmac", "levels": 1}
    other = zoo.create_model("global_descriptor", **parameters)
    assert not torch.allclose(other.embed(batch).vector, model.embed(batch).vector)


def test_it_is_frozen(model, batch):
    before = model.embed(batch).vector
    assert not before.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.train()
    assert not any(module.training for module in model.net.modules())
    assert torch.equal(model.embed(batch).vector, before)


def test_mixed_precision_is_off(model, batch):
    expected = model.embed(batch).vector
    with torch.autocast("cpu", torch.bfloat16):
        got = model.embed(batch).vector
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
    assert model.embed(replace(batch, images=batch.images.double())).vector.dtype == torch.float32


def test_an_image_is_described_alone(model, batch):
    whole = model.embed(batch).vector
    for position in range(len(batch)):
        alone = model.embed(replace(batch, images=batch.images[position : position + 1])).vector
        torch.testing.assert_close(alone[0], whole[position], rtol=1e-4, atol=1e-5)


def test_pieces_of_a_batch_make_the_whole(model, batch, monkeypatch):
    expected, sizes = model.embed(batch).vector, []
    model.net.backbone.register_forward_hook(lambda module, inputs, maps: sizes.append(len(maps)))
    monkeypatch.setattr("zoo.backbones._CPU_PIXELS", 2 * 96 * 128)
    torch.testing.assert_close(model.embed(batch).vector, expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("zoo.backbones._CPU_PIXELS", 1)
    model.embed(batch)
    assert sizes == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((240, 320), 120, (120, 160)),
        ((320, 240), 224, (299, 224)),
        ((75, 75), 150, (150, 150)),
        ((2, 400), 8, (8, 128)),
    ],
)
def test_images_are_resized_by_their_shorter_side(shape, size, expected):
    images = torch.rand(2, 3, *shape)
    resized = resize_shorter(images, size)
    assert resized.shape[2:] == expected
    reference = torchvision.transforms.functional.resize(images, expected, antialias=True)
    torch.testing.assert_close(resized, reference)
    assert resize_shorter(images, None) is images


def test_the_size_reaches_the_network(model, batch, file):
    parameters = {"backbone": "test_resnet", "backbone_weights": str(file), "pooling": "rmac", "image_size": 48}
    half = zoo.create_model("global_descriptor", **parameters)
    small = replace(batch, images=resize_shorter(batch.images, 48))
    torch.testing.assert_close(half.embed(batch).vector, model.embed(small).vector)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_its_own_file_alone_rebuilds_it(model, batch, file, tmp_path, suffix, caplog):
    path = tmp_path / f"mine.{suffix}"
    if suffix == "ckpt":
        checkpoint = {"state_dict": model.state_dict()}
        model.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, path)
    else:
        checkpoints.save_weights(model, path)
    expected = model.embed(batch).vector
    file.unlink()
    again = zoo.load_model(str(path))
    assert torch.equal(again.embed(batch).vector, expected)
    assert again.registered == model.registered
    assert checkpoints.weights_hash(again) == checkpoints.weights_hash(model)
    assert not caplog.records
    changed = zoo.load_model(str(path), levels=1, backbone_weights="hub")  # its weights are in the file
    assert changed.registered["parameters"] == {**model.registered["parameters"], "levels": 1}


def test_wrong_values_are_named():
    for key, value, said in (
        ("pooling", "gemm", "pooling must be one of mac, spoc, gem, rmac, .*, neural_codes, got 'gemm'"),
        ("levels", 0, "levels must be an integer of at least 1, got 0"),
        ("image_size", 3.5, "image_size must be an integer of at least 1, got 3.5"),
        ("clusters", 1, "clusters must be an integer of at least 2, got 1"),
        ("p", 0, "p must be a finite number above 0, got 0"),
        ("p", float("inf"), "p must be a finite number above 0, got inf"),
        ("scales", [1, 0], r"scales must be a list of finite numbers above 0, got \[1, 0\]"),
        ("scales", [float("nan")], r"scales must be a list of finite numbers above 0, got \[nan\]"),
        ("scales", 0.5, "scales must be a list of finite numbers above 0, got 0.5"),
        ("whitening", "pcaw", "whitening must be one of pca, pca_whiten, learned or null, got 'pcaw'"),
        ("dimension", 8, "dimension=8 needs a whitening: pca, pca_whiten, learned"),
        ("shrinkage", 2.0, r"shrinkage must lie in 0 … 1, got 2.0"),
    ):
        with pytest.raises(ValueError, match=said):
            zoo.create_model("global_descriptor", **{**GlobalDescriptor.tiny, key: value})


@pytest.mark.skipif(not (REAL / "weights").is_dir(), reason=f"no {REAL / 'weights'} (real data)")
def test_published_weights_find_a_shifted_view_of_a_photo(monkeypatch):
    photos = sorted((REAL / "caltech101_subset" / "images").rglob("*.jpg"))[::40][:12]
    if not photos:
        pytest.skip(f"no photos in {REAL}/caltech101_subset (real data)")
    monkeypatch.setenv("ZOO_DATA", str(REAL))
    model = zoo.create_model("global_descriptor")
    images = [torchvision.io.decode_image(str(path), "RGB")[None] / 255 for path in photos]
    images = torch.cat([torch.nn.functional.interpolate(image, (144, 144), mode="bilinear") for image in images])
    left, right = (
        model.embed(Batch(index=torch.arange(len(photos)), images=view)).vector
        for view in (images[..., :128, :128], images[..., 16:, 16:].flip(3))
    )
    assert left.shape == (len(photos), 1280)
    assert torch.equal((left @ right.T).argmax(1), torch.arange(len(photos)))


def test_training_it_is_refused():
    tiny = ["model.backbone=test_resnet", "model.backbone_weights=random"]
    said = (
        "model 'global_descriptor' has nothing to train: statistics are fitted with model.whitening=pca | "
        "pca_whiten | learned, or model.pooling=netvlad; otherwise evaluate it as it is: zoo eval "
        "model=global_descriptor …"
    )
    cfg = config.compose("train", ["model=global_descriptor", *tiny])
    with pytest.raises(UsageError, match=re.escape(said)):
        train._refuse_untrained(cfg, _setup.new_model(cfg))


def test_missing_weights_are_told_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "nowhere"))
    said = r"backbone_weights: there is no file .*mobilenetv2_100\.fp16\.safetensors'; name a .safetensors or .pth file"
    with pytest.raises(UsageError, match=said):
        _setup.trained_model(config.compose("eval", ["model=global_descriptor"]))


def test_unreachable_weights_end_in_one_line(command, tmp_path):
    words = ["zoo", "eval", "model=global_descriptor", "model.backbone=test_resnet", "model.backbone_weights=hub"]
    done = command(*words, code=2, HF_HUB_OFFLINE=1, HF_HOME=tmp_path / "hub")
    assert "those of test_resnet can't be downloaded" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_evaluation_does_not_warn_of_missing_training(file, caplog):
    words = ["model.backbone=test_resnet", f"model.backbone_weights={file}"]
    model, source = _setup.trained_model(config.compose("eval", ["model=global_descriptor", *words]))
    assert (model.descriptor_name, source, model.training) == ("GeM", None, False)
    assert not caplog.records


def test_an_unknown_model_key_is_refused():
    with pytest.raises(UsageError, match="no parameter 'weights'"):
        zoo.create_model("global_descriptor", weights="random")
