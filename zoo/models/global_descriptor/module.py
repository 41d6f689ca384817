"""Describes an image by the pooled feature map of a pretrained network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from zoo.backbones import create_backbone
from zoo.models.global_descriptor.net import GlobalDescriptorNet
from zoo.module import Embedder
from zoo.ops.pooling import rmac
from zoo.types import Batch, Representation, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class _Pooling(NamedTuple):
    """`label` names the row in tables; `keys` are the model's parameters that `function` takes beside the map."""

    label: str
    function: Callable[..., Tensor]
    keys: tuple[str, ...]


POOLINGS = {
    "rmac": _Pooling("R-MAC", rmac, ("levels",)),
}


class GlobalDescriptor(Embedder):
    """One vector an image from a frozen network; every parameter is explained in `conf/model/global_descriptor.yaml`.

    Raises ValueError for a backbone, weights or pooling it doesn't know, and for levels or a size below 1.
    """

    trained: ClassVar[bool] = False
    on_reload: ClassVar[dict[str, Any]] = {"backbone_weights": None}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "backbone_weights": "random"}

    def __init__(
        self, *, backbone: str, backbone_weights: str | None, pooling: str, levels: int, image_size: int | None
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        for name, value in (("levels", levels), ("image_size", 1 if image_size is None else image_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self._pooling, options = POOLINGS[pooling], {"levels": levels}
        pool = partial(self._pooling.function, **{key: options[key] for key in self._pooling.keys})
        self.net = GlobalDescriptorNet(create_backbone(backbone, backbone_weights), pool, image_size)

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the L2-normalised pooled feature map (B, C), without a gradient."""
        return Representation(vector=self.net(batch.images))

    @property
    def descriptor_name(self) -> str:
        """Returns the pooling's name in the literature."""
        return self._pooling.label

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images."""
        images = torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))
        return Batch(index=torch.arange(3), images=images)


export = GlobalDescriptor
