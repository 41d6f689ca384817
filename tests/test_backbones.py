"""Backbones against timm and torchvision themselves, and weights that must be refused."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from zoo.backbones import Coder, create_backbone, create_coder
from zoo.pretrained import Parts

WEIGHTS = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[2] / "shared" / "data")) / "weights"
ROUNDING = {"rtol": 1e-3, "atol": 1e-4}  # sums in another order where channels lie last in memory
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def normalised(images, mean, std):
    return torchvision.transforms.functional.normalize(images, mean, std)


@pytest.fixture
def images():
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(tmp_path):
    """Weights of timm's test_resnet with its classifier of 1000 classes, in fp16."""
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet")
    save_file({key: value.half() for key, value in whole.state_dict().items()}, tmp_path / "test_resnet.safetensors")
    return tmp_path / "test_resnet.safetensors"


@torch.no_grad()
def test_a_file_in_half_precision_gives_timms_features_in_full(file, images):
    backbone = create_backbone("test_resnet", str(file))
    reference = timm.create_model("test_resnet").eval()
    reference.load_state_dict({key: value.float() for key, value in load_file(file).items()})
    expected = reference.forward_features(normalised(images, [0.5] * 3, [0.5] * 3))
    torch.testing.assert_close(backbone(images), expected, **ROUNDING)
    assert expected.shape == (2, backbone.channels, 3, 4)
    assert {value.dtype for value in backbone.parameters()} == {torch.float32}
    assert not backbone.training


@torch.no_grad()
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "mobilenet_v3_small", "regnet_x_400mf"])
def test_torchvision_networks_end_before_their_pooling(name, images, tmp_path):
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = create_backbone(f"torchvision/{name}", str(tmp_path / "whole.pth"))
    seen = []
    after = whole.classifier if name == "squeezenet1_1" else whole.avgpool
    after.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    whole(normalised(images, *IMAGENET))
    torch.testing.assert_close(backbone(images), seen[0], **ROUNDING)
    assert seen[0].shape[:2] == (2, backbone.channels)


@torch.no_grad()
def test_maps_with_channels_last_are_turned(images):
    backbone = create_backbone("test_mambaout", None)
    last = backbone.network.forward_features(normalised(images, *IMAGENET))
    assert last.shape == (2, 3, 4, 64)
    torch.testing.assert_close(backbone(images), last.permute(0, 3, 1, 2), **ROUNDING)
    assert backbone.channels == 64


@torch.no_grad()
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no {WEIGHTS} (real data)")
@pytest.mark.parametrize(
    ("name", "file", "channels", "cells"),
    [
        ("mobilenetv2_100", "mobilenetv2_100.fp16.safetensors", 1280, {75: 3, 128: 4, 224: 7}),
        ("torchvision/squeezenet1_1", "squeezenet1_1.safetensors", 512, {75: 4, 128: 7, 224: 13}),
    ],
)
def test_published_weights_load_strictly(name, file, channels, cells):
    backbone = create_backbone(name, str(WEIGHTS / file))
    assert backbone.channels == channels
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor(IMAGENET[0]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor(IMAGENET[1]))
    for side, expected in cells.items():
        maps = backbone(torch.rand(1, 3, side, side))
        assert maps.shape == (1, channels, expected, expected)
        assert maps.min() == 0  # behind a ReLU, and something of it inactive
    stored = load_file(WEIGHTS / file)
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, stored[key].to(value.dtype)), key


def test_random_weights_are_announced_and_none_are_silent(caplog):
    with caplog.at_level(logging.WARNING):
        create_backbone("test_resnet", None)
        assert not caplog.records
        create_backbone("test_resnet", "random")
    assert "backbone_weights=random: test_resnet has learnt nothing" in caplog.text


def test_a_backbone_can_be_sent_to_another_process(images):
    backbone = create_backbone("test_resnet", None)
    again = pickle.loads(pickle.dumps(backbone))
    torch.testing.assert_close(again(images), backbone(images))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("conv1.0.weight"), r"don't fit test_resnet: tensors 1 missing \(conv1\.0\.weight\)$"),
        (lambda state: state.update(extra=torch.zeros(1)), r"tensors 1 not of the network \(extra\)$"),
        (lambda state: state.update({"conv1.0.weight": torch.zeros(1)}), r"1 of another shape \(conv1\.0\.weight\)$"),
        (lambda state: state.clear(), r"missing \(\S+, \S+, \S+, …\)$"),
    ],
)
def test_every_tensor_must_fit(file, change, said):
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(ValueError, match=said):
        create_backbone("test_resnet", str(file))


