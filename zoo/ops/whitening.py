"""PCA and whitening of descriptors: linear maps that are fitted on a set of descriptors, not trained by gradient."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor, nn

_BLOCK = 2**22  # numbers that are held in double precision at a time
_RANK = 1e-10  # variances below this share of the largest are rounding
_ALIKE = 1e-12  # and all of them, where the largest is below this share of the mean squared norm


class Whitening(nn.Module):
    """Maps descriptors x (..., C) to projection (x - mean) (..., D); what is needed for that is fitted and saved.

    Buffers: `mean (C,)`, `projection (D, C)`, and `fitted`, a bool. The shapes are those of the arguments, so that
    a file fills a new one. No L2 normalisation, neither before nor after. Everything is computed in double precision
    and kept in single. Raises ValueError unless 1 ≤ ``dimension`` ≤ ``channels``.
    """

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        if not 1 <= dimension <= channels:
            raise ValueError(f"dimension must lie in 1 … {channels}, the descriptor's own, got {dimension}")
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("projection", torch.zeros(dimension, channels))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def dimension(self) -> int:
        """Returns D."""
        return len(self.projection)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., D) of descriptors (..., C); raises RuntimeError where nothing has been fitted."""
        if not self.fitted:
            raise RuntimeError("PCA or whitening must be fitted on a set of images, or loaded, before it is used")
        return (x - self.mean) @ self.projection.mT

    @torch.no_grad()
    def fit_pca(self, x: Tensor, whiten: bool = True, centre: bool = True) -> Whitening:
        """Fit the D main directions of descriptors; returns itself.

        Row i of the projection is the eigenvector of the covariance (about the mean, divided by N - 1) with the i-th
        largest eigenvalue, divided by the root of the eigenvalue if ``whiten``; its largest entry is positive.
        A direction in which the set doesn't vary gets a row of zeros.

        Args:
            x: (N, C), more rows than D.
            whiten: make all variances 1.
            centre: subtract the mean when descriptors are mapped; otherwise `mean` is zero. The directions are those
                of the covariance either way.

        Raises:
            ValueError: ``x`` has another shape, not more rows than D, values that aren't finite, or rows that are all
                alike.

        Source: Jégou & Chum 2012, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
        whitening".
        """
        self._check(x)
        mean = x.mean(0, dtype=torch.float64)
        variances, directions = _main_directions(x, mean, self.dimension)
        rows = directions * variances.rsqrt()[:, None] if whiten else directions
        if not variances[0] > _ALIKE * torch.linalg.vector_norm(x, dtype=torch.float64).square() / len(x):
            raise ValueError(f"x must hold descriptors that differ, got {len(x)} of which all are alike")
        varies = variances > _RANK * variances[0]
        return self._keep(mean if centre else torch.zeros_like(mean), torch.where(varies[:, None], rows, 0))

    @torch.no_grad()
    def fit_learned(self, x: Tensor, labels: Sequence[Hashable], shrinkage: float) -> Whitening:
        """Fit the whitening that makes pairs of one label alike, then D main directions; returns itself.

        With S the mean of (a - b)(a - b)ᵀ over all pairs a, b of descriptors of one label, the projection is
        E S^(-1/2), where the rows of E are the first D eigenvectors of S^(-1/2) T S^(-1/2) and T is the covariance of
        all descriptors about their mean, which is subtracted.

        Args:
            x: (N, C), more rows than D.
            labels: N, equal where images show the same; the others may have labels of their own.
            shrinkage: in 0 … 1; S is replaced by (1 - shrinkage) S + shrinkage (tr S / C) I. With 0 there must be
                enough pairs for S to have an inverse.

        Raises:
            ValueError: as `fit_pca`; not one label an item; no two items share a label; S has no inverse.

        Source: Mikolajczyk & Matas 2007, "Improving descriptors for fast tree matching by optimal linear projection",
        as in Sec. 3.4 of Radenović et al. 2018, "Fine-tuning CNN image retrieval with no human annotation". They take
        non-matching pairs for T; their code, as here, all descriptors.
        """
        self._check(x)
        if len(labels) != len(x):
            raise ValueError(f"labels must be one for each of {len(x)} descriptors, got {len(labels)}")
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must lie in 0 … 1, got {shrinkage!r}")
        mean = x.mean(0, dtype=torch.float64)
        within = _pair_scatter(x, labels)
        within = (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * torch.eye(len(within)).to(within)
        values, vectors = torch.linalg.eigh(within)
        if not values[0] > _RANK * values[-1]:
            raise ValueError(f"pairs of one label must vary in all {len(values)} dimensions, or shrinkage be above 0")
        root = (vectors * values.rsqrt()) @ vectors.mT
        _, main = torch.linalg.eigh(root @ _covariance(x, mean) @ root)
        return self._keep(mean, _signed(main.mT.flip(0)[: self.dimension] @ root))

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"x must be (N, {len(self.mean)}), got shape {tuple(x.shape)}")
        if len(x) <= self.dimension:
            raise ValueError(
                f"a projection to {self.dimension} dimensions must be fitted on more descriptors than that, got "
                f"{len(x)}; take more images or a smaller dimension"
            )
        if not x.isfinite().all():
            raise ValueError("x must hold finite numbers only")

    def _keep(self, mean: Tensor, projection: Tensor) -> Whitening:
        self.mean.copy_(mean)
        self.projection.copy_(projection)
        self.fitted.fill_(True)
        return self


