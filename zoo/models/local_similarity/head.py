"""The network that tells from a correlation volume whether, and where, the query is in the gallery image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from zoo.ops.correlation import best_in_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_CENTRE, _SPREAD = 0.5, 0.1  # of the mean best product of features behind a ReLU, roughly
_POOLED = 4  # times smaller than the gallery's grid is the last map, along each side


class Found(NamedTuple):
    """`logits (B, 2)`: absent, present; `boxes (B, 4)` as `zoo.models.local_similarity.boxes` encodes them."""

    logits: Tensor
    boxes: Tensor


class CorrelationHead(nn.Module):
    """Five convolutions with instance normalisation and two linear layers (Table 2 of Chen et al. 2019).

    `depth` is Hq * Wq, `grid` the side of the gallery's map in cells (paper: 49 and 15), `channels` those of the three
    convolutions before, and of the two after, the first maximum pooling (paper: 128 and 64). With `match_score` the
    logits also depend on the mean, over the query's locations, of the best product: R-Match (eq. 2), which the
    normalisation takes out of the convolutions (ours). Raises ValueError for a grid of which the two poolings leave
    nothing.
    """

    def __init__(self, depth: int, grid: int, channels: Sequence[int], match_score: bool = False) -> None:
        super().__init__()
        if grid < _POOLED:
            raise ValueError(f"gallery_grid must be at least {_POOLED} cells, got {grid}")
        self.query_grid, self.gallery_grid = math.isqrt(depth), grid
        wide, narrow = channels
        first = (_block(depth, wide), _block(wide, wide), _block(wide, wide))
        second = (_block(wide, narrow), _block(narrow, narrow))
        self.convolutions = nn.Sequential(*first, nn.MaxPool2d(2), *second, nn.MaxPool2d(2))
        features = narrow * (grid // 2 // 2) ** 2
        self.exists, self.location = nn.Linear(features, 2), nn.Linear(features, 4)
        self.match = nn.Linear(1, 2) if match_score else None
        if self.match is not None:  # begins as the network without
            nn.init.zeros_(self.match.weight)
            nn.init.zeros_(self.match.bias)

    def forward(self, volumes: Tensor) -> Found:
        """Returns what is found in `volumes` (B, Hq * Wq, Hg, Wg); raises ValueError for other grids than its own."""
        self.check(volumes)
        return self.decide(self.convolutions(volumes).flatten(1), volumes)

    def decide(self, features: Tensor, volumes: Tensor) -> Found:
        """Returns what is found, of `features` (B, F) that the convolutions made of `volumes`."""
        logits = self.exists(features)
        if self.match is not None:
            score = best_in_volume(volumes).mean(1, keepdim=True).to(logits)
            logits = logits + self.match((score - _CENTRE) / _SPREAD)
        return Found(logits, self.location(features))

    def check(self, volumes: Tensor) -> None:
        """Raises ValueError for volumes of other grids than its own."""
        expected = (self.query_grid**2, self.gallery_grid, self.gallery_grid)
        if volumes.shape[1:] != expected:
            raise ValueError(f"volumes must be (B, {', '.join(map(str, expected))}), got {tuple(volumes.shape)}")

    @property
    def layers(self) -> dict[str, nn.Module]:
        """Returns the convolutions whose activations the paper's Fig. 2 shows: the 1st, the 2nd and the 4th."""
        blocks = [block for block in self.convolutions if isinstance(block, nn.Sequential)]
        return {f"conv{number}": blocks[number - 1] for number in (1, 2, 4)}


def _block(inputs: int, outputs: int) -> nn.Sequential:
    # The normalisation takes out the mean, and with it what a bias would add.
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.InstanceNorm2d(outputs), nn.ReLU())
