"""A backbone with two branches, and the head that compares what the local one gives.

Chen et al. 2019, "Learning local similarity with spatial relations for object retrieval", Sec. 3.4.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

from zoo.backbones import at_least, pieces
from zoo.models.local_similarity.head import CorrelationHead
from zoo.models.local_similarity.stages import part
from zoo.ops.pooling import rmac

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.backbones import Backbone

Trained = Literal["head", "local", "all"]


class LocalSimilarityNet(nn.Module):
    """Turns images into local maps and R-MAC vectors.

    The trunk, all of the backbone but its last stage, is shared; `local` and `regional` are copies of that stage, for
    the local map and for R-MAC. `trained` says what has gradients: the head; the head and the local branch; or these
    and the trunk. Normalisation layers of the backbone always keep their statistics. `levels` are those of R-MAC.
    """

    def __init__(
        self,
        backbone: Backbone,
        name: str,
        grids: tuple[int, int],
        channels: Sequence[int],
        match_score: bool,
        levels: int,
        trained: Trained,
    ) -> None:
        super().__init__()
        self.trunk, self.local = part(backbone, name)
        self.regional = copy.deepcopy(self.local)
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        self.dimension, self.smallest, self.levels = backbone.channels, backbone.smallest, levels
        self.gallery_grid, self.query_grid = grids
        self.head = CorrelationHead(self.query_grid**2, self.gallery_grid, channels, match_score)
        self.parts = {"head": ("head",), "local": ("head", "local"), "all": ("head", "local", "trunk")}[trained]
        for child in ("trunk", "local", "regional"):
            getattr(self, child).requires_grad_(child in self.parts)
        self.eval()

    def train(self, mode: bool = True) -> LocalSimilarityNet:
        """Keeps the backbone in evaluation mode, whatever `mode` says."""
        super().train(False)
        self.head.train(mode)
        return self

    def shared(self, images: Tensor) -> Tensor:
        """Returns the trunk's map (B, C', H, W) of `images` (B, 3, H', W') in [0, 1]."""
        normalised = (at_least(images, self.smallest) - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        if "trunk" in self.parts:
            return self.trunk(normalised)
        with torch.no_grad():
            return torch.cat([self.trunk(piece) for piece in pieces(normalised)])

    def local_map(self, shared: Tensor, grid: int) -> Tensor:
        """Returns (B, D, grid, grid), L2-normalised at each location, of the trunk's map.

        Each cell is the maximum over its share of the whole map: RoI pooling with the image as the region.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and "local" in self.parts):
            return F.normalize(F.adaptive_max_pool2d(self.local(shared), grid), dim=1)

    def embed(self, images: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """Returns local maps (B, D, grid, grid) and L2-normalised R-MAC vectors (B, D), without gradients."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            maps, vectors = [], []
            for piece in pieces(images.float()):
                shared = self.shared(piece)
                maps.append(self.local_map(shared, grid))
                vectors.append(F.normalize(rmac(self.regional(shared), self.levels), dim=1))
            return torch.cat(maps), torch.cat(vectors)
