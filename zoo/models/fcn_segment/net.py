"""A fully convolutional network that gives each part of an image a probability for every class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

STRIDE = 8  # px of the image that one cell of a probability map stands for, along each side


class FCN(nn.Module):
    """`trunk` makes maps of images, `head` logits of these.

    With `freeze_norm` the trunk's batch normalisation neither updates nor learns: it goes on with the statistics of its
    pretraining, however small the batches are.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, freeze_norm: bool) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head.to(memory_format=torch.channels_last)
        self._frozen = [layer for layer in trunk.modules() if isinstance(layer, _BatchNorm)] if freeze_norm else []
        for layer in self._frozen:
            layer.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FCN:
        """Switches to training mode, in which frozen normalisation stays in evaluation mode."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, C, h, w) float32 of `images` (B, 3, H, W) in [0, 1], at the network's own resolution."""
        return self.head(self.trunk(images)).float()

    def at_stride(self, logits: Tensor, shape: Sequence[int]) -> Tensor:
        """Returns the probabilities (B, C, ⌈H/8⌉, ⌈W/8⌉) that `logits (B, C, h, w)` of images of `shape` (H, W) are.

        They sum to 1 over C. Probabilities are resampled, not logits: of a finer map each cell gets the mean of what
        lies in it.
        """
        size = [-(-side // STRIDE) for side in shape]
        found = logits.softmax(dim=1)
        if list(found.shape[2:]) == size:
            return found
        return F.interpolate(found, size, mode="bilinear", align_corners=False, antialias=True)

    def trained(self, part: str) -> Iterator[nn.Parameter]:
        """Yields the parameters of `trunk` or `head` that have gradients."""
        return (each for each in getattr(self, part).parameters() if each.requires_grad)


def rescaled(images: Tensor, scale: float) -> Tensor:
    """Returns `images` (B, 3, H, W) with sides of `scale` times as many px, rounded to 8."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale / STRIDE)) * STRIDE for side in images.shape[2:]]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)


def enlarged(maps: Tensor, labels: Tensor) -> Tensor:
    """Returns `maps` (B, C, h, w) at the size of `labels` (B, H, W)."""
    return F.interpolate(maps, labels.shape[1:], mode="bilinear", align_corners=False)
