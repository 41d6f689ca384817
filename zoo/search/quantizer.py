"""Product quantisation: descriptors as a byte for each of their parts."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo.checks import check_integers
from zoo.files import BadFile
from zoo.progress import tracked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_MOST = 256  # centroids of a part, as many as a byte can number
_ROWS = 256  # descriptors encoded at a time, whose products then stay in the cache
_STEPS = 25  # of k-means, after which it has settled


class ProductQuantizer:
    """Cuts descriptors into M parts and keeps, of each, the number of the nearest of K centroids (Jégou et al. 2011).

    `centroids (M, K, D/M)`: arrays or tensors, K at most 256. Methods take arrays or tensors and return tensors, on the
    device of what they are given. Two quantisers are equal where their centroids are. Raises ValueError for another
    shape or values that are not finite.
    """

    def __init__(self, centroids: Any) -> None:
        centroids = np.array(torch.as_tensor(centroids).detach().cpu(), dtype=np.float32)
        if centroids.ndim != 3 or not 1 <= centroids.shape[1] <= _MOST or 0 in centroids.shape:
            raise ValueError(f"centroids must be (M, K, D/M) with K from 1 to {_MOST}, got {centroids.shape}")
        if not np.isfinite(centroids).all():
            raise ValueError("centroids must be finite, got NaN or infinite values")
        self.centroids = centroids

    @classmethod
    def fit(cls, x: Any, m: int, k: int, seed: int) -> ProductQuantizer:
        """Returns the quantiser whose centroids k-means finds in the rows of `x (N, D)`, for each of m parts alone.

        Where a part has no more than k different rows these are its centroids, the first one repeated. The same seed
        gives the same centroids. Raises ValueError where m doesn't divide D, for k above 256, and without rows.
        """
        check_integers(1, m=m, k=k)
        x = torch.as_tensor(x).detach().cpu().float().numpy()
        if k > _MOST:
            raise ValueError(f"k must be at most {_MOST}, so that a code is a byte, got {k}")
        if x.ndim != 2 or not len(x):
            raise ValueError(f"x must be (N, D) with at least one row, got {x.shape}")
        check_parts(m, x.shape[1])
        if not np.isfinite(x).all():
            raise ValueError("x must be finite, got NaN or infinite values")
        parts = x.reshape(len(x), m, -1)
        every = tracked(range(m), "learning codes")
        return cls(np.stack([_clustered(np.ascontiguousarray(parts[:, part]), k, seed) for part in every]))

    @property
    def parts(self) -> int:
        """Returns M."""
        return self.centroids.shape[0]

    @property
    def count(self) -> int:
        """Returns K."""
        return self.centroids.shape[1]

    @property
    def dimension(self) -> int:
        """Returns D."""
        return self.centroids.shape[0] * self.centroids.shape[2]

    @cached_property
    def squared_norms(self) -> np.ndarray:
        """Returns (M, K): the squared length of every centroid; over the codes of a descriptor they add up to its."""
        return np.square(self.centroids).sum(axis=2)

    def encode(self, x: Any) -> Tensor:
        """Returns the codes (N, M) uint8 of `x (N, D)`: the nearest centroids, of equally near ones the first."""
        x = self._rows(x)
        if x.device.type != "cpu":
            return torch.cat([self._encoded(rows) for rows in x.split(_ROWS * 16)])
        codes = np.empty((len(x), self.parts), np.uint8)
        rows = x.numpy().reshape(len(x), *self._cut)
        for part, table in enumerate(self._augmented):
            # ‖x - c‖² is least where x·c - ‖c‖²/2 is largest, one product with a one behind x. NumPy's argmax is
            # several times as fast as torch's.
            own = np.concatenate([rows[:, part], np.ones((len(x), 1), np.float32)], axis=1)
            for start in range(0, len(x), _ROWS):
                codes[start : start + _ROWS, part] = (own[start : start + _ROWS] @ table).argmax(axis=1)
        return torch.from_numpy(codes)

    def decode(self, codes: Any, renormalise: bool = False) -> Tensor:
        """Returns (..., D): the centroids that `codes (..., M)` name, L2-normalised as a whole where asked for."""
        codes = self._codes(codes)
        flat = torch.from_numpy(self.centroids).to(codes.device).flatten(0, 1)
        decoded = F.embedding(self.table_rows(codes), flat).flatten(-2)
        return F.normalize(decoded, dim=-1) if renormalise else decoded

    def distance_tables(self, queries: Any) -> Tensor:
        """Returns (Q, M, K): squared distances of the parts of `queries (Q, D)` to the centroids."""
        queries = self._rows(queries)
        centroids = torch.from_numpy(self.centroids).to(queries.device)
        tables = queries.new_empty(len(queries), self.parts, self.count)
        for table, own in zip(tables, queries.unflatten(1, self._cut)[:, :, None], strict=True):
            table.copy_((centroids - own).square().sum(dim=2))
        return tables

    def distances(self, tables: Any, codes: Any, subspaces: Sequence[int] | None = None) -> Tensor:
        """Returns (Q, N): squared distances of queries to what `codes (N, M)` decode to, by `tables (Q, M, K)`.

        `subspaces` names the parts that count, None for all. Raises ValueError for parts that don't exist.
        """
        chosen = list(range(self.parts)) if subspaces is None else list(subspaces)
        if not set(chosen) <= set(range(self.parts)):
            raise ValueError(f"subspaces must be from 0 to {self.parts - 1}, got {chosen}")
        tables, codes = torch.as_tensor(tables), self._codes(codes)
        if not chosen or not len(codes) or not len(tables):
            return tables.new_zeros(len(tables), len(codes))
        columns = tables.flatten(1).mT.contiguous()
        return F.embedding_bag(self.table_rows(codes)[:, chosen], columns, mode="sum").mT

    def product_tables(self, queries: Any) -> Tensor:
        """Returns (M, K, T): dot products of the centroids with the parts of `queries (T, D)`."""
        queries = self._rows(queries)
        centroids = torch.from_numpy(self.centroids).to(queries.device)
        return torch.bmm(centroids, queries.unflatten(1, self._cut).permute(1, 2, 0))

    def table_rows(self, codes: Tensor) -> Tensor:
        """Returns (..., M) int32: where in a table (M*K, ...) the codes (..., M) stand."""
        first = torch.arange(self.parts, dtype=torch.int32, device=codes.device) * self.count
        return codes.int().add_(first)

    def fingerprint(self) -> str:
        """Returns 16 digits that name the centroids."""
        return self._fingerprint

    def to_bytes(self) -> bytes:
        """Returns the content of a safetensors file with the centroids."""
        from safetensors.numpy import save

        return save({"centroids": self.centroids})

    @classmethod
    def from_bytes(cls, content: bytes, what: Any) -> ProductQuantizer:
        """Returns the quantiser that `to_bytes` wrote; raises BadFile, which names `what`, for anything else."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return cls(load(content)["centroids"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise BadFile(f"{what} is no product quantiser: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProductQuantizer) and self.fingerprint() == other.fingerprint()

    def __hash__(self) -> int:
        return hash(self._fingerprint)

    def __repr__(self) -> str:
        return f"ProductQuantizer(M={self.parts}, K={self.count}, D={self.dimension}, {self._fingerprint})"

    @property
    def _cut(self) -> tuple[int, int]:
        return self.centroids.shape[0], self.centroids.shape[2]

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{self.centroids.shape}".encode() + self.centroids.tobytes()).hexdigest()[:16]

    @cached_property
    def _augmented(self) -> np.ndarray:
        """Returns (M, D/M + 1, K): the centroids, and behind them minus half their squared lengths."""
        both = np.concatenate([self.centroids, -self.squared_norms[..., None] / 2], axis=2)
        return np.ascontiguousarray(both.transpose(0, 2, 1))

    def _encoded(self, x: Tensor) -> Tensor:
        table = torch.from_numpy(self._augmented).to(x.device)
        parts = x.unflatten(1, self._cut).transpose(0, 1)
        return torch.baddbmm(table[:, -1:], parts, table[:, :-1]).argmax(dim=2).mT.to(torch.uint8)

    def _rows(self, x: Any) -> Tensor:
        x = torch.as_tensor(x).detach().float()
        if x.dim() != 2 or x.shape[1] != self.dimension:
            raise ValueError(f"descriptors must be (N, {self.dimension}) for this quantiser, got {tuple(x.shape)}")
        return x

    def _codes(self, codes: Any) -> Tensor:
        codes = torch.as_tensor(codes)
        if codes.dtype != torch.uint8 or not codes.dim() or codes.shape[-1] != self.parts:
            raise ValueError(f"codes must be (..., {self.parts}) uint8, got {tuple(codes.shape)} {codes.dtype}")
        if self.count < _MOST and codes.numel() and int(codes.max()) >= self.count:
            raise ValueError(f"codes must be below {self.count}, the number of centroids, got {int(codes.max())}")
        return codes


