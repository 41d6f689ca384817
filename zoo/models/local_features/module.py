"""Describes an image by local features: keypoints that are found again in other pictures of the same thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.checks import check_integers, check_words
from zoo.models.local_features.net import DESCRIPTORS, describe, detector_of
from zoo.module import Embedder
from zoo.search.geometry import opencv
from zoo.types import Batch, Representation, Role

if TYPE_CHECKING:
    from torch import Tensor


class LocalFeatures(Embedder):
    """Keypoints with a descriptor each, for `reranker=geometric_verification`; there is no vector to search by.

    Every parameter is explained in `conf/model/local_features.yaml`. Raises ValueError for an unknown descriptor and
    max_keypoints below 1, and UsageError without OpenCV (extra `geometry`).
    """

    kinds: ClassVar[tuple[str, ...]] = ("keypoints", "keypoint_descriptors", "keypoint_mask")
    trained: ClassVar[bool] = False
    tiny: ClassVar[dict[str, Any]] = {"max_keypoints": 40}

    def __init__(self, *, descriptor: str, max_keypoints: int) -> None:
        super().__init__()
        opencv("the model local_features")
        check_words(descriptor=(descriptor, DESCRIPTORS))
        check_integers(1, max_keypoints=max_keypoints)
        self.descriptor, self.max_keypoints = descriptor, max_keypoints

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns K = max_keypoints keypoints an image, in px of the image; those that don't exist are zeros.

        Descriptors of RootSIFT and SIFT are L2-normalised.
        """
        device = batch.images.device
        pixels = (batch.images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        shape = len(pixels), self.max_keypoints
        places = np.zeros((*shape, 2), np.float32)
        described = np.zeros((*shape, DESCRIPTORS[self.descriptor]), np.float32)
        exists = np.zeros(shape, bool)
        detector = detector_of(self.descriptor, self.max_keypoints)  # can't be pickled, so it isn't kept
        for row, image in enumerate(pixels):
            points, rows = describe(np.ascontiguousarray(image), detector, self.descriptor, self.max_keypoints)
            places[row, : len(points)], described[row, : len(points)], exists[row, : len(points)] = points, rows, True
        arrays = zip(self.kinds, (places, described, exists), strict=True)
        return Representation(**{kind: torch.from_numpy(array).to(device) for kind, array in arrays})

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Raises ValueError, as `check_descriptors` does."""
        return self.check_descriptors()

    def check_descriptors(self) -> None:
        """Raises ValueError: local features are compared by a re-ranker, behind another model's search."""
        raise ValueError(
            f"local_features fills {list(self.kinds)}, it has no vector to rank by: search with another model, and let "
            "reranker=geometric_verification compare the local features of its first hits"
        )

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images of squares, one of which has no keypoints."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(3, 3, 12, 16, generator=generator)
        coarse[1] = 0.5
        return Batch(index=torch.arange(3), images=coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))


export = LocalFeatures
