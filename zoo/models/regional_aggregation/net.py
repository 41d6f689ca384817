"""A frozen backbone whose feature map is aggregated over candidate regions of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.backbones import at_least, pieces
from zoo.models.regional_aggregation.proposals import Regions, propose, salient_points
from zoo.ops.pooling import crow_channel_weights
from zoo.ops.second_order import second_order_pool
from zoo.ops.whitening import Whitening

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.backbones import Backbone

_BETA_EPS = 1e-6  # ε of Eq. 2


class Proposer(NamedTuple):
    """What candidate regions are made with; the fields are explained in `conf/model/regional_aggregation.yaml`."""

    detector: dict[str, float] | None
    most: int
    fewest: int
    share: float
    clusters: int

    def __call__(self, images: Tensor, alpha: Tensor) -> Regions:
        """Returns the regions of `images` (B, 3, H', W') whose map has the spatial weights `alpha` (B, H, W)."""
        points = salient_points(images, alpha, *self[:-1])
        regions = propose(points, alpha.shape[1:], images.shape[2:], self.clusters)
        return Regions(*(part.to(images.device) for part in regions))


class RegionalAggregationNet(nn.Module):
    """Describes the regions of images by their pooled local descriptors; frozen, always in evaluation mode.

    `reduction` is U¹ of Eq. 4 (None: first-order pooling), `whitening` that of Eq. 6. `proposer` is None for whole
    images only. Both statistics are fitted from outside, with what `first_order` and `pooled` return.
    """

    def __init__(
        self, backbone: Backbone, reduction: Whitening | None, whitening: Whitening, proposer: Proposer | None,
        eps: float, isometric: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        drop_last_pool(backbone)
        self.backbone = backbone.requires_grad_(False)
        self.reduction, self.whitening = reduction, whitening
        self.proposer, self.eps, self.isometric = proposer, eps, isometric
        self.eval()

    def train(self, mode: bool = True) -> RegionalAggregationNet:
        """Keeps evaluation mode, whatever `mode` says."""
        return super().train(False)

    def forward(self, images: Tensor, whole: bool) -> tuple[Tensor, Regions]:
        """Returns L2-normalised descriptors (B, R, D) in fp32 and their regions; with `whole`, R is 1."""
        pooled, regions = self._over(images, self._pooled, whole)
        with torch.autocast(images.device.type, enabled=False):
            return F.normalize(self.whitening(pooled), dim=-1), regions

    def first_order(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f¹ of Eq. 3 (N, C) fp32, L2-normalised, of every region that exists: what U¹ is fitted on.

        Beside them the positions (N,) of their images in the batch, not falling.
        """
        pooled, regions = self._over(images, self._sums, False)
        return pooled[regions.exists], regions.exists.nonzero()[:, 0]

    def pooled(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the pooled descriptors (N, ·) that `whitening` is fitted on, and positions, as `first_order`."""
        pooled, regions = self._over(images, self._pooled, False)
        return pooled[regions.exists], regions.exists.nonzero()[:, 0]

    @torch.no_grad()
    def _over(self, images: Tensor, pool: Callable[..., Tensor], whole: bool) -> tuple[Tensor, Regions]:
        """Applies `pool` to the maps of `images`, a few at a time."""
        with torch.autocast(images.device.type, enabled=False):
            parts = [self._one_piece(piece.float(), pool, whole) for piece in pieces(images)]
        pooled, regions = zip(*parts, strict=True)
        return torch.cat(pooled), Regions(*(torch.cat(fields) for fields in zip(*regions, strict=True)))

    def _one_piece(self, images: Tensor, pool: Callable[..., Tensor], whole: bool) -> tuple[Tensor, Regions]:
        maps = self.backbone(at_least(images, self.backbone.smallest))
        alpha = spatial_weights(maps)
        if whole or self.proposer is None:
            regions = Regions.whole(len(images), maps.shape[2:], images.shape[2:], images.device)
        else:
            regions = self.proposer(images, alpha)
        beta = crow_channel_weights(maps, eps=_BETA_EPS)
        return F.normalize(pool(maps * beta[:, :, None, None], regions.cells, alpha), dim=-1).float(), regions

    def _sums(self, x: Tensor, cells: Tensor, alpha: Tensor) -> Tensor:
        """Eq. 3, without weights in space."""
        return cells.flatten(2).to(x) @ x.flatten(2).mT

    def _pooled(self, x: Tensor, cells: Tensor, alpha: Tensor) -> Tensor:
        """Eq. 9, or Eqs. 4 and 5."""
        if self.reduction is None:
            return self._sums(x * alpha[:, None], cells, alpha)
        local = self.reduction(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return second_order_pool(local, cells, alpha, self.eps, self.isometric)


def spatial_weights(x: Tensor) -> Tensor:
    """Returns α of Eq. 1, (B, H, W): the L2-normalised channel sums of `x` (B, C, H, W), sums below zero taken as zero.

    Networks that don't end in a ReLU have such sums; a map without activation has weights of zero.
    """
    sums = x.sum(1).clamp(min=0)
    return F.normalize(sums.flatten(1), dim=1).view_as(sums)


def drop_last_pool(backbone: Backbone) -> None:
    """Makes the backbone end in its last convolution where a max pooling stands behind it (VGG, AlexNet)."""
    layers = getattr(backbone.network, "features", None)
    if isinstance(layers, nn.Sequential) and isinstance(layers[-1], nn.MaxPool2d):
        layers[-1] = nn.Identity()
