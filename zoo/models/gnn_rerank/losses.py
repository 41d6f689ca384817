"""What the network is trained with: quantised average precision, or the losses of Ouyang et al. 2021."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from zoo.ops.losses import contrastive_list_loss

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("ap", "contrastive_mse")
CONVENTIONS = ("paper", "authors")


class ContrastiveMse(nn.Module):
    """Contrastive loss plus the error with which a head reads the affinities off the refined descriptors.

    Eqs. 2.35 to 2.37 of Hanning 2024. `authors`, the public code of Ouyang et al. 2021, has a linear head, takes norms
    instead of their squares, and counts the query among its own positives.
    """

    def __init__(self, width: int, outputs: int, temperature: float, weight: float, convention: str) -> None:
        super().__init__()
        self.temperature, self.weight, self.convention = temperature, weight, convention
        two = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))
        self.head = two if convention == "paper" else nn.Linear(width, outputs)

    def forward(self, scores: Tensor, relevant: Tensor, refined: Tensor, features: Tensor, valid: Tensor) -> Tensor:
        """Returns the loss of scores (B, K), refined descriptors (B, 1+K, width) and affinities (B, 1+K, outputs).

        `valid (B, 1+K)` bool names the images that exist.
        """
        authors = self.convention == "authors"
        contrast = contrastive_list_loss(scores, relevant, self.temperature, ~valid[:, 1:], itself=authors)
        errors = (features - self.head(refined)).square().sum(2)
        if authors:
            errors = errors.clamp_min(1e-12).sqrt()  # the root has no slope at 0
        return contrast + self.weight * (errors * valid).sum(1).mean()
