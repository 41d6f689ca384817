"""Parting of backbones, local maps, correlation volumes and the layers of the head, against other ways to have them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import roi_pool

import zoo
from zoo.backbones import Backbone, create_backbone
from zoo.models.local_similarity.head import CorrelationHead
from zoo.models.local_similarity.module import LocalSimilarity
from zoo.models.local_similarity.net import LocalSimilarityNet
from zoo.models.local_similarity.stages import part
from zoo.ops.correlation import all_correlation_volumes, correlation_volume, r_match, shuffled_cells
from zoo.types import Batch

BEHIND_THE_MAP = 4_000_000  # weights; the classifiers of VGG would take seconds to draw

CUTS = {
    "test_resnet": ("layer3_0", "layer4_0"),
    "resnet18": ("layer3_1", "layer4_0"),
    "mobilenetv2_100": ("blocks_4_2", "blocks_5_0"),
    "efficientnet_b0": ("blocks_4_2", "blocks_5_0"),
    "vgg16": ("features_22", "features_23"),
    "torchvision/vgg16": ("features_22", "features_23"),
    "torchvision/resnet18": ("layer3_1", "layer4_0"),
}


@pytest.fixture
def quick_classifiers(monkeypatch):
    for name in ("normal_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_"):
        own = getattr(nn.init, name)

        def draw(tensor, *values, own=own, **named):
            return tensor if tensor.numel() > BEHIND_THE_MAP else own(tensor, *values, **named)

        monkeypatch.setattr(nn.init, name, draw)


def net_of(name="test_resnet", grids=(15, 7), trained="local"):
    torch.manual_seed(0)
    return LocalSimilarityNet(create_backbone(name, "random"), name, grids, [8, 4], True, 3, trained)


@pytest.mark.parametrize("name", CUTS)
def test_trunk_and_last_stage_make_up_the_backbone(name, quick_classifiers):
    backbone = create_backbone(name, "random")
    before = {key: value.clone() for key, value in backbone.state_dict().items() if value.numel() <= BEHIND_THE_MAP}
    trunk, last = part(backbone, name)
    images = torch.rand(2, 3, 80, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shared = trunk(images)
        found, whole = last(shared), backbone.features(images)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())
    assert whole.abs().max() > 0
    assert shared.shape[2] > found.shape[2]  # the last stage is what makes the map smaller
    names = [key for key, _ in trunk.named_children()], [key for key, _ in last.named_children()]
    assert (names[0][-1], names[1][0]) == CUTS[name]
    for key, value in before.items():  # looking for the cut moved no statistics
        assert torch.equal(backbone.state_dict()[key], value), key


def test_the_stages_of_resnet101_are_parted_as_in_the_paper():
    # The first 91 layers are shared: 1 + 9 + 12 + 69 convolutions; shortcuts aren't counted among them.
    trunk, last = part(create_backbone("resnet101", "random"), "resnet101")

    def count(network):
        convolutions = [key for key, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
        return sum("downsample" not in key for key in convolutions)

    assert (count(trunk), count(last)) == (91, 9)


class Parallel(nn.Module):
    """The second layer takes the images, not what the first one gives."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.Conv2d(3, 3, 3, stride=2, padding=1)

    def forward(self, images):
        return self.one(images) + self.two(images)


class Wider(Parallel):
    """Has layers in order, but looks at what the first gives too."""

    def forward(self, images):
        return torch.cat([F.avg_pool2d(self.one(images), 2), self.two(self.one(images))], dim=1)


class ChannelsLast(nn.Module):
    num_features = 5

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, images):
        return self.one(images).permute(0, 2, 3, 1)


