"""Boxes as the network gives them: centre and logarithmic size, with the whole image as the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 1e-3  # of the image's side, below which a logarithm would leave the range that can be learnt


def encode_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Returns (B, 4) of `boxes` (B, 4), px x0, y0, x1, y1 of an image of that size.

    The four are the centre's distance from the image's middle, x and y in units of the image's sides, and the
    logarithms of width and height in these units: the encoding of Faster R-CNN with the image as the only reference
    rectangle (Sec. 3.3 of Chen et al. 2019).
    """
    unit = boxes / boxes.new_tensor([width, height, width, height])
    low, high = unit[:, :2], unit[:, 2:]
    return torch.cat([(low + high) / 2 - 0.5, (high - low).clamp(min=_LEAST).log()], dim=1)


def decode_boxes(encoded: Tensor) -> Tensor:
    """Returns boxes (B, 4) x0, y0, x1, y1 in shares of the image's sides, cut to the image."""
    centre, size = encoded[:, :2] + 0.5, encoded[:, 2:].clamp(max=1.0).exp()
    return torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, 1)


def box_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Returns (B,): area of the intersection over that of the union of boxes (B, 4) x0, y0, x1, y1."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return shared / (areas - shared).clamp(min=torch.finfo(a.dtype).tiny)
