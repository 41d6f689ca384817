"""What training takes beside the network: loss, class weights, rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from zoo.models.fcn_segment.net import enlarged
from zoo.ops.label_maps import VOID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_OFFSET = 1.02  # keeps the weight of a class that all pixels have finite (Paszke et al. 2016, ENet, Sec. 5.2)


def log_weights(shares: Sequence[float] | Tensor) -> Tensor:
    """Returns (C,) float32: 1 / log(1.02 + share of the pixels); rare classes count more, 50.5 at most."""
    return (1 / torch.log(_OFFSET + torch.as_tensor(shares, dtype=torch.float64))).float()


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Returns the mean cross entropy of the pixels, by the weights (C,) of their classes; 0 where all are void.

    `logits (B, C, h, w)` are enlarged to `labels (B, H, W)`, which are -1 where void.
    """
    large = enlarged(logits.float(), labels)
    total = F.cross_entropy(large, labels, weights, ignore_index=VOID, reduction="sum")
    counted = weights[labels.clamp_min(0)] * (labels != VOID)
    return total / counted.sum().clamp_min(torch.finfo(total.dtype).tiny)


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Returns the Lovász extension of 1 - IoU, averaged over the classes that `labels` hold; 0 where all are void.

    `probabilities (B, C, H, W)` sum to 1 over C; `labels (B, H, W)` are -1 where void. Of probabilities that are 0 and
    1 it is 1 - IoU itself (Berman et al. 2018, "The Lovász-Softmax loss").
    """
    known = labels != VOID
    rows, truth = probabilities.movedim(1, -1)[known], labels[known]
    losses = [_lovasz((truth == name).to(rows), rows[:, name]) for name in truth.unique().tolist()]
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _lovasz(mine: Tensor, found: Tensor) -> Tensor:
    errors, order = (mine - found).abs().sort(descending=True)
    mine = mine[order]
    missed = mine.cumsum(0)
    # The IoU, were the first pixels of this order all wrong and the others all right.
    loss = 1 - (mine.sum() - missed) / (mine.sum() + (1 - mine).cumsum(0))
    return errors @ torch.diff(loss, prepend=loss.new_zeros(1))


def poly_factor(step: int, steps: int, power: float) -> float:
    """Returns (1 - step / steps)^power, what the learning rate is multiplied by; 0 from the last step on."""
    return max(0.0, 1 - step / steps) ** power
