"""A small CNN whose pooled features answer the questions about an image and rank other images."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from zoo.module import Embedder
from zoo.types import Batch, Representation, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class AcmeRank(Embedder):
    """Embeds an image as the mean of its last feature map; learns from questions and answers.

    `channels` are the widths of the 3×3 stride-2 convolutions, the last one is D; `hidden` is the width of the answer
    layer; `question_dim` T and `answers` describe the data. Raises ValueError without any channels.
    """

    tiny: ClassVar[dict[str, Any]] = {"channels": [8, 16], "hidden": 16}

    def __init__(
        self, *, channels: Sequence[int], hidden: int, question_dim: int, answers: int, learning_rate: float
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError(f"channels must name at least one width, got {channels!r}")
        widths = [3, *channels]
        blocks = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU())
            for before, after in pairwise(widths)
        ]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.Linear(widths[-1] + question_dim, hidden), nn.ReLU(), nn.Linear(hidden, answers))
        self.learning_rate = learning_rate

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the features averaged over all positions."""
        return Representation(vector=self.features(batch.images).mean((2, 3)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the cross entropy of the answers to all questions of the batch."""
        loss = F.cross_entropy(self._answer(batch).flatten(0, 1), batch.answers.flatten())
        self.log("train/loss", loss, batch_size=len(batch), on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def task_scores(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the number of right answers and of questions; `{}` for images without questions."""
        if batch.questions is None:
            return {}
        right = self._answer(batch).argmax(-1) == batch.answers
        return {"accuracy": torch.stack([right.sum(), torch.tensor(right.numel(), device=right.device)]).double()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images with four questions each."""
        generator = torch.Generator().manual_seed(0)
        return Batch(
            index=torch.arange(3),
            images=torch.rand(3, 3, 32, 32, generator=generator),
            questions=torch.rand(3, 4, 11, generator=generator),
            answers=torch.randint(0, 10, (3, 4), generator=generator),
            question_types=torch.zeros(3, 4, dtype=torch.int64),
            question_type_names=("relational/count",),
        )

    def _answer(self, batch: Batch) -> Tensor:
        vector = self.embed(batch).vector[:, None].expand(-1, batch.questions.shape[1], -1)
        return self.head(torch.cat([vector, batch.questions], dim=2))