def check_parts(parts: int, dimension: int, name: str = "m") -> None:
    """Raises ValueError, calling `parts` by that name, where a descriptor can't be cut into as many equal parts."""
    if dimension % parts:
        fitting = ", ".join(str(m) for m in range(1, min(dimension, 512) + 1) if not dimension % m)
        raise ValueError(f"{name} must divide the dimension D = {dimension} (one of {fitting}), got {parts}")


def _clustered(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Returns the k centroids of `rows (N, d)`."""
    import faiss

    # Counted by a random projection first, since sorting whole rows takes as long as the clustering.
    generator = np.random.default_rng(seed)
    projected = (rows * generator.normal(size=rows.shape[1])).sum(axis=1)
    first = np.unique(projected, return_index=True)[1]
    if len(first) <= k and len(different := np.unique(rows, axis=0)) <= k:
        return np.concatenate([different, np.repeat(different[:1], k - len(different), axis=0)])
    # faiss moves half of the largest cluster into an empty one, so that every centroid has rows.
    clustering = faiss.Kmeans(rows.shape[1], k, niter=_STEPS, seed=seed, min_points_per_centroid=1)
    # Where most rows are alike, most of those that faiss would start from are too, and stay so.
    alike = k <= len(first) < len(rows) / 2
    clustering.train(rows, init_centroids=rows[generator.choice(first, k, replace=False)] if alike else None)
    return clustering.centroids
