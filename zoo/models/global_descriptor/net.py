"""A frozen backbone, its feature map pooled to one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from zoo.backbones import Backbone

# A processor is slower on large batches, whose activations leave its caches: MobileNetV2 on 320×240 px describes 64
# images a second in pieces of 4, and 26 in one piece of 64.
_CPU_PIXELS = 2**18


class GlobalDescriptorNet(nn.Module):
    """Pools the feature map of a backbone, which stays as it is: no gradients, always in evaluation mode.

    `pool` turns (B, C, H, W) into (B, C); `image_size` is the shorter side in px to which images are resized before,
    None leaves them as they are.
    """

    def __init__(self, backbone: Backbone, pool: Callable[[Tensor], Tensor], image_size: int | None) -> None:
        super().__init__()
        self.backbone, self.pool, self.image_size = backbone.requires_grad_(False), pool, image_size
        self.eval()

    def train(self, mode: bool = True) -> GlobalDescriptorNet:
        """Keeps evaluation mode, whatever `mode` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Returns L2-normalised descriptors (B, C) in fp32 of `images` (B, 3, H, W) in [0, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            images = resize_shorter(images.float(), self.image_size)
            pooled = [self.pool(self.backbone(piece)) for piece in images.split(_piece(images))]
            return F.normalize(torch.cat(pooled), dim=1)


def _piece(images: Tensor) -> int:
    """Returns how many images go through the network at a time."""
    batch, _, height, width = images.shape
    return max(1, _CPU_PIXELS // (height * width) if images.device.type == "cpu" else batch)


def resize_shorter(images: Tensor, size: int | None) -> Tensor:
    """Returns `images` (B, 3, H, W) resized, bilinear and antialiased, so that the shorter side has `size` px."""
    height, width = images.shape[2:]
    if size is None or min(height, width) == size:
        return images
    scaled = [max(size, round(side * size / min(height, width))) for side in (height, width)]
    return F.interpolate(images, scaled, mode="bilinear", antialias=True)
