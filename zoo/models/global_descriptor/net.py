"""A frozen backbone, its feature map pooled to one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from zoo.backbones import at_least, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from zoo.backbones import Backbone, Coder
    from zoo.ops.whitening import Whitening

_LONGEST = 16  # times the shorter side that an image is resized to, or a strip of a few px would take all memory


class GlobalDescriptorNet(nn.Module):
    """Pools the feature map of a backbone, which stays as it is: no gradients, always in evaluation mode.

    `pool` turns (B, C, H, W) into (B, C'); `image_size` is the shorter side in px to which images are resized before,
    None leaves them as they are. `scales` are applied to that; the unit vectors of all are added up. `whitening` comes
    last, between two L2 normalisations.
    """

    def __init__(
        self,
        backbone: Backbone | Coder,
        pool: Callable[[Tensor], Tensor],
        image_size: int | None,
        scales: Sequence[float],
        whitening: Whitening | None,
    ) -> None:
        super().__init__()
        self.backbone, self.pool = backbone.requires_grad_(False), pool
        self.image_size, self.scales, self.whitening = image_size, tuple(scales), whitening
        self.eval()

    def train(self, mode: bool = True) -> GlobalDescriptorNet:
        """Keeps evaluation mode, whatever `mode` says."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns L2-normalised descriptors (B, D) in fp32 of `images` (B, 3, H, W) in [0, 1]."""
        pooled = self.pooled(images)
        with torch.autocast(images.device.type, enabled=False):
            return pooled if self.whitening is None else F.normalize(self.whitening(pooled), dim=1)

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """Returns the L2-normalised descriptors (B, C') before whitening."""
        with torch.autocast(images.device.type, enabled=False):
            images = resize_shorter(images.float(), self.image_size)
            pooled = [sum(self._pooled(scaled(piece, scale)) for scale in self.scales) for piece in pieces(images)]
            return F.normalize(torch.cat(pooled), dim=1)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Returns the feature maps (·, C, H, W) of all scales, some images at a time."""
        with torch.autocast(images.device.type, enabled=False):
            images = resize_shorter(images.float(), self.image_size)
            return [self._map(scaled(piece, scale)) for piece in pieces(images) for scale in self.scales]

    def _pooled(self, images: Tensor) -> Tensor:
        return F.normalize(self.pool(self._map(images)), dim=1)

    def _map(self, images: Tensor) -> Tensor:
        """Applies the backbone, to images that are too small for it enlarged."""
        return self.backbone(at_least(images, getattr(self.backbone, "smallest", 1)))


def resize_shorter(images: Tensor, size: int | None) -> Tensor:
    """Returns `images` (B, 3, H, W) resized, bilinear and antialiased, so that the shorter side has `size` px.

    Of images longer than 16 times their shorter side, the longer has 16 times `size`.
    """
    height, width = images.shape[2:]
    if size is None or min(height, width) == size:
        return images
    sides = [min(max(size, round(side * size / min(height, width))), _LONGEST * size) for side in (height, width)]
    return F.interpolate(images, sides, mode="bilinear", antialias=True)


def scaled(images: Tensor, scale: float) -> Tensor:
    """Returns `images` (B, 3, H, W) with both sides times `scale`, bilinear and antialiased, at least one px."""
    if scale == 1:
        return images
    sides = [max(1, round(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, sides, mode="bilinear", antialias=True)
