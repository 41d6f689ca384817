"""Trains RN and 2S-RN on questions about images, and reads retrieval descriptors off them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn

from zoo.checks import check_integers, check_not_negative, check_words
from zoo.models.two_stage_rn.initialisation import initialise
from zoo.models.two_stage_rn.net import TwoStageRNNet
from zoo.models.two_stage_rn.pooling import AGGREGATIONS, FEATURES, LEARNED, AttentionPool, Pooling
from zoo.models.two_stage_rn.rates import SCHEDULES, SteppedRate, learning_rate_factor
from zoo.models.two_stage_rn.text import QuestionEncoder, padded
from zoo.module import Embedder
from zoo.ops.losses import soft_spearman_loss
from zoo.types import Batch, Representation, Role, name_of
from zoo.vocabulary import vocabulary as named_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.vocabulary import Vocabulary

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
PAIR_NORM = {"paper": False, "authors": True}
WORDS = {
    "feature": FEATURES,
    "aggregation": (*AGGREGATIONS, LEARNED),
    "convention": tuple(PAIR_NORM),
    "optimizer": tuple(OPTIMIZERS),
    "schedule": SCHEDULES,
}
UNKNOWN = "unknown"  # a vocabulary of CLEVR's words and answers, in an order that nobody published
_NO_TRUTH = (
    "aggregation 'learned' is trained on ground truths between the images of a batch, and there are none: set "
    "data.truth, such as [soft/authors]"
)


class TwoStageRN(Embedder):
    """RN and 2S-RN of Messina et al. 2018; every parameter is explained in `conf/model/two_stage_rn.yaml`.

    Raises ValueError for a feature, aggregation, convention, optimiser, schedule or vocabulary it doesn't know, and for
    sizes that don't fit the vocabulary.
    """

    monitor: ClassVar[str] = "val/accuracy"
    optional_weights: ClassVar[tuple[str, ...]] = ("net.attention.",)
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
        vocabulary: str | None,
        word_dim: int,
        question_length: int,
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
        attention_heads: int,
        attention_hidden: int,
        attention_dim: int,
        rank_temperature: float,
        optimizer: str,
        learning_rate: float,
        weight_decay: float,
        schedule: str,
        warmup_steps: int,
        step_epochs: int,
        step_limit: float,
    ) -> None:
        super().__init__()
        words = {"feature": feature, "aggregation": aggregation, "convention": convention}
        words |= {"optimizer": optimizer, "schedule": schedule}
        check_words(**{name: (word, WORDS[name]) for name, word in words.items()})
        check_not_negative(learning_rate=learning_rate, weight_decay=weight_decay, step_limit=step_limit)
        check_not_negative(warmup_steps=warmup_steps, rank_temperature=rank_temperature)
        counts = {"question_length": question_length, "word_dim": word_dim, "attention_heads": attention_heads}
        counts |= {"attention_hidden": attention_hidden, "attention_dim": attention_dim}
        check_integers(1, **counts, pair_shifts=1 if pair_shifts is None else pair_shifts)
        _check_question_free(question_layer, feature, aggregation)
        attention = (attention_heads, attention_hidden, attention_dim)
        text = _encoder(vocabulary, answers, question_groups, (word_dim, question_dim, question_length))
        self.net = TwoStageRNNet(
            conv, g, h, f, question_layer, question_dim, answers, coordinate_range, pair_scale, dropout, chunk,
            text, AttentionPool(g[question_layer - 1], *attention) if aggregation == LEARNED else None,
        )  # fmt: skip
        self.vocabulary, self.pair_shifts = vocabulary, pair_shifts
        self.feature, self.aggregation = feature, aggregation
        self.pair_norm = PAIR_NORM[convention] if pair_norm is None else pair_norm
        self.optimizer, self.learning_rate, self.weight_decay = optimizer, learning_rate, weight_decay
        self.schedule, self.warmup_steps, self.rank_temperature = schedule, warmup_steps, rank_temperature
        self._stepped = SteppedRate(learning_rate, step_epochs, step_limit)
        self._begin(question_groups, question_gate)

    @property
    def learned(self) -> bool:
        """Tells whether the aggregation is learned: then the attention alone is trained, to rank as the truth does."""
        return self.net.attention is not None

    def _begin(self, groups: Sequence[int] | None, gate: float) -> None:
        if groups is not None:
            initialise(self.net, groups, gate)
        if self.learned:
            self.net.requires_grad_(False)
            self.net.attention.requires_grad_(True)
            self.monitor = "val/spearman"
            self.train()

    def train(self, mode: bool = True) -> TwoStageRN:
        """Switches to training mode, in which a network below a learned aggregation stays as it is."""
        super().train(mode)
        if self.learned:
            self.net.eval()
            self.net.attention.train(mode)
        return self

    @property
    def pooling(self) -> Pooling:
        """Returns what `embed` reads off the network; the conv rows of the paper know no pair normalisation."""
        pair_norm = self.pair_norm and self.feature == "relation" and not self.learned
        return Pooling(self.feature, self.aggregation, pair_norm)

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the configured descriptor: relation features of g, or the conv features of the RN baseline."""
        return Representation(vector=self.net.describe(batch.images, [self.pooling])[0])

    @property
    def descriptor_name(self) -> str:
        """Returns the row of `descriptors` that `embed` returns."""
        return _row(self.pooling)

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Returns the rows of Table 1 that one checkpoint yields: conv and relation features, max and avg."""
        poolings = [Pooling("conv", how) for how in AGGREGATIONS]
        if len(self.net.g):
            poolings += [Pooling("relation", how, norm) for how in AGGREGATIONS for norm in (False, True)]
        poolings += [self.pooling] if self.learned else []
        rows = self.net.describe(batch.images, poolings)
        return {_row(pooling): row for pooling, row in zip(poolings, rows, strict=True)}

    def answer(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns the answers to the questions, in words, asked about B images in the network's present mode.

        `images (B, 3, H, W)`; `questions` holds a list for each image, of any length. Raises ValueError where the
        model has no vocabulary or its order isn't known, for a word it doesn't hold, and unless there is one list for
        each image.
        """
        words = self._vocabulary()
        if images.dim() != 4:
            raise ValueError(f"images must be (B, 3, H, W), got shape {tuple(images.shape)}")
        if any(isinstance(asked, str) for asked in questions):
            raise ValueError("questions must be one list per image, got a text: write [[question, …], …]")
        if len(questions) != len(images):
            raise ValueError(f"questions must be one list per image, {len(images)}, got {len(questions)}")
        ids = padded([[words.encode(question) for question in asked] for asked in questions])
        if not ids.numel():
            return [[] for _ in questions]
        with torch.no_grad():
            found = self.net(images, ids.to(images.device)).argmax(-1).tolist()
        return [
            [words.answers[answer] for answer in row[: len(asked)]] for row, asked in zip(found, questions, strict=True)
        ]

    def check_data(self, data: Any) -> None:
        """Raises ValueError for data without ground truths to learn by, or with questions in words it can't read."""
        if self.learned and not getattr(data, "truth", ()):
            raise ValueError(_NO_TRUTH)
        if not self.learned and not hasattr(data, "question_types"):
            name = name_of(data)
            raise ValueError(f"data must give questions and answers, data={name} doesn't: sort_of_clevr and clevr do")
        if not self.learned and self.vocabulary == UNKNOWN:
            self._vocabulary()
        words = getattr(getattr(data, "vocabulary", None), "name", None)
        if not self.learned and words != self.vocabulary:
            raise ValueError(
                f"model.vocabulary must be that of the data's questions, {words!r}, got {self.vocabulary!r}"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the cross entropy of the answers to all questions of the batch; unanswered ones don't count.

        A learned aggregation is trained by `soft_spearman_loss` on the batch's ground truths instead. Raises ValueError
        for a batch without questions or with those of another vocabulary, or without ground truths.
        """
        if self.learned:
            return self._ranking_step(batch)
        self._check_questions(batch)
        logits = self.net(batch.images, batch.questions, self.pair_shifts).flatten(0, 1)
        answers = batch.answers.flatten()
        known = int((answers >= 0).sum())
        loss = F.cross_entropy(logits.float(), answers, ignore_index=-1, reduction="sum") / max(known, 1)
        if known:
            right = (logits.argmax(-1) == answers).sum() / known
            options = {"batch_size": known, "on_step": False, "on_epoch": True, "sync_dist": True}
            self.log("train/loss", loss, prog_bar=True, **options)
            self.log("train/accuracy", right, **options)
        return loss

    def _ranking_step(self, batch: Batch) -> Tensor:
        if batch.distances is None:
            raise ValueError(_NO_TRUTH)
        vectors = self.net.attend(batch.images, self.pair_shifts).float()
        if len(batch) < 3:
            return vectors.sum() * 0  # an epoch's remainder, in which there is no order to learn
        distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
        loss = soft_spearman_loss(distances, batch.distances, self.rank_temperature)
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def task_scores(self, batch: Batch) -> dict[str, Tensor]:
        """Returns right answers and answered questions: all, of each kind, of each type.

        `{}` for images without questions, and, with a warning, where the model can't read them.
        """
        if batch.questions is None:
            return {}
        if batch.vocabulary != self.vocabulary:
            rank_zero_warn(f"{self._mismatch(batch)}; they are not asked")
            return {}
        right = self.net(batch.images, batch.questions).argmax(-1) == batch.answers
        known = batch.answers >= 0
        scores = {"accuracy": _sum_and_count(right, known)}
        for position, name in enumerate(batch.question_type_names):
            counted = _sum_and_count(right, known & (batch.question_types == position))
            kind = f"accuracy/{name.split('/')[0]}"
            scores[kind] = scores.get(kind, torch.zeros_like(counted)) + counted
            if "/" in name:
                scores[f"accuracy/{name}"] = counted
        return scores

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns the optimiser and its rate: a warm-up, then constant or cosine, per batch; or stepped, per epoch."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = OPTIMIZERS[self.optimizer](trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        if self.schedule == "stepped":
            interval, factor = "epoch", self._stepped
        else:
            total = self.trainer.estimated_stepping_batches if self.schedule == "cosine" else None
            interval, factor = "step", lambda step: learning_rate_factor(step, self.warmup_steps, total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def _vocabulary(self) -> Vocabulary:
        """Returns the words that the model reads; raises ValueError where there are none, or in unknown order."""
        if self.vocabulary is None:
            raise ValueError("questions in words need model.vocabulary, got null: this model reads question vectors")
        if self.vocabulary == UNKNOWN:
            raise ValueError(
                "questions can't be answered by a model of vocabulary 'unknown': the order of the words that it was "
                "trained with was never published; its image features work"
            )
        return named_vocabulary(self.vocabulary)

    def _check_questions(self, batch: Batch) -> None:
        if self.vocabulary == UNKNOWN:
            self._vocabulary()
        if batch.questions is None:
            raise ValueError("two_stage_rn is trained on questions, this batch has none")
        if batch.vocabulary != self.vocabulary:
            raise ValueError(self._mismatch(batch))

    def _mismatch(self, batch: Batch) -> str:
        return f"questions must be of the model's vocabulary {self.vocabulary!r}, got those of {batch.vocabulary!r}"

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


def _row(pooling: Pooling) -> str:
    name = "RN conv" if pooling.feature == "conv" else "2S-RN"
    return f"{name} {pooling.aggregation}" + (", pair L2" if pooling.pair_norm else "")


def _encoder(
    name: str | None, answers: int, groups: Sequence[int] | None, sizes: tuple[int, int, int]
) -> QuestionEncoder | None:
    """Returns what reads a vocabulary's words, None without one; ValueError where the other arguments don't fit it."""
    if name is None:
        return None
    words = named_vocabulary("clevr" if name == UNKNOWN else name)
    if answers != len(words.answers):
        raise ValueError(f"answers must be {len(words.answers)} for vocabulary {name!r}, got {answers}")
    if groups is not None:
        raise ValueError(f"question_groups must be null for vocabulary {name!r} (they group bits), got {list(groups)}")
    return QuestionEncoder(len(words.words), *sizes)


def _sum_and_count(right: Tensor, which: Tensor) -> Tensor:
    return torch.stack([(right & which).sum(), which.sum()]).double()


def _check_question_free(question_layer: int, feature: str, aggregation: str) -> None:
    if feature == "relation" and question_layer == 0:
        raise ValueError("feature must be conv where question_layer is 0 (RN has no question-free layer), got relation")
    if feature == "conv" and aggregation == LEARNED:
        raise ValueError("feature must be relation where aggregation is learned (it attends to relations), got conv")


export = TwoStageRN
