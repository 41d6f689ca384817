"""The network: maps of probabilities at an eighth, heads against what they are made of, backbones of many kinds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file

import zoo
from zoo.checkpoints import save_weights
from zoo.classes import class_list
from zoo.models.fcn_segment.heads import AtrousSum, LightHead
from zoo.models.fcn_segment.module import FCNSegment
from zoo.models.fcn_segment.trunk import Maps
from zoo.types import Batch

WEIGHTS = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data")) / "weights"
CLOSE = {"rtol": 1e-3, "atol": 1e-5}


def made(**parameters):
    torch.manual_seed(0)
    return zoo.create_model("fcn_segment", **{**FCNSegment.tiny, **parameters})


def batch(*size, images=2):
    pixels = torch.rand(images, 3, *size, generator=torch.Generator().manual_seed(1))
    return Batch(index=torch.arange(images), images=pixels)


HEADS = {
    "light": {},
    "light, no finer map": {"skip_stride": None, "image_pooling": True},
    "light, finer map at 8": {"skip_stride": 8, "dilations": [0, 3]},
    "deeplab_v2": {"head": "deeplab_v2", "dilations": [1, 2], "output_stride": 8},
    "as the network is": {"head": "deeplab_v2", "dilations": [1], "output_stride": None},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("size", "cells"), [((64, 96), (8, 12)), ((72, 100), (9, 13)), ((40, 20), (5, 3))])
def test_maps_have_an_eighth_of_the_images_size_and_sum_to_one(head, size, cells):
    maps = made(**HEADS[head]).eval().embed(batch(*size)).probability_map
    assert (maps.shape, maps.dtype) == ((2, 3, *cells), torch.float32)
    assert torch.allclose(maps.sum(1), torch.ones(2, *cells), atol=1e-5)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert not maps.requires_grad


def test_at_its_own_resolution_a_map_is_the_softmax_of_the_logits():
    model = made(**HEADS["deeplab_v2"]).eval()
    images = batch(64, 64).images
    with torch.no_grad():
        logits = model.net(images)
    assert logits.shape == (2, 3, 8, 8)
    torch.testing.assert_close(model.embed(batch(64, 64)).probability_map, logits.softmax(1), **CLOSE)


def test_what_is_seen_at_several_scales_is_averaged():
    once, larger, both = (made(scales=scales).eval() for scales in ([1], [1.5], [1, 1.5]))
    seen = batch(72, 96)
    maps = [model.embed(seen).probability_map for model in (once, larger, both)]
    assert torch.allclose(maps[2], (maps[0] + maps[1]) / 2, **CLOSE)
    assert not torch.allclose(maps[0], maps[1], atol=1e-3)
    with torch.no_grad():
        logits = once.net(F.interpolate(seen.images, (112, 144), mode="bilinear"))  # 108 px aren't whole cells
    assert torch.allclose(maps[1], once.net.at_stride(logits, (72, 96)), **CLOSE)


def test_the_atrous_sum_is_the_sum_of_its_dilated_classifiers():
    torch.manual_seed(0)
    head, maps = AtrousSum(5, 4, [6, 12, 18, 24]), torch.randn(2, 5, 30, 28)
    assert all((layer.bias == 0).all() for layer in head.branches)
    for layer in head.branches:
        torch.nn.init.normal_(layer.bias)
    wanted = torch.zeros(2, 4, 30, 28)
    for rate, layer in zip([6, 12, 18, 24], head.branches, strict=True):
        padded = F.pad(maps, [rate] * 4)
        for row in range(3):
            for column in range(3):
                shifted = padded[:, :, row * rate : row * rate + 30, column * rate : column * rate + 28]
                wanted += torch.einsum("kc,bchw->bkhw", layer.weight[:, :, row, column], shifted)
        wanted += layer.bias[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(head(Maps(maps, None)), wanted, rtol=1e-4, atol=1e-5)


def test_the_light_head_joins_branches_mean_and_finer_map():
    torch.manual_seed(0)
    head = LightHead((6, 3), 4, [0, 2], 5, True, 2).eval()
    deep, fine = torch.randn(2, 6, 7, 9), torch.randn(2, 3, 14, 18)
    with torch.no_grad():
        pooled = F.relu(head.pooling(deep.mean((2, 3), keepdim=True))).expand(-1, -1, 7, 9)
        found = head.projection(torch.cat([head.branches[0](deep), head.branches[1](deep), pooled], 1))
        found = torch.cat([F.interpolate(found, (14, 18), mode="bilinear"), head.skip(fine)], 1)
        torch.testing.assert_close(head(Maps(deep, fine)), head.classifier(head.fusion(found)))
    assert [layer[0].kernel_size for layer in head.branches] == [(1, 1), (3, 3)]


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv2_050", "resnet10t", "test_convnext", "regnety_002"])
def test_every_weight_of_a_cut_backbone_learns(name):
    """Else DDP would wait for gradients for ever."""
    model = made(backbone=name, freeze_norm=False).train()
    model.net(batch(64, 64).images).square().sum().backward()
    assert [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None] == []
    assert not any("classifier" in key or "conv_head" in key for key, _ in model.net.trunk.named_parameters())


def test_the_trunk_gives_timms_own_maps(tmp_path):
    torch.manual_seed(3)
    reference = timm.create_model("test_resnet", output_stride=16).eval()
    save_file({key: value.half() for key, value in reference.state_dict().items()}, tmp_path / "a.safetensors")
    reference.load_state_dict({key: value.half().float() for key, value in reference.state_dict().items()})
    model = made(backbone_weights=str(tmp_path / "a.safetensors")).eval()
    images = batch(64, 96).images
    with torch.no_grad():
        found = model.net.trunk(images)
        wanted = reference.forward_intermediates((images - 0.5) / 0.5, intermediates_only=True)
    torch.testing.assert_close(found.deep, wanted[-1], **CLOSE)
    torch.testing.assert_close(found.fine, wanted[1], **CLOSE)
    assert found.deep.shape[2:] == (4, 6)


def test_frozen_normalisation_neither_updates_nor_learns():
    frozen, free = made(), made(freeze_norm=False)
    for model in (frozen, free):
        model.train()
        before = {name: value.clone() for name, value in model.net.trunk.named_buffers() if "running" in name}
        model.net(batch(64, 64).images).sum().backward()
        after = dict(model.net.trunk.named_buffers())
        kept = [torch.equal(value, after[name]) for name, value in before.items()]
        assert all(kept) if model is frozen else not any(kept)
    norms = [layer for layer in frozen.net.trunk.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms
    assert all(layer.weight.grad is None and not layer.training for layer in norms)
    assert all(layer.training for layer in frozen.net.head.modules() if isinstance(layer, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "torchvision/deeplabv3_mobilenet_v3_large"])
def test_segmentation_networks_of_torchvision_are_wrapped(name, tmp_path, caplog):
    torch.manual_seed(0)
    short = name.removeprefix("torchvision/")
    options = {"weights": None, "weights_backbone": None}
    whole = torchvision.models.get_model(short, num_classes=21, **options).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    model = made(backbone=name, head="own", backbone_weights=str(tmp_path / "whole.pth"), classes="voc21").eval()
    images = batch(64, 64).images
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        wanted = whole(torchvision.transforms.functional.normalize(images, mean, std))["out"]
        found = F.interpolate(model.net(images), (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert model.embed(batch(64, 64)).probability_map.shape == (2, 21, 8, 8)
    caplog.clear()
    other = made(backbone=name, head="own", backbone_weights=str(tmp_path / "whole.pth"))
    (record,) = caplog.records
    assert "are for 21 classes, not for 3" in record.getMessage()
    for key, value in whole.backbone.state_dict().items():
        assert torch.equal(other.net.trunk.backbone.state_dict()[key], value), key
    assert other.embed(batch(64, 64)).probability_map.shape == (2, 3, 8, 8)


def test_a_network_begins_with_the_trunk_of_another_and_its_normalisation(tmp_path):
    lender = made()
    torch.nn.init.normal_(lender.net.trunk.mean)
    torch.nn.init.normal_(lender.net.trunk.network.conv1[0].weight)
    save_weights(lender, tmp_path / "lender.safetensors")
    torch.manual_seed(1)
    own = zoo.create_model(
        "fcn_segment",
        **{
            **FCNSegment.tiny,
            "classes": ["a", "b"],
            "head": "deeplab_v2",
            "backbone_weights": str(tmp_path / "lender.safetensors"),
        },
    )
    for name, value in lender.net.trunk.state_dict().items():
        assert torch.equal(own.net.trunk.state_dict()[name], value), name
    with pytest.raises(
        ValueError, match=r"lender.safetensors' is a model on another backbone than test_efficientnet: "
    ):
        made(backbone="test_efficientnet", backbone_weights=str(tmp_path / "lender.safetensors"))
    missing = Path(os.environ["ZOO_CACHE"]) / "weights" / "a.safetensors"
    with pytest.raises(ValueError, match=r"no file '.*a\.safetensors'; a tools/import_….py makes it; name a"):
        made(backbone_weights=str(missing))


def test_the_models_file_alone_knows_the_classes(tmp_path):
    (tmp_path / "own.csv").write_text("name,colour\nlake,#0000ff\nhill,#00ff00\n")
    model = made(classes=str(tmp_path / "own.csv"))
    assert model.registered["parameters"]["classes"] == class_list(str(tmp_path / "own.csv")).plain()
    save_weights(model, tmp_path / "a.safetensors")
    (tmp_path / "own.csv").unlink()
    again = zoo.load_model(str(tmp_path / "a.safetensors"))
    assert (again.class_names, again.class_colours) == (("lake", "hill"), ((0, 0, 255), (0, 255, 0)))
    assert again.fingerprint() == model.fingerprint()
    packaged = made(classes="camvid11")
    assert packaged.registered["parameters"]["classes"] == "camvid11"
    assert packaged.class_names[:2] == ("Sky", "Building")


def test_vectors_are_the_maps_class_by_class_and_their_means():
    model = made().eval()
    rows = model.descriptors(batch(64, 64))
    maps = model.embed(batch(64, 64)).probability_map
    assert torch.equal(rows["probability map"], maps.reshape(2, -1))
    assert torch.allclose(rows["class shares"], maps.mean((2, 3)))


@pytest.mark.skipif(not (WEIGHTS / "mobilenetv2_100.fp16.safetensors").is_file(), reason=f"needs {WEIGHTS} (ZOO_DATA)")
def test_pretrained_mobilenet_loads_strictly_and_tells_images_apart():
    file = WEIGHTS / "mobilenetv2_100.fp16.safetensors"
    model = made(backbone="mobilenetv2_100", backbone_weights=str(file), classes="camvid11").eval()
    with torch.no_grad():
        deep, fine = model.net.trunk(batch(64, 64).images)
    assert (deep.shape, fine.shape) == ((2, 320, 4, 4), (2, 24, 16, 16))
    assert np.abs((deep[0] - deep[1]).numpy()).mean() > 0.01


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": "test_vit"}, "backbone 'test_vit' doesn't take output_stride=16"),
        ({"backbone": "torchvision/resnet18"}, "backbone must be a model of timm to take output_stride, got 'torch"),
        ({"backbone": "fcn_resnet5", "head": "own"}, r"one of torchvision's seg.*Did you mean 'fcn_resnet50'"),
        ({"backbone_options": {"output_stride": 8}}, "backbone_options must be a mapping, without output_stride"),
        ({"backbone_options": {"depth": 3}}, "backbone 'test_resnet' doesn't take output_stride=16, depth=3"),
        ({"backbone_options": {"drop_rate": 0.1}, "head": "own"}, "backbone_options must be empty where head is own"),
        ({"output_stride": 4}, "output_stride must be one of 8, 16, 32 or null, got 4"),
        ({"skip_stride": 3}, "skip_stride must be one of those of test_resnet, 2, 4, 8, 16, got 3"),
        ({"head": "aspp"}, "head must be one of deeplab_v2, light, own, got 'aspp'"),
        ({"dilations": 6}, "dilations must be a list of integers of at least 0, got 6"),
        ({"dilations": []}, r"dilations must name a branch where image_pooling is false, got \[\]"),
        ({"dilations": [0], "head": "deeplab_v2"}, r"dilations must be at least 1 each, .* deeplab_v2: \[0\]"),
        ({"width": 0}, "width must be an integer of at least 1, got 0"),
        ({"freeze_norm": "yes"}, "freeze_norm must be true or false, got 'yes'"),
        ({"classes": "camvid"}, "classes must be one of camvid11"),
        ({"class_weighting": "sqrt"}, "class_weighting must be one of none, log, got 'sqrt'"),
        ({"scales": 1.0}, "scales must be a list of numbers, one at least, got 1.0"),
        ({"scales": []}, r"scales must be a list of numbers, one at least, got \[\]"),
        ({"scales": [1, 0]}, "scales must be numbers in 0.25 … 4, got 0"),
        ({"finish": 1.5}, "finish must be a number in 0 … 1, got 1.5"),
        ({"prior_correction": 1.5, "class_weighting": "log"}, "prior_correction must be a number in 0 … 1, got 1.5"),
        ({"prior_correction": 0.5}, "prior_correction must be 0 where class_weighting is none, got 0.5"),
        ({"class_shares": [0.5, 0.3, 0.2]}, "class_shares are of no use where class_weighting is none"),
        ({"class_shares": [0.5, 0.5], "class_weighting": "log"}, "class_shares must be 3 numbers, one a class"),
        ({"class_shares": [0.5, 0.5, 0.5], "class_weighting": "log"}, "class_shares must be at least 0 and add up to"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, got 'adam'"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, got 0"),
        ({"momentum": -1}, "momentum must be a finite number of at least 0, got -1"),
        ({"power": float("nan")}, "power must be a finite number above 0, got nan"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(**wrong)
