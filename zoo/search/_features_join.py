"""Representations of several batches as one, and their pixels as those of the original pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_REPEATED = {"regions": 0, "region_boxes": 0, "region_hulls": 0}  # field → the region that stands for a missing one


def joined(parts: Sequence[Representation]) -> Representation:
    """Returns the images of all parts, in order; raises ValueError where their fields or sizes can't be put together.

    Parts may differ in R, V and K: a region that doesn't exist repeats region 0, an outline its last corner, and
    keypoints that don't exist are zeros; the masks tell them apart.
    """
    if len(parts) == 1:
        return parts[0]
    names = list(parts[0].filled())
    for part in parts:
        if list(part.filled()) != names:
            raise ValueError(f"the images have different fields: {names} and {list(part.filled())}")
        if part.quantizer != parts[0].quantizer:
            raise ValueError(
                f"the images have codes of different quantizers: {parts[0].quantizer} and {part.quantizer}"
            )
    columns = {name: [getattr(part, name) for part in parts] for name in names}
    return replace(parts[0], **{name: torch.cat(_equal(name, tensors)) for name, tensors in columns.items()})


def _equal(name: str, tensors: list[Tensor]) -> list[Tensor]:
    """Returns the tensors padded to one shape but for their first dimension."""
    if name == "region_hulls":
        tensors = [_padded(tensor, 2, max(t.shape[2] for t in tensors), -1) for tensor in tensors]
    if name in _REPEATED:
        tensors = [_padded(tensor, 1, max(t.shape[1] for t in tensors), 0) for tensor in tensors]
    elif name.startswith("keypoint") or name == "region_mask":
        tensors = [_padded(tensor, 1, max(t.shape[1] for t in tensors), None) for tensor in tensors]
    shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
    if len(shapes) > 1:
        a, b = sorted(shapes)[:2]
        raise ValueError(f"{name} must have one size for all images, got {a} and {b}: set data.image_size")
    return tensors


def _padded(tensor: Tensor, dimension: int, size: int, repeated: int | None) -> Tensor:
    missing = size - tensor.shape[dimension]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dimension] = missing
    if repeated is None:
        return torch.cat((tensor, tensor.new_zeros(shape)), dimension)
    last = tensor.shape[dimension] - 1 if repeated < 0 else repeated
    return torch.cat((tensor, tensor.narrow(dimension, last, 1).expand(shape)), dimension)


def to_original(items: Representation, size: tuple[int, int], original: Tensor) -> Representation:
    """Returns items whose boxes, outlines and keypoints are pixels of the original pictures.

    `size` is the height and width in px of the images that the model was given, `original (B, 2)` that of the pictures
    they were resized from. The upper left corner of an image is 0, 0.
    """
    height, width = size
    scale = original.flip(1).to(torch.float32) / torch.tensor([width, height], device=original.device)
    changed = {}
    if items.region_boxes is not None:
        changed["region_boxes"] = items.region_boxes * scale.repeat(1, 2)[:, None]
    if items.region_hulls is not None:
        changed["region_hulls"] = items.region_hulls * scale[:, None, None]
    if items.keypoints is not None:
        changed["keypoints"] = items.keypoints * scale[:, None]
    return replace(items, **changed)