class Misfit(nn.Module):
    """Layers that don't take one another's output."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(7, 7, 1)

    def forward(self, images):
        return self.one(images)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Parallel, "must be a sequence of layers to be parted into trunk and branches, mine isn't"),
        (Wider, "must be a sequence of layers to be parted into trunk and branches, mine isn't"),
        (ChannelsLast, "must be a sequence of layers to be parted into trunk and branches, mine isn't"),
        (Misfit, "must be a sequence of layers to be parted into trunk and branches, mine isn't"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), "a last stage that makes maps smaller, mine has none"),
    ],
)
def test_networks_that_cannot_be_parted_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        part(Backbone("mine", network(), (0, 0, 0), (1, 1, 1)), "mine")


def test_a_network_of_timm_that_puts_channels_last_is_refused():
    with pytest.raises(ValueError, match=r"backbone must be a sequence of layers .* mambaout_femto isn't"):
        zoo.create_model("local_similarity", backbone="mambaout_femto", backbone_weights="random")


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (13, 9), (15, 15), (17, 31), (40, 23)])
@pytest.mark.parametrize("grid", [7, 15])
def test_local_maps_are_roi_pooling_with_the_image_as_the_region(size, grid):
    net = net_of()
    net.local = nn.Identity()
    maps = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0))
    region = torch.tensor([[0.0, 0, size[1] - 1, size[0] - 1]])  # torchvision's corners are cells that belong to it
    expected = roi_pool(maps, [region, region], grid)
    torch.testing.assert_close(net.local_map(maps, grid), expected / expected.norm(dim=1, keepdim=True))


def test_gallery_and_query_have_grids_of_their_own():
    torch.manual_seed(0)
    model = zoo.create_model("local_similarity", **{**LocalSimilarity.tiny, "gallery_grid": 15, "query_grid": 7})
    batch = LocalSimilarity.tiny_batch()
    gallery, query = model.embed(batch), model.embed(batch, "query")
    assert gallery.local_map.shape == (3, model.net.dimension, 15, 15)
    assert query.local_map.shape == (3, model.net.dimension, 7, 7)
    for maps in (gallery.local_map, query.local_map):
        torch.testing.assert_close(maps.norm(dim=1), torch.ones_like(maps[:, 0]))
    assert torch.equal(gallery.vector, query.vector)
    assert not gallery.local_map.requires_grad


def test_the_vector_is_rmac_of_the_whole_backbone(tmp_path):
    torch.manual_seed(3)
    network = create_backbone("test_resnet", "random").network
    file = tmp_path / "backbone.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
    shared = {"backbone": "test_resnet", "backbone_weights": str(file)}
    ours = zoo.create_model("local_similarity", **{**LocalSimilarity.tiny, **shared})
    plain = zoo.create_model("global_descriptor", **shared, pooling="rmac", image_size=None)
    for height, width in ((96, 128), (200, 130), (40, 24)):  # the last has to be enlarged
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        batch = Batch(index=torch.arange(2), images=images)
        torch.testing.assert_close(ours.embed(batch).vector, plain.embed(batch).vector, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # the branch of the vector is its own
        next(ours.net.local.parameters()).zero_()
    torch.testing.assert_close(ours.embed(batch).vector, plain.embed(batch).vector, rtol=1e-4, atol=1e-5)


def test_the_head_has_the_layers_of_table_2():
    head, seen = CorrelationHead(49, 15, [128, 64]), []
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.Linear | nn.InstanceNorm2d | nn.ReLU):
            layer.register_forward_hook(
                lambda layer, given, out: seen.append((type(layer).__name__, *given[0].shape[1:]))
            )
    found = head(torch.randn(2, 49, 15, 15))
    assert (found.logits.shape, found.boxes.shape) == ((2, 2), (2, 4))

    def block(inputs, outputs, side):
        return [("Conv2d", inputs, side, side), *((kind, outputs, side, side) for kind in ("InstanceNorm2d", "ReLU"))]

    wide = block(49, 128, 15) + block(128, 128, 15) * 2 + [("MaxPool2d", 128, 15, 15)]
    narrow = block(128, 64, 7) + block(64, 64, 7) + [("MaxPool2d", 64, 7, 7)]
    assert seen == [*wide, *narrow, ("Linear", 576), ("Linear", 576)]


def test_the_head_is_what_its_weights_say():
    torch.manual_seed(0)
    head, volumes = CorrelationHead(9, 9, [6, 4]), torch.randn(3, 9, 9, 9)
    maps = volumes
    for place, layer in enumerate([layer for layer in head.modules() if isinstance(layer, nn.Conv2d)]):
        assert layer.kernel_size == (3, 3)
        maps = F.conv2d(maps, layer.weight, padding=1)
        mean, variance = maps.mean((2, 3), keepdim=True), maps.var((2, 3), unbiased=False, keepdim=True)
        maps = ((maps - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
        if place in (2, 4):
            maps = F.max_pool2d(maps, 2)
    features = maps.reshape(3, -1)
    for mode in (True, False):
        found = head.train(mode)(volumes)
        for got, linear in ((found.logits, head.exists), (found.boxes, head.location)):
            torch.testing.assert_close(got, features @ linear.weight.T + linear.bias, rtol=1e-4, atol=1e-5)


def test_the_match_score_moves_the_logits_as_r_match_does():
    torch.manual_seed(0)
    head = CorrelationHead(9, 9, [6, 4], match_score=True)
    nn.init.normal_(head.match.weight)
    gallery, query = unit_maps(5, 8, 9, 9), unit_maps(5, 8, 3, 3, seed=1)
    volumes = correlation_volume(gallery, query)
    score = r_match(gallery, query)[:, None] / 9
    expected = ((score - 0.5) / 0.1 * head.match.weight[:, 0] + head.match.bias).detach()
    with_it, head.match = head(volumes), None
    without = head(volumes)
    torch.testing.assert_close(with_it.logits - without.logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(with_it.boxes, without.boxes)


def test_the_head_refuses_other_grids():
    with pytest.raises(ValueError, match=r"gallery_grid must be at least 4 cells, got 3"):
        CorrelationHead(9, 3, [6, 4])
    with pytest.raises(ValueError, match=r"volumes must be \(B, 9, 6, 6\), got \(2, 9, 7, 7\)"):
        CorrelationHead(9, 6, [6, 4])(torch.zeros(2, 9, 7, 7))


def unit_maps(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_identical_maps_have_their_largest_entries_on_the_plane_of_eq_4():
    height, width = 5, 7
    maps = unit_maps(2, 32, height, width)
    best = correlation_volume(maps, maps).argmax(dim=1)
    # Eq. 4 counts from 1: d' = [1 Wq] [wq hq]ᵀ - Wq.
    wanted = [[w + width * h - width for w in range(1, width + 1)] for h in range(1, height + 1)]
    assert (best + 1).tolist() == [wanted, wanted]


def test_a_gallery_shifted_by_a_cell_moves_the_plane_by_one():
    maps = unit_maps(1, 32, 5, 7)
    plain, right, down = (
        correlation_volume(gallery, maps).argmax(dim=1)
        for gallery in (maps, maps.roll(1, dims=3), maps.roll(1, dims=2))
    )
    assert torch.equal(right[:, :, 1:], plain[:, :, 1:] - 1)
    assert torch.equal(down[:, 1:], plain[:, 1:] - 7)


@pytest.mark.parametrize(("galleries", "queries"), [(3, 3), (3, 1), (1, 3)])
def test_the_volume_is_that_of_a_loop(galleries, queries):
    gallery = torch.randn(galleries, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    query = torch.randn(queries, 6, 2, 3, generator=torch.Generator().manual_seed(1))
    volume = correlation_volume(gallery, query)
    assert volume.shape == (3, 6, 4, 5)
    for item in range(3):
        for yq in range(2):
            for xq in range(3):
                for yg in range(4):
                    for xg in range(5):
                        own, other = gallery[item % galleries, :, yg, xg], query[item % queries, :, yq, xq]
                        assert volume[item, yq * 3 + xq, yg, xg].item() == pytest.approx((own @ other).item(), abs=1e-5)


def test_all_volumes_are_those_of_each_pair():
    galleries, queries = torch.randn(3, 6, 4, 5), torch.randn(2, 6, 2, 3)
    found = all_correlation_volumes(galleries, queries)
    for g, q in itertools.product(range(3), range(2)):
        torch.testing.assert_close(found[g, q], correlation_volume(galleries[g : g + 1], queries[q : q + 1])[0])


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 1000))
def test_shuffled_cells_permute_whole_blocks(batch, height, width, block, seed):
    maps = torch.arange(batch * 2 * height * width).reshape(batch, 2, height, width).float()
    torch.manual_seed(seed)
    found, before = shuffled_cells(maps, block), maps.clone()
    rows, columns = height // block * block, width // block * block

    def blocks(one):
        corners = ((y, x) for y in range(0, rows, block) for x in range(0, columns, block))
        return Counter(tuple(one[:, y : y + block, x : x + block].flatten().tolist()) for y, x in corners)

    assert all(blocks(own) == blocks(other) for own, other in zip(found, maps, strict=True))
    assert torch.equal(found[:, :, rows:], maps[:, :, rows:])
    assert torch.equal(found[:, :, :, columns:], maps[:, :, :, columns:])
    assert torch.equal(maps, before)


def test_each_map_is_shuffled_in_its_own_order():
    torch.manual_seed(0)
    maps = torch.arange(225.0).reshape(1, 1, 15, 15).expand(6, -1, -1, -1)
    found = shuffled_cells(maps, 3)
    assert len({tuple(each.flatten().tolist()) for each in found}) == 6
