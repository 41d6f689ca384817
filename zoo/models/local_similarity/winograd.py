"""The convolutions of the correlation network on the CPU in fp32, with a fifth of the multiplications."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo.models.local_similarity import kernels
from zoo.models.local_similarity.kernels import DEPTH, GROUP, POINTS, SPAN, TILE
from zoo.ops.lanes import WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Layer(NamedTuple):
    weights: np.ndarray  # (49, N / GROUP, K / DEPTH, DEPTH, GROUP) at the points
    channels: int  # N
    eps: float  # of the normalisation
    pool: int  # side of the cells of which the largest stays; 1 keeps all


class _Space(NamedTuple):
    """Work space of a layer for WIDTH pairs."""

    size: int  # cells along each side
    across: int  # tiles along each side
    cells: np.ndarray  # one channel that comes in, with a border of zeros
    points: np.ndarray  # (K / DEPTH, 49, T, DEPTH, WIDTH)
    products: np.ndarray  # (N / GROUP, 49, T, GROUP, WIDTH)
    raw: np.ndarray  # one channel that goes out, before it is normalised


class WinogradConvolutions:
    """Computes `head.convolutions(volumes).flatten(1)` with the weights that the head has now.

    Blocks of 3x3 convolution, instance normalisation and ReLU, and maximum pooling, as `CorrelationHead` puts them
    together. Several threads share the pairs where torch has several. Not for two calls at once: its work space is its
    own. F(5x5, 3x3) of Lavin and Gray 2016; rounding errors are some five times those of a plain convolution.
    """

    def __init__(self, convolutions: nn.Sequential, grid: int) -> None:
        self._layers = _layers(convolutions)
        self._sizes = [grid]
        for layer in self._layers:
            self._sizes.append(self._sizes[-1] // layer.pool)
        self._spaces: dict[int, list[_Space]] = {}

    def __call__(self, volumes: Tensor) -> Tensor:
        """Returns (B, F) of `volumes` (B, depth, grid, grid), in fp32."""
        array = volumes.detach().float().contiguous().numpy()
        blocks = -(-len(array) // WIDTH)
        workers = max(1, min(torch.get_num_threads(), blocks))
        share = max(1, -(-blocks // workers)) * WIDTH
        parts = [array[start : start + share] for start in range(0, max(1, len(array)), share)]
        if workers == 1:
            return torch.from_numpy(self._part(0, parts[0]))
        with ThreadPoolExecutor(workers) as pool:  # kernels don't hold the GIL
            return torch.from_numpy(np.concatenate(list(pool.map(self._part, range(len(parts)), parts))))

    def _part(self, worker: int, volumes: np.ndarray) -> np.ndarray:
        spaces, size = self._space_of(worker), self._sizes[-1]
        features = np.zeros((self._layers[-1].channels, size, size, WIDTH), np.float32)
        found = np.empty((len(volumes), *features.shape[:3]), np.float32)
        for start in range(0, len(volumes), WIDTH):
            block = volumes[start : start + WIDTH]
            self._block(block, spaces, features)
            found[start : start + WIDTH] = features[..., : len(block)].transpose(3, 0, 1, 2)
        return found.reshape(len(found), features[..., 0].size)

    def _block(self, volumes: np.ndarray, spaces: Sequence[_Space], features: np.ndarray) -> None:
        spare, first = np.empty((SPAN, SPAN, WIDTH), np.float32), spaces[0]
        kernels.enter(volumes, first.across, first.points, first.cells, spare)
        for number, (layer, space) in enumerate(zip(self._layers, spaces, strict=True)):
            kernels.multiply(space.points, layer.weights, space.products)
            finished = (space.products, space.across, space.size, layer.eps, layer.pool, space.raw)
            if number + 1 == len(spaces):
                kernels.leave(*finished, features, spare)
            else:
                then = spaces[number + 1]
                kernels.step(*finished, layer.channels, then.cells, then.across, then.points, spare)

    def _space_of(self, worker: int) -> list[_Space]:
        if worker not in self._spaces:
            self._spaces[worker] = [
                _space(layer, size) for layer, size in zip(self._layers, self._sizes[:-1], strict=True)
            ]
        return self._spaces[worker]


def _layers(convolutions: nn.Sequential) -> list[_Layer]:
    layers: list[_Layer] = []
    for part in convolutions:
        if isinstance(part, nn.MaxPool2d):
            layers[-1] = layers[-1]._replace(pool=part.kernel_size)
        else:
            convolution, normalisation, _ = part
            weights = _at_points(convolution.weight.detach().double().cpu().numpy())
            layers.append(_Layer(weights, convolution.out_channels, normalisation.eps, pool=1))
    return layers


def _at_points(weights: np.ndarray) -> np.ndarray:
    """Returns `weights (N, K, 3, 3)` at the 49 points, G g G^T, in the order in which they are multiplied."""
    rows = [[power / _distances(point) for power in (1.0, point, point**2)] for point in POINTS]
    matrix = np.array([*rows, [0.0, 0.0, 1.0]])
    values = np.einsum("ai,nkij,bj->abnk", matrix, weights, matrix, optimize=True).reshape(SPAN**2, *weights.shape[:2])
    missing = [(0, 0), *((0, -length % step) for length, step in zip(weights.shape[:2], (GROUP, DEPTH), strict=True))]
    padded = np.pad(values, missing)
    split = padded.reshape(SPAN**2, -1, GROUP, padded.shape[2] // DEPTH, DEPTH)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2), np.float32)


def _distances(point: float) -> float:
    return float(np.prod([point - other for other in POINTS if other != point]))


def _space(layer: _Layer, size: int) -> _Space:
    across, (_, groups, blocks, _, _) = -(-size // TILE), layer.weights.shape
    inner, outer = across * TILE, across * TILE + SPAN - TILE
    shapes = (
        (outer, outer, WIDTH),
        (blocks, SPAN**2, across**2, DEPTH, WIDTH),
        (groups, SPAN**2, across**2, GROUP, WIDTH),
        (inner, inner, WIDTH),
    )
    # Zeros, since kernels don't write the border nor the channels that round up a block.
    return _Space(size, across, *(np.zeros(shape, np.float32) for shape in shapes))
