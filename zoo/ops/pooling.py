"""Pooling: from a feature map to one vector."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

_OVERLAP = Fraction(2, 5)


def rmac(x: Tensor, levels: int = 3) -> Tensor:
    """Sum the L2-normalised channel maxima of the regions of a feature map: R-MAC without whitening and final L2.

    Args:
        x: (B, C, H, W), usually the output of a ReLU.
        levels: number of region sizes, at least 1 (paper: 3).

    Returns:
        (B, C). Its direction doesn't change when an image's map is scaled. A region without any activation adds zero.

    Raises:
        ValueError: ``x`` has not four dimensions or no cells, or ``levels`` is below 1.

    Source: Sec. 4.2 of Tolias et al. 2016, "Particular object retrieval with integral max-pooling of CNN activations".
    """
    if x.dim() != 4:
        raise ValueError(f"x must be (B, C, H, W), got shape {tuple(x.shape)}")
    regions = rmac_regions(*x.shape[2:], levels).tolist()
    maxima = (x[:, :, top : bottom + 1, left : right + 1].amax((2, 3)) for top, bottom, left, right in regions)
    return sum(F.normalize(vector, dim=1) for vector in maxima)


def rmac_regions(height: int, width: int, levels: int) -> Tensor:
    """Return the square regions of R-MAC, level by level, row by row.

    At level l, counted from 1, regions have the side ⌊2·min(H, W) / (l + 1)⌋. There are l of them along the shorter
    side and l + m - 1 along the longer, from border to border at equal steps, rounded down to cells. m makes the
    overlap of neighbours at level 1 come as near to 40 % as it can; the smaller m on a tie; 1 for a square map.

    What the paper leaves open, and public code does in several ways: the whole map is no region of its own (it is, as
    level 1, of a square map alone; cirtorch adds it always); m has no upper limit (public code: 7); a level whose side
    is below one cell is left out.

    Args:
        height: H, cells.
        width: W, cells.
        levels: number of region sizes, at least 1.

    Returns:
        (R, 4) int64 cells: first and last row, first and last column, both ends included.

    Raises:
        ValueError: an argument is below 1.
    """
    for name, value in (("height", height), ("width", width), ("levels", levels)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    shorter, extra = min(height, width), _regions_along(height, width) - 1
    regions = []
    for level in range(1, levels + 1):
        side = 2 * shorter // (level + 1)
        if side < 1:
            break
        tops = _starts(height, side, level + extra * (height > width))
        lefts = _starts(width, side, level + extra * (width > height))
        regions += [(top, top + side - 1, left, left + side - 1) for top in tops for left in lefts]
    return torch.tensor(regions)


def _regions_along(height: int, width: int) -> int:
    """Returns m, the number of regions of level 1."""
    shorter, rest = min(height, width), abs(height - width)
    if rest == 0:
        return 1
    steps = max(1, int(Fraction(rest, shorter) / (1 - _OVERLAP)))
    # Fractions, since a tie must not be decided by rounding.
    return 1 + min(steps, steps + 1, key=lambda n: abs(1 - Fraction(rest, n * shorter) - _OVERLAP))


def _starts(length: int, side: int, count: int) -> list[int]:
    return [i * (length - side) // max(1, count - 1) for i in range(count)]
