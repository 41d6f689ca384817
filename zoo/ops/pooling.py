"""Pooling: from a feature map to one vector."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.checks import check_positive

_OVERLAP = Fraction(2, 5)


def mac(x: Tensor) -> Tensor:
    """Take the maximum of each channel: MAC without final L2.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, C).

    Raises:
        ValueError: ``x`` has not four dimensions or no cells.

    Source: Sec. 3 of Tolias et al. 2016, "Particular object retrieval with integral max-pooling of CNN activations".
    """
    _check(x)
    return x.amax((2, 3))


def spoc(x: Tensor, centre_prior: bool = False) -> Tensor:
    """Sum each channel: SPoC without whitening and final L2. Without the prior it is what CroW's paper calls uCroW.

    Args:
        x: (B, C, H, W).
        centre_prior: weigh cells by a Gaussian about the middle of the map, whose σ is a third of the distance from
            there to the nearest border, that is min(H, W) / 6. A cell lies where its middle lies; the paper doesn't
            say from which number it counts, and so the middle may lie half a cell off in other code.

    Returns:
        (B, C).

    Raises:
        ValueError: as `mac`.

    Source: Eq. 1 and 2 of Babenko & Lempitsky 2015, "Aggregating deep convolutional features for image retrieval".
    """
    _check(x)
    if not centre_prior:
        return x.sum((2, 3))
    sigma = min(x.shape[2:]) / 6
    down, across = (torch.arange(side, device=x.device) + 0.5 - side / 2 for side in x.shape[2:])
    weights = torch.exp(-(down[:, None] ** 2 + across**2) / (2 * sigma**2))
    return torch.einsum("bchw,hw->bc", x, weights.to(x.dtype))


def gem(x: Tensor, p: float = 3.0, eps: float = 1e-6) -> Tensor:
    """Take the p-mean of each channel, (mean of max(x, eps)^p)^(1/p): GeM without final L2.

    Args:
        x: (B, C, H, W).
        p: above 0 and finite; 1 is the mean, infinity would be MAC. The paper starts training at 3.
        eps: what smaller values are raised to, above 0, so that roots and gradients exist.

    Returns:
        (B, C).

    Raises:
        ValueError: as `mac`; ``p`` or ``eps`` isn't a finite number above 0.

    Source: Eq. 3 of Radenović et al. 2018, "Fine-tuning CNN image retrieval with no human annotation"; eps is that of
    their code.
    """
    _check(x)
    check_positive(p=p, eps=eps)
    x = x.clamp(min=eps)
    largest = x.detach().amax((2, 3), keepdim=True)  # in its units no power leaves the range of numbers
    return (x / largest).pow(p).mean((2, 3)).pow(1 / p) * largest[:, :, 0, 0]


def crow(x: Tensor, a: float = 2.0, b: float = 2.0) -> Tensor:
    """Sum each channel under weights of cells and channels: CroW without whitening and final L2.

    Args:
        x: (B, C, H, W), the output of a ReLU.
        a: order of the norm of the spatial weights (`crow_spatial_weights`).
        b: root of the spatial weights.

    Returns:
        (B, C). The channel weights are those of the authors' code, without an ε.

    Raises:
        ValueError: as `mac`; ``a`` or ``b`` isn't above 0.

    Source: Sec. 4 of Kalantidis et al. 2016, "Cross-dimensional weighting for aggregated deep convolutional features".
    """
    return torch.einsum("bchw,bhw->bc", x, crow_spatial_weights(x, a, b)) * crow_channel_weights(x)


def crow_spatial_weights(x: Tensor, a: float, b: float) -> Tensor:
    """Return CroW's weight of each cell: (S / ‖S‖ₐ)^(1/b) with S the sum over channels.

    Args:
        x: (B, C, H, W). Sums below zero, which no output of a ReLU has, count as zero.
        a: order of the norm, above 0.
        b: which root is taken, above 0.

    Returns:
        (B, H, W), zero throughout where there is no activation.

    Raises:
        ValueError: as `mac`; ``a`` or ``b`` isn't above 0.

    Source: Eq. 2 of Kalantidis et al. 2016.
    """
    _check(x)
    check_positive(a=a, b=b)
    sums = x.sum(1)
    active = sums > 0
    sums = torch.where(active, sums, 1)  # a value whose root has a gradient, taken out again below
    norms = torch.where(active, sums.pow(a), 0).sum((1, 2), keepdim=True)
    norms = torch.where(norms > 0, norms, 1).pow(1 / a)
    return torch.where(active, (sums / norms).pow(1 / b), 0)


def crow_channel_weights(x: Tensor, eps: float | None = None) -> Tensor:
    """Return CroW's weight of each channel: the logarithm of all channels' shares of active cells over its own.

    Args:
        x: (B, C, H, W), the output of a ReLU.
        eps: None: log(ΣQ / Qₖ), and 0 for a channel without activation, as in the authors' code. A number ε:
            log((Cε + ΣQ) / (ε + Qₖ)), as in the paper, where such a channel weighs most.

    Returns:
        (B, C). Counts have no gradient.

    Raises:
        ValueError: as `mac`; ``eps`` is given and isn't above 0.

    Source: Eq. 3 and 4 of Kalantidis et al. 2016.
    """
    _check(x)
    shares = (x > 0).to(x.dtype).mean((2, 3))
    if eps is None:
        total = shares.sum(1, keepdim=True)
        return torch.where(shares > 0, torch.where(shares > 0, total / shares, 1).log(), 0)
    check_positive(eps=eps)
    return ((shares + eps).sum(1, keepdim=True) / (shares + eps)).log()


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
    _check(x)
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


def _check(x: Tensor) -> None:
    if x.dim() != 4:
        raise ValueError(f"x must be (B, C, H, W), got shape {tuple(x.shape)}")
    for name, value in (("height", x.shape[2]), ("width", x.shape[3])):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
