"""Networks of timm and torchvision that normalise their own input as they were trained to.

As feature maps, of images of any size (`create_backbone`), up to a layer behind them, of the network's own size
(`create_coder`), or whole, where they tell the classes of an image's parts (`create_segmenter`).

Models that have one call their keys `backbone` and `backbone_weights`; the errors here name these.
"""

from __future__ import annotations

import difflib
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo.pretrained import parts_of, segmenter_parts, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.pretrained import Parts

_PROBES = (32, 64, 128)  # px; the last is large enough for every network's smallest map
# A processor is slower on large batches, whose activations leave its caches: MobileNetV2 on 320×240 px describes 64
# images a second in pieces of 4, and 26 in one piece of 64.
_CPU_PIXELS = 2**18


class Backbone(nn.Module):
    """A network up to its last feature map, which normalises its own input.

    `network` holds the layers under the names that timm or torchvision give them; `mean` and `std` (RGB, for images in
    [0, 1]) are saved with them. `channels` is C; `smallest` is a side in px from which the network has a map. Raises
    ValueError if what the network ends in is no feature map.
    """

    def __init__(self, name: str, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Convolutions of MobileNetV2 run 1.1 to 2 times as fast in this layout; results change by rounding alone.
        self.network = network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.eval()
        self.smallest, shape = self._probed()
        if len(shape) != 4:
            raise ValueError(f"backbone must end in a feature map (B, C, H, W), {name} gives {tuple(shape)}")
        # Some of timm's networks give (B, H, W, C), and don't all say so.
        self.channels_last = shape[1] != getattr(network, "num_features", shape[1]) == shape[3]
        self.channels = shape[3] if self.channels_last else shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the feature map (B, C, H, W) of `images` (B, 3, H', W') in [0, 1]."""
        normalised = (images - self.mean) / self.std
        maps = self.features(normalised.contiguous(memory_format=torch.channels_last))
        return maps.permute(0, 3, 1, 2).contiguous() if self.channels_last else maps

    @torch.no_grad()
    def _probed(self) -> tuple[int, torch.Size]:
        *smaller, largest = _PROBES
        for side in smaller:
            with suppress(RuntimeError):  # nothing is left of the image before the last layer
                return side, self.features(torch.zeros(1, 3, side, side)).shape
        return largest, self.features(torch.zeros(1, 3, largest, largest)).shape

    def features(self, normalised: Tensor) -> Tensor:
        """Returns what the network gives for images that are normalised already, in its own order of dimensions."""
        return getattr(self.network, "forward_features", self.network)(normalised)


class Coder(nn.Module):
    """A whole network that is asked for the output of one of its layers, and normalises its own input.

    `layer` is the name of a module of `network`; `size` the side in px of the images it was trained on, to which all
    are resized, whatever their aspect. `channels` is D. Raises ValueError for a layer that the network doesn't have, or
    whose output isn't a vector.
    """

    def __init__(self, name: str, parts: Parts, layer: str) -> None:
        super().__init__()
        known = [module for module, _ in parts.network.named_modules() if module]
        if layer not in known:
            near = difflib.get_close_matches(str(layer), known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"layer must be a module of {name}, the last being {known[-1]!r}, got {layer!r}.{hint}")
        self.network, self.layer, self.size = parts.network, layer, parts.size
        self.register_buffer("mean", torch.tensor(parts.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(parts.std)[:, None, None])
        self.eval()
        with torch.no_grad():
            found = self._output(torch.zeros(1, 3, self.size, self.size))
        if found is None:
            raise ValueError(f"layer must be one that {name} goes through, it doesn't go through {layer!r}")
        shape = tuple(found.shape[1:])
        if not shape or math.prod(shape) != shape[0]:
            raise ValueError(f"layer must give a vector an image, {layer!r} of {name} gives {shape}")
        self.channels = shape[0]

    def forward(self, images: Tensor) -> Tensor:
        """Returns (B, D) of `images` (B, 3, H, W) in [0, 1]."""
        size = (self.size, self.size)
        if images.shape[2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self._output((images - self.mean) / self.std).flatten(1)

    def _output(self, images: Tensor) -> Tensor | None:
        """Returns the layer's output, the first tensor of several; None where it isn't asked for any."""
        seen = []
        # A copy, since the next layer may write into it: ReLUs of torchvision do.
        first = lambda output: output if isinstance(output, torch.Tensor) else output[0]  # noqa: E731
        keep = lambda module, inputs, output: seen.append(first(output).clone())  # noqa: E731
        handle = self.network.get_submodule(self.layer).register_forward_hook(keep)
        try:
            self.network(images)
        finally:
            handle.remove()
        return seen[0] if seen else None


class SegmenterTrunk(nn.Module):
    """What a segmentation network of torchvision has before its classifier, normalising its own input."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.backbone = parts.network.backbone
        self.register_buffer("mean", torch.tensor(parts.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(parts.std)[:, None, None])

    def forward(self, images: Tensor) -> Any:
        """Returns what the classifier reads of `images` (B, 3, H, W) in [0, 1]."""
        maps = self.backbone((images - self.mean) / self.std)
        return maps["out"] if set(maps) == {"out"} else maps  # LR-ASPP reads two maps, the others one


def pieces(images: Tensor) -> tuple[Tensor, ...]:
    """Returns `images` (B, 3, H, W) in the pieces that go through a network at a time."""
    batch, _, height, width = images.shape
    return images.split(max(1, _CPU_PIXELS // (height * width) if images.device.type == "cpu" else batch))


def at_least(images: Tensor, smallest: int) -> Tensor:
    """Returns `images` (B, 3, H, W) with sides of `smallest` px or more, each by itself: a strip stays small."""
    size = [max(smallest, side) for side in images.shape[2:]]
    return images if size == [*images.shape[2:]] else F.interpolate(images, size, mode="bilinear")


def create_backbone(name: str, weights: str | None, **options: Any) -> Backbone:
    """Builds a network that turns images into a feature map, in evaluation mode.

    Args:
        name: a model of timm (``mobilenetv2_100``), or of torchvision (``torchvision/squeezenet1_1``).
        weights: ``hub`` (as timm or torchvision publish them), ``random`` (logs a warning), or a ``.safetensors`` or
            ``.pth`` file whose tensors must all fit, its classifier aside. None reads none: a checkpoint fills them.
        options: further arguments of `timm.create_model`, such as ``output_stride=8``.

    Raises:
        ValueError: the name is unknown or has no feature map of images of any size; it doesn't take the options; the
            weights can't be had, can't be read without executing code, or don't fit.
    """
    parts = parts_of(str(name), whole=False, **options)
    backbone = Backbone(name, parts.network, parts.mean, parts.std)
    start(parts, name, weights)
    return backbone


def create_coder(name: str, weights: str | None, layer: str) -> Coder:
    """Builds a network that turns images into the output of `layer`, in evaluation mode.

    Args:
        name: as in `create_backbone`; networks for one size of images are welcome.
        weights: as in `create_backbone`; the classifier's must be among them.
        layer: the name of a module whose output is a vector, such as ``classifier.3`` of ``torchvision/vgg16``.

    Raises:
        ValueError: as `create_backbone`; the layer isn't the network's, or gives no vector.
    """
    parts = parts_of(str(name), whole=True)
    coder = Coder(name, parts, layer)
    start(parts, name, weights)
    return coder


def create_segmenter(name: str, weights: str | None, classes: int) -> tuple[SegmenterTrunk, nn.Module]:
    """Builds a segmentation network of torchvision; returns its trunk, and the classifier that gives (B, C, H, W).

    Args:
        name: one of `torchvision.models.segmentation`, such as ``torchvision/deeplabv3_resnet50``; with prefix or not.
        weights: as in `create_backbone`; where they are for another number of classes, the last layers start anew, with
            a warning. What serves training alone (an auxiliary classifier) isn't read.
        classes: how many there are.

    Raises:
        ValueError: as `create_backbone`.
    """
    parts = segmenter_parts(str(name), classes)
    start(parts, name, weights)
    return SegmenterTrunk(parts), parts.network.classifier
