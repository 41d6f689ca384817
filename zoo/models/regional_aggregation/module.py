"""Describes an image by the second-order pooled features of its candidate regions (Jeong et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from zoo.backbones import create_backbone
from zoo.checks import check_flags, check_integers, check_positive, check_words, is_number
from zoo.models.regional_aggregation.net import Proposer, RegionalAggregationNet
from zoo.module import Embedder
from zoo.ops.sampling import sampled
from zoo.ops.whitening import Whitening
from zoo.types import Batch, Representation, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

CHOICES = {
    "order": (1, 2),
    "regions": ("all", "whole"),
    "query_regions": ("all", "whole"),
    "points": ("hessian", "activations"),
}
_COUNTS = ("clusters", "max_points", "min_points", "reduced", "dimension", "fit_regions")


class RegionalAggregation(Embedder):
    """Several vectors an image from a frozen network; every parameter is explained in the YAML of the same name.

    Its two PCAs are fitted, not trained. Two images are as similar as their most similar regions (Eq. 7); `vector` is
    the descriptor of the whole image, which is region 0. Raises ValueError for a value outside its range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("vector", "regions", "region_mask", "region_boxes", "region_hulls")
    trained: ClassVar[bool] = False
    on_reload: ClassVar[dict[str, Any]] = {"backbone_weights": None}
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_resnet", "backbone_weights": "random", "reduced": 4, "dimension": 3, "min_points": 5,
    }  # fmt: skip

    def __init__(
        self,
        *,
        backbone: str,
        backbone_weights: str | None,
        order: int,
        regions: str,
        query_regions: str,
        points: str,
        hessian_threshold: float,
        hessian_edge_ratio: float,
        max_points: int,
        min_points: int,
        max_share: float,
        clusters: int,
        reduced: int,
        eps: float,
        isometric: bool,
        dimension: int,
        fit_regions: int,
        seed: int,
    ) -> None:
        super().__init__()
        _check(locals())
        self._order, self._query_regions, self._whole = order, query_regions, regions == "whole"
        self._fit_regions, self._seed = fit_regions, seed
        network = create_backbone(backbone, backbone_weights)
        channels = network.channels if order == 1 else _triangle(reduced)
        _check_dimensions(order, reduced, dimension, network.channels, channels)
        detector = {"threshold": hessian_threshold, "edge_ratio": hessian_edge_ratio}
        self.net = RegionalAggregationNet(
            network,
            None if order == 1 else Whitening(network.channels, reduced),
            Whitening(channels, dimension),
            None
            if self._whole
            else Proposer(detector if points == "hessian" else None, max_points, min_points, max_share, clusters),
            eps,
            isometric,
        )

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns L2-normalised descriptors of regions, without a gradient; of a query as `query_regions` says."""
        described, regions = self.net(batch.images, whole=role == "query" and self._query_regions == "whole")
        return Representation(
            vector=described[:, 0],
            regions=torch.where(regions.exists[..., None], described, described[:, :1]),
            region_mask=regions.exists,
            region_boxes=regions.boxes,
            region_hulls=regions.hulls,
        )

    @property
    def descriptor_name(self) -> str:
        """Returns the variant's name after Fig. 1 of the paper: O1_W, O1_R, O2_W or O2_R."""
        return f"O{self._order}_{'W' if self._whole else 'R'}"

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Returns the regions (B, R, D), and beside them the whole images (B, D) of the same model."""
        found = self.embed(batch, role)
        whole = {f"O{self._order}_W": found.vector}
        return whole if self._whole else {self.descriptor_name: found.regions, **whole}

    @property
    def needs_fitting(self) -> bool:
        """Returns True: both PCAs come from a set of images."""
        return True

    def check_fitting(self, images: int, labels: Sequence[Any] | None) -> None:
        """Raises ValueError where so many images can't have as many regions as a PCA needs."""
        most = images * (1 if self.net.proposer is None else 2**self.net.proposer.clusters)
        self._check_rows(min(most, self._fit_regions), f"{images} images have at most {most}")

    def fit_statistics(self, batches: Iterable[Batch], labels: Sequence[Any] | None) -> None:
        """Fits U¹ of Eq. 4 in one pass over `batches`, then the whitening of Eq. 6 in another; labels aren't used.

        Of more than `fit_regions` regions a seeded sample is taken, whatever the order of images. Raises ValueError
        where there are too few.
        """
        if self.net.reduction is not None:
            # Its directions are those of a PCA, but Eq. 4 doesn't subtract the mean.
            self.net.reduction.fit_pca(self._sample(batches, self.net.first_order), centre=False, whiten=False)
        self.net.whitening.fit_pca(self._sample(batches, self.net.pooled))

    def _sample(self, batches: Iterable[Batch], describe: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        rows = sampled(_blocks(batches, describe, self.device), self._fit_regions, self._seed)
        self._check_rows(len(rows), f"the set has {len(rows)}")
        return rows.to(self.device)

    def _check_rows(self, count: int, said: str) -> None:
        for key, fitted in (("reduced", self.net.reduction), ("dimension", self.net.whitening)):
            if fitted is not None and count <= fitted.dimension:
                raise ValueError(
                    f"{key}={fitted.dimension} must be fitted on more regions than that "
                    f"(fit_regions={self._fit_regions}), {said}: take more images, or a smaller {key}"
                )

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images."""
        images = torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))
        return Batch(index=torch.arange(3), images=images)


def _blocks(
    batches: Iterable[Batch], describe: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches:
        if len(batch):
            rows, images = describe(batch.images.to(device))
            yield rows.cpu(), batch.index.cpu()[images.cpu()]


def _triangle(side: int) -> int:
    return side * (side + 1) // 2


def _check(given: dict[str, Any]) -> None:
    check_words(**{name: (given[name], known) for name, known in CHOICES.items()})
    check_integers(1, **{name: given[name] for name in _COUNTS})
    check_positive(eps=given["eps"], hessian_threshold=given["hessian_threshold"])
    check_flags(isometric=given["isometric"])
    if not is_number(given["max_share"]) or not 0 < given["max_share"] <= 1:
        raise ValueError(f"max_share must lie in 0 … 1, above 0, got {given['max_share']!r}")
    if not is_number(given["hessian_edge_ratio"]) or given["hessian_edge_ratio"] < 1:
        raise ValueError(f"hessian_edge_ratio must be at least 1, got {given['hessian_edge_ratio']!r}")


def _check_dimensions(order: int, reduced: int, dimension: int, channels: int, pooled: int) -> None:
    if order == 2 and reduced > channels:
        raise ValueError(f"reduced must be at most the network's {channels} channels, got {reduced}")
    if dimension > pooled:
        what = (
            f"the network's {pooled} channels"
            if order == 1
            else f"the {pooled} values of a {reduced}×{reduced} triangle"
        )
        raise ValueError(f"dimension must be at most {what}, got {dimension}")


export = RegionalAggregation
