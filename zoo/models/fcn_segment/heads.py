"""What turns feature maps into class scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.models.fcn_segment.trunk import Maps

_SPREAD = 0.01  # of the starting weights of DeepLab-v2's classifiers


class AtrousSum(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab-v2: the sum of 3×3 classifiers of several dilations.

    Chen et al. 2017, "DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and fully
    connected CRFs", Sec. 3.2, ASPP-L.
    """

    def __init__(self, channels: int, classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in dilations
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=_SPREAD)
            nn.init.zeros_(branch.bias)

    def forward(self, maps: Maps) -> Tensor:
        """Returns logits (B, classes, H, W) of the deep map (B, channels, H, W)."""
        return sum(branch(maps.deep) for branch in self.branches)


class LightHead(nn.Module):
    """Dilated branches side by side, projected, refined by the finer map, and classified: for small backbones.

    Each of `dilations` is a 3×3 convolution of `width` channels, 0 a 1×1 one; `image_pooling` adds the image's mean as
    another branch, as DeepLab-v3 does (Chen et al. 2017, "Rethinking atrous convolution"). The finer map joins through
    a 1×1 convolution of `skip_width` channels and a separable 3×3 one over both, as in DeepLab-v3+ (Chen et al. 2018).
    """

    def __init__(
        self,
        channels: tuple[int, int],
        classes: int,
        dilations: Sequence[int],
        width: int,
        image_pooling: bool,
        skip_width: int,
    ) -> None:
        super().__init__()
        deep, fine = channels
        self.branches = nn.ModuleList(_block(deep, width, rate) for rate in dilations)
        # Without normalisation: one value an image and channel has no statistics in a batch of one.
        self.pooling = nn.Conv2d(deep, width, 1) if image_pooling else None
        self.projection = _block((len(dilations) + image_pooling) * width, width, 0)
        self.skip = _block(fine, skip_width, 0) if fine else None
        self.fusion = _separable(width + skip_width, width) if fine else None
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Maps) -> Tensor:
        """Returns logits (B, classes, H', W') at the size of the finer map, or of the deep one where there is none."""
        deep = maps.deep
        parts = [branch(deep) for branch in self.branches]
        if self.pooling is not None:
            pooled = F.relu(self.pooling(deep.mean((2, 3), keepdim=True)))
            parts.append(pooled.expand(-1, -1, *deep.shape[2:]))
        found = self.projection(torch.cat(parts, dim=1))
        if self.skip is not None:
            found = F.interpolate(found, maps.fine.shape[2:], mode="bilinear", align_corners=False)
            found = self.fusion(torch.cat([found, self.skip(maps.fine)], dim=1))
        return self.classifier(found)


def _block(channels: int, width: int, rate: int) -> nn.Sequential:
    """Returns a convolution, 1×1 for rate 0 and else 3×3 of this dilation, with batch normalisation and ReLU."""
    kernel = {"kernel_size": 3, "padding": rate, "dilation": rate} if rate else {"kernel_size": 1}
    return nn.Sequential(nn.Conv2d(channels, width, **kernel, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _separable(channels: int, width: int) -> nn.Sequential:
    """Returns a 3×3 convolution of each channel and a 1×1 one over all; a whole one takes six times as long here."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), *_block(channels, width, 0)
    )