def _main_directions(x: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` largest variances, from the largest, and their unit directions (count, C), float64."""
    if len(x) > x.shape[1]:
        values, vectors = torch.linalg.eigh(_covariance(x, mean))
        variances, directions = values.flip(0)[:count], vectors.mT.flip(0)[:count]
    else:  # the directions lie in the span of the rows, and an N × N problem finds them
        width = max(1, _BLOCK // len(x))
        blocks = [slice(first, first + width) for first in range(0, x.shape[1], width)]
        gram = sum(part @ part.mT for part in (x[:, block].double() - mean[block] for block in blocks))
        values, vectors = torch.linalg.eigh(gram)
        variances, vectors = values.flip(0)[:count] / (len(x) - 1), vectors.mT.flip(0)[:count]
        directions = torch.cat([vectors @ (x[:, block].double() - mean[block]) for block in blocks], dim=1)
        directions = torch.nn.functional.normalize(directions, dim=1)
    return variances.clamp(min=0), _signed(directions)


def _covariance(x: Tensor, mean: Tensor) -> Tensor:
    """Returns (C, C) float64."""
    return sum((part := rows - mean).mT @ part for rows in _doubles(x)) / (len(x) - 1)


def _pair_scatter(x: Tensor, labels: Sequence[Hashable]) -> Tensor:
    """Returns the mean of (a - b)(a - b)ᵀ over all pairs of rows that share a label, (C, C) float64.

    Over the n (n - 1) / 2 pairs of a label the sum is n times the scatter of its rows about their mean.
    """
    members: dict[Hashable, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    shared = [positions for positions in members.values() if len(positions) > 1]
    if not shared:
        raise ValueError("labels must be shared by at least two descriptors, got a label of its own for each")
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for positions in shared:
        rows = x[positions]
        mean = rows.mean(0, dtype=torch.float64)
        total += len(rows) * sum((part := block - mean).mT @ part for block in _doubles(rows))
    return total / sum(len(positions) * (len(positions) - 1) // 2 for positions in shared)


def _doubles(x: Tensor) -> Iterator[Tensor]:
    """Gives the rows in double precision, some at a time."""
    return (rows.double() for rows in x.split(max(1, _BLOCK // x.shape[1])))


def _signed(rows: Tensor) -> Tensor:
    """Makes the largest entry of each row positive, since an eigenvector has no sign of its own."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)
