"""NetVLAD: local descriptors, softly assigned to clusters, summed as residuals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ops.sampling import sampled

_POINTS = 256  # local descriptors for each cluster that k-means sees
_ROUNDS = 50
_RATIO = 100  # of the largest to the second largest weight of a local descriptor, on average (Appendix A)


class NetVLAD(nn.Module):
    """Sums the residuals of local descriptors to cluster centres: intra-normalised, then L2-normalised.

    For local descriptors x, L2-normalised, and centres c, the weight of cluster k is the softmax over k of
    -α‖x - c_k‖². Block k of the result is the weighted sum of x - c_k over all cells, L2-normalised. Centres and α are
    fitted (Eq. 1 to 4 and Appendix A of Arandjelović et al. 2016, "NetVLAD: CNN architecture for weakly supervised
    place recognition", where they are only where training begins). Buffers: `centres (K, C)`, `sharpness ()` = α,
    and `fitted`, a bool. Raises ValueError for fewer than two clusters.
    """

    def __init__(self, channels: int, clusters: int) -> None:
        super().__init__()
        if clusters < 2:
            raise ValueError(f"clusters must be at least 2, got {clusters}")
        self.register_buffer("centres", torch.zeros(clusters, channels))
        self.register_buffer("sharpness", torch.tensor(0.0))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def dimension(self) -> int:
        """Returns K · C."""
        return self.centres.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, K · C), cluster by cluster, of maps (B, C, H, W); RuntimeError where nothing has been fitted."""
        if not self.fitted:
            raise RuntimeError("NetVLAD's clusters must be fitted on a set of images, or loaded, before they are used")
        local = local_descriptors(x)
        # ‖x‖² is the same for all clusters and drops out.
        weights = (self.sharpness * (2 * local @ self.centres.mT - self.centres.square().sum(1))).softmax(2)
        residuals = weights.mT @ local - weights.sum(1)[:, :, None] * self.centres
        return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)

    @torch.no_grad()
    def fit(self, maps: Iterable[Tensor], seed: int = 0) -> NetVLAD:
        """Find the centres by k-means on a seeded sample of the cells of `maps`, each (B, C, H, W); returns itself.

        α makes the geometric mean of the ratio of a cell's largest weight to its second 100. The same maps in the same
        order give the same. Raises ValueError for fewer cells than clusters, or cells that are all alike.
        """
        import faiss

        clusters, channels = self.centres.shape
        points = sampled(_numbered(maps), clusters * _POINTS, seed)
        if len(points) < clusters:
            raise ValueError(f"clusters must be at most the number of cells of all maps, {len(points)}, got {clusters}")
        points = points.float()
        settings = {"niter": _ROUNDS, "seed": seed, "min_points_per_centroid": 1, "max_points_per_centroid": _POINTS}
        kmeans = faiss.Kmeans(channels, clusters, **settings)
        kmeans.train(points.numpy())
        centres = torch.from_numpy(kmeans.centroids)
        nearest = torch.cdist(points.double(), centres.double()).square().topk(2, largest=False).values
        gap = (nearest[:, 1] - nearest[:, 0]).mean().item()
        if not gap > 0:
            raise ValueError(f"the cells of the maps must differ to make {clusters} clusters, got equal ones")
        self.centres.copy_(centres)
        self.sharpness.fill_(math.log(_RATIO) / gap)
        self.fitted.fill_(True)
        return self


def local_descriptors(x: Tensor) -> Tensor:
    """Returns the cells of maps (B, C, H, W) as unit vectors (B, H · W, C)."""
    return F.normalize(x.flatten(2).mT, dim=2)


def _numbered(maps: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives the local descriptors of maps, and the number of the map that each lies in."""
    first = 0
    for each in maps:
        local = local_descriptors(each)
        numbers = torch.arange(first, first := first + len(local))
        yield local.flatten(0, 1), numbers.repeat_interleave(local.shape[1])
