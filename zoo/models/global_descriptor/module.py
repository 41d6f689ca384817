"""Describes an image by one vector of a pretrained network: its pooled feature map, or a fully connected layer."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from zoo.backbones import Backbone, Coder, create_backbone, create_coder
from zoo.checks import check_integers, check_positive, check_words, is_number
from zoo.models.global_descriptor.net import GlobalDescriptorNet
from zoo.module import Embedder
from zoo.ops.netvlad import NetVLAD
from zoo.ops.pooling import crow, gem, mac, rmac, spoc
from zoo.ops.whitening import Whitening
from zoo.types import Batch, Representation, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor


class _Pooling(NamedTuple):
    """`label` names the row in tables; `keys` are the model's parameters that `function` takes beside the map."""

    label: str
    function: Callable[..., Tensor] | None
    keys: tuple[str, ...] = ()


POOLINGS = {
    "mac": _Pooling("MAC", mac),
    "spoc": _Pooling("SPoC", spoc, ("centre_prior",)),
    "gem": _Pooling("GeM", gem, ("p",)),
    "rmac": _Pooling("R-MAC", rmac, ("levels",)),
    "crow": _Pooling("CroW", crow, ("a", "b")),
    "ucrow": _Pooling("uCroW", spoc),
    "netvlad": _Pooling("NetVLAD", None),
    "neural_codes": _Pooling("neural codes", None),
}

_MOST_NUMBERS = 2**28  # of a projection, 1 GiB; learned whitening holds several such matrices in double precision

WHITENINGS = {"pca": "PCA", "pca_whiten": "PCA whitening", "learned": "learned whitening"}