class Touch:
    """Would create a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (self.path,)


def test_files_that_are_no_weights_are_refused_and_not_executed(file, tmp_path):
    torch.save({"weight": Touch(str(tmp_path / "executed"))}, tmp_path / "evil.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    file.write_bytes(file.read_bytes()[:50])
    for path, said in (
        (tmp_path / "evil.pth", "can't be read without executing it"),
        (file, "can't be read without executing it, or is damaged"),
        (tmp_path / "other.pth", "must hold named tensors and nothing else"),
        (tmp_path / "absent.pth", r"there is no file '.*absent\.pth'; .*hub \(download them\) or random"),
        ("hubb", r"backbone_weights: name a .safetensors or .pth file .*, or say hub .*got 'hubb'"),
    ):
        with pytest.raises(ValueError, match=said):
            create_backbone("test_resnet", str(path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test_resnit", "'test_resnit' isn't a model of timm. Did you mean 'test_resnet'"),
        ("torchvision/squeezenet11", "Did you mean 'torchvision/squeezenet1_1'"),
        ("torchvision/vit_b_32", "torchvision/vit_b_32 has none"),
        ("test_vit", "takes 160×160 px only"),
    ],
)
def test_names_without_a_feature_map_are_refused(name, said):
    with pytest.raises(ValueError, match=said):
        create_backbone(name, None)


def test_torchvision_downloads_only_tensors(monkeypatch, images):
    published = torchvision.models.get_model("squeezenet1_1").eval()
    asked = {}

    def download(url, **options):
        asked.update(options, url=url)
        return published.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    backbone = create_backbone("torchvision/squeezenet1_1", "hub")
    assert asked["weights_only"]
    assert asked["check_hash"]
    torch.testing.assert_close(backbone(images), published.features(normalised(images, *IMAGENET)), **ROUNDING)


def test_without_a_network_the_alternatives_are_named(monkeypatch):
    def download(url, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(ValueError, match=r"can't be downloaded \(.*not known.*\); name a .safetensors .* or random"):
        create_backbone("torchvision/squeezenet1_1", "hub")


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision/mobilenet_v3_small", "classifier.0"),  # behind it an activation that writes into its output
        ("torchvision/squeezenet1_1", "classifier"),
        ("test_resnet", "fc"),
    ],
)
def test_a_coder_gives_the_output_of_a_layer_at_the_networks_own_size(name, layer, tmp_path):
    torch.manual_seed(0)
    of_timm = name == "test_resnet"
    whole = timm.create_model(name) if of_timm else torchvision.models.get_model(name.removeprefix("torchvision/"))
    torch.save(whole.eval().state_dict(), tmp_path / "whole.pth")
    coder = create_coder(name, str(tmp_path / "whole.pth"), layer)
    images = torch.rand(2, 3, coder.size, coder.size)
    images = normalised(images, coder.mean.flatten(), coder.std.flatten())
    if layer == "classifier.0":
        codes = whole.classifier[0](whole.avgpool(whole.features(images)).flatten(1))
    else:
        codes = whole(images)
    torch.testing.assert_close(coder(images * coder.std + coder.mean), codes, **ROUNDING)
    assert codes.shape[1] == coder.channels
    assert coder.size == (160 if of_timm else 224)
    assert coder(torch.rand(3, 3, 5, 300)).shape == (3, coder.channels)


def test_a_coder_needs_a_layer_that_gives_a_vector_and_all_weights(tmp_path):
    with pytest.raises(ValueError, match=r"a module of test_resnet, the last being 'fc', got 'fcc'. Did you mean 'fc'"):
        create_coder("test_resnet", None, "fcc")
    with pytest.raises(ValueError, match=r"layer must give a vector an image, 'layer1' of test_resnet gives \(\d+, "):
        create_coder("test_resnet", None, "layer1")
    state = {key: value for key, value in timm.create_model("test_resnet").state_dict().items() if "fc" not in key}
    save_file(state, tmp_path / "features.safetensors")
    with pytest.raises(ValueError, match=r"tensors 2 missing \(fc.weight, fc.bias\)"):
        create_coder("test_resnet", str(tmp_path / "features.safetensors"), "fc")


def test_a_coder_needs_a_layer_that_is_run_and_takes_the_first_of_several_tensors():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.training_only = nn.MultiheadAttention(4, 1), nn.Linear(4, 2)

        def forward(self, images):
            seen = images.mean((2, 3))[:, [0, 1, 2, 0]]
            return self.attention(seen, seen, seen)[0]

    parts = Parts(Net(), (0.0,) * 3, (1.0,) * 3, 8, (), dict)
    assert Coder("net", parts, "attention")(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"one that net goes through, it doesn't go through 'training_only'"):
        Coder("net", parts, "training_only")


@torch.no_grad()
@pytest.mark.parametrize(("name", "smallest"), [("mobilenetv2_100", 32), ("inception_v3", 128)])
def test_images_from_the_smallest_side_on_have_a_map(name, smallest):
    backbone = create_backbone(name, None)
    assert backbone.smallest == smallest
    assert min(backbone(torch.rand(1, 3, smallest, 2 * smallest)).shape) >= 1
