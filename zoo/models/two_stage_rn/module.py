"""Trains RN and 2S-RN on questions about images, and reads retrieval descriptors off them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from zoo.models.two_stage_rn.initialisation import initialise
from zoo.models.two_stage_rn.net import AGGREGATIONS, TwoStageRNNet, pool_pairs
from zoo.module import Embedder
from zoo.types import Batch, Representation, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FEATURES = ("relation", "conv")
SCHEDULES = ("constant", "cosine")
PAIR_NORM = {"paper": False, "authors": True}


class TwoStageRN(Embedder):
    """RN and 2S-RN of Messina et al. 2018; every parameter is explained in `conf/model/two_stage_rn.yaml`.

    Raises ValueError for a feature, aggregation, convention or schedule it doesn't know.
    """

    monitor: ClassVar[str] = "val/accuracy"
    tiny: ClassVar[dict[str, Any]] = {"g": [16, 16], "h": [16], "f": [16, 16], "question_layer": 2, "chunk": 8}

    def __init__(
        self,
        *,
        conv: Sequence[int],
        g: Sequence[int],
        h: Sequence[int],
        f: Sequence[int],
        question_layer: int,
        question_dim: int,
        answers: int,
        coordinate_range: float,
        pair_scale: float,
        dropout: float,
        chunk: int,
        pair_shifts: int | None,
        question_groups: Sequence[int] | None,
        question_gate: float,
        feature: str,
        aggregation: str,
        convention: str,
        pair_norm: bool | None,
        learning_rate: float,
        weight_decay: float,
        schedule: str,
        warmup_steps: int,
    ) -> None:
        super().__init__()
        _check("feature", feature, FEATURES)
        _check("aggregation", aggregation, AGGREGATIONS)
        _check("convention", convention, tuple(PAIR_NORM))
        _check("schedule", schedule, SCHEDULES)
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            if not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
        self.net = TwoStageRNNet(
            conv, g, h, f, question_layer, question_dim, answers, coordinate_range, pair_scale, dropout, chunk
        )
        if feature == "relation" and question_layer == 0:
            raise ValueError(
                "feature must be conv where question_layer is 0 (RN has no question-free layer), got relation"
            )
        if question_groups is not None:
            initialise(self.net, question_groups, question_gate)
        self.pair_shifts = pair_shifts
        self.feature, self.aggregation = feature, aggregation
        self.pair_norm = PAIR_NORM[convention] if pair_norm is None else pair_norm
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.schedule, self.warmup_steps = schedule, warmup_steps

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the configured descriptor: relation features of g, or the conv features of the RN baseline."""
        if self.feature == "conv":
            return Representation(vector=self.net.conv_features(batch.images, self.aggregation))
        return Representation(vector=self.net.relation_features(batch.images, self.aggregation, self.pair_norm))

    @property
    def descriptor_name(self) -> str:
        """Returns the row of `descriptors` that `embed` returns."""
        if self.feature == "conv":
            return f"RN conv {self.aggregation}"
        return f"2S-RN {self.aggregation}" + (", pair L2" if self.pair_norm else "")

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Returns the rows of Table 1 that one checkpoint yields: conv and relation features, max and avg."""
        rows = {f"RN conv {how}": self.net.conv_features(batch.images, how) for how in AGGREGATIONS}
        pairs = self.net.relations(batch.images) if len(self.net.g) else None
        for how in AGGREGATIONS if pairs is not None else ():
            rows[f"2S-RN {how}"] = pool_pairs(pairs, how, pair_norm=False)
            rows[f"2S-RN {how}, pair L2"] = pool_pairs(pairs, how, pair_norm=True)
        return rows

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the cross entropy of the answers to all questions of the batch."""
        logits = self.net(batch.images, batch.questions, self.pair_shifts).flatten(0, 1)
        answers = batch.answers.flatten()
        loss = F.cross_entropy(logits.float(), answers)
        accuracy = (logits.argmax(-1) == answers).float().mean()
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        self.log("train/accuracy", accuracy, batch_size=len(batch), on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def task_scores(self, batch: Batch) -> dict[str, Tensor]:
        """Returns right answers and questions: all, of each kind, of each type; `{}` for images without questions."""
        if batch.questions is None:
            return {}
        right = self.net(batch.images, batch.questions).argmax(-1) == batch.answers
        scores = {"accuracy": _sum_and_count(right, torch.ones_like(right))}
        for position, name in enumerate(batch.question_type_names):
            counted = _sum_and_count(right, batch.question_types == position)
            kind = f"accuracy/{name.split('/')[0]}"
            scores[kind] = scores.get(kind, torch.zeros_like(counted)) + counted
            scores[f"accuracy/{name}"] = counted
        return scores

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns AdamW with a linear warm-up, then a constant or cosine-decaying rate, stepped per batch."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        total = self.trainer.estimated_stepping_batches if self.schedule == "cosine" else None
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.warmup_steps, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images with four questions each."""
        generator = torch.Generator().manual_seed(0)
        return Batch(
            index=torch.arange(3),
            images=torch.rand(3, 3, 75, 75, generator=generator),
            questions=torch.randint(0, 2, (3, 4, 11), generator=generator).float(),
            answers=torch.randint(0, 10, (3, 4), generator=generator),
            question_types=torch.randint(0, 2, (3, 4), generator=generator),
            question_type_names=("non_relational/shape", "relational/count"),
        )


def learning_rate_factor(step: int, warmup: int, total: float | None) -> float:
    """Returns the multiple of the base rate at a step: linear up over `warmup`, then 1, or half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    if total is None:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def _sum_and_count(right: Tensor, which: Tensor) -> Tensor:
    return torch.stack([(right & which.bool()).sum(), which.sum()]).double()


def _check(argument: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{argument} must be one of {', '.join(known)}, got {value!r}")


export = TwoStageRN
