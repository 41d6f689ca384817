"""Takes the descriptors that data bring along, so that they can be searched and judged like those of a model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from zoo.module import Embedder
from zoo.types import Batch, Representation, Role


class StoredDescriptors(Embedder):
    """Returns the descriptors of a batch (`Batch.descriptors`), L2-normalised; raises ValueError where it has none."""

    trained: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("descriptors",)
    tiny: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_none", torch.empty(0), persistent=False)  # so that the module has a device

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the vectors (B, D)."""
        if batch.descriptors is None:
            raise ValueError("data must bring descriptors along, as street_level does: these batches have images only")
        return Representation(vector=F.normalize(batch.descriptors.float(), dim=1))

    @property
    def descriptor_name(self) -> str:
        """Returns what the vector is."""
        return "descriptors"

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three made-up descriptors."""
        rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
        return Batch(index=torch.arange(3), images=torch.empty(3, 3, 0, 0), descriptors=rows)


export = StoredDescriptors
