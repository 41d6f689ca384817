"""Salient points of images: a multi-scale Hessian detector on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

_LEVELS = 3  # scales in an octave
_FIRST_SIGMA = 1.6  # px, of an octave's first level
_CAMERA_SIGMA = 0.5  # px, blur that a picture is taken to have
_SMALLEST = 16  # px, the shorter side of the last octave
_BORDER = 5  # px of an octave in which nothing is found: half of what its windows see lies outside
_LUMA = (0.299, 0.587, 0.114)


def hessian_points(images: Tensor, threshold: float, edge_ratio: float) -> list[Tensor]:
    """Find the blobs of each image: maxima of the determinant of the Hessian over place and scale.

    Octaves of three scales from σ = 1.6 px, as in common Hessian-affine code; no affine adaptation, no refinement below
    a pixel. The same image gives the same points, whatever its batch.

    Args:
        images: (B, 3, H, W) in [0, 1].
        threshold: smallest determinant, scale-normalised (σ⁴ · det), in grey levels of [0, 1] squared.
        edge_ratio: largest ratio of the two eigenvalues; longer shapes are edges.

    Returns:
        One (N, 4) float32 tensor per image: x, y in px (the centre of the first pixel is at 0.5, 0.5), σ in px and
        determinant; ordered by σ, then y, then x.

    Source: Mikolajczyk & Schmid 2004, "Scale & affine invariant interest point detectors". Scales, border and the usual
    threshold ((16 / 3 / 255)²) and ratio (10) are those of Perdoch's program (2008).
    """
    base = (images.float() * images.new_tensor(_LUMA, dtype=torch.float32)[:, None, None]).sum(1)
    base = _blurred(base, (_FIRST_SIGMA**2 - _CAMERA_SIGMA**2) ** 0.5)
    found, step = [base.new_zeros(0, 5)], 1
    while min(base.shape[1:]) >= _SMALLEST:
        levels = _octave(base)
        found += _maxima(levels, step, threshold, edge_ratio)
        base, step = levels[_LEVELS][:, ::2, ::2], step * 2
    rows = torch.cat(found)
    return [_ordered(rows[rows[:, 0] == image, 1:]) for image in range(len(images))]


def _sigma(level: int) -> float:
    return _FIRST_SIGMA * 2 ** (level / _LEVELS)


def _octave(base: Tensor) -> list[Tensor]:
    """Returns the levels (B, H, W) of an octave: its scales and two more, since a maximum needs neighbours."""
    levels = [base]
    for level in range(1, _LEVELS + 2):
        levels.append(_blurred(levels[-1], (_sigma(level) ** 2 - _sigma(level - 1) ** 2) ** 0.5))
    return levels


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Returns `images` (B, H, W) behind a Gaussian of `sigma` px; the border's pixels go on outside.

    Sums of shifted images take a tenth of the time of a convolution with one channel.
    """
    radius = round(4 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(radius + 1, dtype=torch.float64) / sigma) ** 2)
    weights = (weights / (2 * weights.sum() - weights[0])).tolist()
    for axis, padding in ((1, (0, 0, radius, radius)), (2, (radius, radius, 0, 0))):
        length = images.shape[axis]
        wide = F.pad(images[:, None], padding, mode="replicate")[:, 0]
        images = wide.narrow(axis, radius, length) * weights[0]
        for offset, weight in enumerate(weights[1:], 1):
            images.add_(wide.narrow(axis, radius - offset, length), alpha=weight)
            images.add_(wide.narrow(axis, radius + offset, length), alpha=weight)
    return images


def _determinants(level: Tensor, sigma: float, edge_ratio: float) -> Tensor:
    """Returns the scale-normalised determinants of the Hessians of the inner pixels (B, H - 2, W - 2), 0 on edges."""
    middle = level[:, 1:-1, 1:-1] * 2
    xx = level[:, 1:-1, 2:] + level[:, 1:-1, :-2] - middle
    yy = level[:, 2:, 1:-1] + level[:, :-2, 1:-1] - middle
    xy = (level[:, 2:, 2:] + level[:, :-2, :-2] - level[:, 2:, :-2] - level[:, :-2, 2:]) / 4
    determinants = xx * yy - xy.square_()
    edge = xx.add_(yy).square_() > (edge_ratio + 1) ** 2 / edge_ratio * determinants
    return determinants.masked_fill_(edge, 0).mul_(sigma**4)


def _maxima(levels: list[Tensor], step: int, threshold: float, edge_ratio: float) -> list[Tensor]:
    """Returns (N, 5) rows of image, x, y, σ and determinant; `step` is the octave's pixel in px of the image."""
    maps = [_determinants(level, _sigma(number), edge_ratio) for number, level in enumerate(levels)]
    highest = [_highest_around(determinants) for determinants in maps]
    found = []
    for number in range(1, _LEVELS + 1):
        # What lies nearer to the border than `_BORDER` is left out; the maps lack one pixel each, `highest` two.
        inner = maps[number][:, _BORDER - 1 : 1 - _BORDER, _BORDER - 1 : 1 - _BORDER]
        around = torch.maximum(torch.maximum(highest[number - 1], highest[number]), highest[number + 1])
        around = around[:, _BORDER - 2 : 2 - _BORDER, _BORDER - 2 : 2 - _BORDER]
        image, y, x = ((inner >= around) & (inner > threshold)).nonzero(as_tuple=True)
        # Pixel i of an octave lies at step · i of the image, since every second one makes the next octave.
        places = [(axis + _BORDER) * step + 0.5 for axis in (x, y)]
        sigmas = torch.full_like(places[0], step * _sigma(number))
        found.append(torch.stack([image.to(sigmas), *places, sigmas, inner[image, y, x]], dim=1))
    return found


def _highest_around(maps: Tensor) -> Tensor:
    """Returns the maxima over 3×3 px, (B, H - 2, W - 2)."""
    rows = torch.maximum(torch.maximum(maps[:, :-2], maps[:, 1:-1]), maps[:, 2:])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _ordered(points: Tensor) -> Tensor:
    for column in (0, 1, 2):  # the last one decides first
        points = points[points[:, column].argsort(stable=True)]
    return points