class GlobalDescriptor(Embedder):
    """One vector an image from a frozen network; every parameter is explained in `conf/model/global_descriptor.yaml`.

    Raises ValueError for a backbone, weights, pooling, layer or whitening it doesn't know, for numbers out of range,
    and for parameters that exclude each other.
    """

    trained: ClassVar[bool] = False
    fitted_with: ClassVar[str] = "model.whitening=pca | pca_whiten | learned, or model.pooling=netvlad"
    on_reload: ClassVar[dict[str, Any]] = {"backbone_weights": None}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "backbone_weights": "random"}

    def __init__(
        self, *, backbone: str, backbone_weights: str | None, pooling: str, levels: int, p: float, centre_prior: bool,
        a: float, b: float, clusters: int, layer: str | None, image_size: int | None, scales: Sequence[float],
        whitening: str | None, dimension: int | None, shrinkage: float,
    ) -> None:  # fmt: skip
        super().__init__()
        check_words(pooling=(pooling, POOLINGS))
        check_integers(1, levels=levels, image_size=1 if image_size is None else image_size)
        check_integers(2, clusters=clusters)
        check_positive(p=p, a=a, b=b)
        if not isinstance(scales, (list, tuple)) or not scales or not all(is_number(s) and s > 0 for s in scales):
            raise ValueError(f"scales must be a list of finite numbers above 0, got {scales!r}")
        _check_whitening(whitening, dimension, shrinkage)
        self._pooling, self._whitening, self._shrinkage = pooling, whitening, shrinkage
        self._centred = pooling == "spoc" and centre_prior
        if pooling == "neural_codes":
            network, pool = _coder(backbone, backbone_weights, layer, image_size, scales), torch.nn.Identity()
        else:
            network = create_backbone(backbone, backbone_weights)
            options = {"levels": levels, "p": p, "centre_prior": centre_prior, "a": a, "b": b}
            pool = _pool(POOLINGS[pooling], options, network, clusters)
        channels = pool.dimension if isinstance(pool, NetVLAD) else network.channels
        if whitening is not None:
            _check_size(whitening, dimension, channels)
        whiten = None if whitening is None else Whitening(channels, dimension or channels)
        self.net = GlobalDescriptorNet(network, pool, image_size, scales, whiten)

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the L2-normalised descriptor (B, D), without a gradient."""
        return Representation(vector=self.net(batch.images))

    @property
    def descriptor_name(self) -> str:
        """Returns the pooling's name in the literature, and the whitening's."""
        prior = " + centre prior" * self._centred
        return f"{POOLINGS[self._pooling].label}{prior}" + (
            f", {WHITENINGS[self._whitening]}" if self._whitening else ""
        )

    @property
    def needs_fitting(self) -> bool:
        """Tells whether there is a whitening, or NetVLAD's clusters."""
        return self.net.whitening is not None or isinstance(self.net.pool, NetVLAD)

    def check_fitting(self, images: int, labels: Sequence[Any] | None) -> None:
        """Raises ValueError for too few images for the dimension, or where learned whitening has no labels."""
        if self._whitening == "learned" and labels is None:
            raise ValueError(
                "whitening=learned needs labels: a folder for each class, or a table; or choose pca_whiten"
            )
        if self._whitening and images <= self.net.whitening.dimension:
            raise ValueError(
                f"dimension must be below the number of images that whitening is fitted on, {images}, got "
                f"{self.net.whitening.dimension}"
            )

    def fit_statistics(self, batches: Iterable[Batch], labels: Sequence[Any] | None) -> None:
        """Fits NetVLAD's clusters, then the whitening, on the images' descriptors; a label "" is that of one image.

        Raises ValueError as `check_fitting`, and as `NetVLAD.fit`, `Whitening.fit_pca` and `Whitening.fit_learned`.
        """
        if isinstance(self.net.pool, NetVLAD):
            self.net.pool.fit(each for batch in batches if len(batch) for each in self.net.maps(self._images(batch)))
        if self.net.whitening is None:
            return
        described = [(batch.index.cpu(), self.net.pooled(self._images(batch))) for batch in batches if len(batch)]
        self.check_fitting(sum(len(rows) for _, rows in described), labels)
        index = torch.cat([positions for positions, _ in described])
        order = index.argsort()  # batches may come in any order, the result must not depend on it
        rows = torch.cat([rows for _, rows in described])[order.to(self.device)]
        if self._whitening == "learned":
            positions = index[order].tolist()
            shown = [("alone", place) if labels[place] == "" else labels[place] for place in positions]
            self.net.whitening.fit_learned(rows, shown, self._shrinkage)
        else:
            self.net.whitening.fit_pca(rows, whiten=self._whitening == "pca_whiten")

    def _images(self, batch: Batch) -> Tensor:
        return batch.images.to(self.device)

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images."""
        images = torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))
        return Batch(index=torch.arange(3), images=images)


def _check_whitening(whitening: str | None, dimension: int | None, shrinkage: float) -> None:
    if whitening is not None and whitening not in WHITENINGS:
        raise ValueError(f"whitening must be one of {', '.join(WHITENINGS)} or null, got {whitening!r}")
    if dimension is not None:
        check_integers(1, dimension=dimension)
    if not is_number(shrinkage) or not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must lie in 0 … 1, got {shrinkage!r}")
    if dimension is not None and whitening is None:
        raise ValueError(f"dimension={dimension} needs a whitening: {', '.join(WHITENINGS)}")


def _check_size(whitening: str, dimension: int | None, channels: int) -> None:
    """Raises ValueError where a projection would take gigabytes, or learned whitening would, of NetVLAD for example."""
    if channels * (dimension or channels) > _MOST_NUMBERS:
        most = min(channels, _MOST_NUMBERS // channels)
        raise ValueError(
            f"dimension must be at most {most:,} of descriptors of {channels:,}, got {dimension or 'null'}"
        )
    if whitening == "learned" and channels**2 > _MOST_NUMBERS:
        raise ValueError(
            f"whitening=learned needs descriptors of at most {math.isqrt(_MOST_NUMBERS):,} numbers, got {channels:,}: "
            "choose pca_whiten, or fewer clusters"
        )


def _coder(
    backbone: str, weights: str | None, layer: str | None, image_size: int | None, scales: Sequence[float]
) -> Coder:
    if layer is None:
        raise ValueError("pooling=neural_codes needs a layer, such as classifier.3 of torchvision/vgg16")
    if image_size is not None or list(scales) != [1]:
        raise ValueError(
            "pooling=neural_codes resizes images to the network's own size: image_size must be null and scales [1], "
            f"got {image_size} and {list(scales)}"
        )
    return create_coder(backbone, weights, layer)


def _pool(pooling: _Pooling, options: dict[str, Any], network: Backbone, clusters: int) -> Callable[[Tensor], Tensor]:
    if pooling.function is None:
        return NetVLAD(network.channels, clusters)
    return partial(pooling.function, **{key: options[key] for key in pooling.keys})


export = GlobalDescriptor
