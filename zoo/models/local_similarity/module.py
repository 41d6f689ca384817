"""Finds the query in gallery images by how their local features correspond, as Chen et al. 2019 do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch

from zoo.backbones import create_backbone
from zoo.checks import check_flags, check_integers, check_not_negative, check_positive, check_words, is_integer
from zoo.metrics.functional import average_precision
from zoo.models.local_similarity.boxes import box_overlap, decode_boxes, encode_boxes
from zoo.models.local_similarity.losses import Loss, negative_pairs, pair_loss, similarity
from zoo.models.local_similarity.net import LocalSimilarityNet, Trained
from zoo.models.local_similarity.scoring import PairScorer
from zoo.module import Embedder
from zoo.ops.correlation import all_correlation_volumes, correlation_volume, shuffled_cells
from zoo.ops.gather import gather_rows
from zoo.types import Batch, PairBatch, Representation, Role, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SCHEDULES = ("constant", "cosine")
_RGB = 3
_PAIRS = 128  # volumes that are compared at a time in validation


class LocalSimilarity(Embedder):
    """R-MAC vectors and local maps, and the head that compares these; see `conf/model/local_similarity.yaml`.

    Trained on `PairBatch`es. What `embed` returns is compared by the re-ranker of the same name. Raises ValueError for
    a backbone that can't be parted, an unknown word, or a number out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("vector", "local_map")
    monitor: ClassVar[str] = "val/map"
    judges_itself: ClassVar[bool] = True
    on_reload: ClassVar[dict[str, Any]] = {"backbone_weights": None, "quantizer": None}
    apart_from_embedding: ClassVar[tuple[str, ...]] = (
        *("net.head.", "channels", "match_score", "trained", "loss", "location_weight", "margin", "negatives"),
        *("shuffled_negatives", "shuffled_block", "learning_rate", "momentum", "weight_decay", "schedule"),
    )
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_resnet", "backbone_weights": "random", "gallery_grid": 6, "query_grid": 3,
        "channels": [8, 4], "match_score": True, "negatives": 2, "shuffled_negatives": 1, "shuffled_block": 2,
    }  # fmt: skip

    def __init__(
        self, *, backbone: str, backbone_weights: str | None, gallery_grid: int, query_grid: int,
        channels: Sequence[int], match_score: bool, levels: int, trained: Trained, loss: Loss, location_weight: float,
        margin: float, negatives: int, shuffled_negatives: int, shuffled_block: int, quantizer: str | None,
        learning_rate: float, momentum: float, weight_decay: float, schedule: str,
    ) -> None:  # fmt: skip
        super().__init__()
        counts = {"gallery_grid": gallery_grid, "query_grid": query_grid, "levels": levels, "negatives": negatives}
        check_integers(1, **counts, shuffled_block=shuffled_block)
        check_integers(0, shuffled_negatives=shuffled_negatives)
        check_words(trained=(trained, get_args(Trained)), loss=(loss, get_args(Loss)), schedule=(schedule, SCHEDULES))
        _check_channels(channels)
        check_flags(match_score=match_score)
        terms = {"location_weight": location_weight, "margin": margin, "momentum": momentum}
        check_positive(learning_rate=learning_rate)
        check_not_negative(**terms, weight_decay=weight_decay)
        self._trained, self._loss, self._terms = trained, loss, {"weight": location_weight, "margin": margin}
        self._negatives, self._shuffled = negatives, (shuffled_negatives, shuffled_block)
        self._rates = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        self._schedule = schedule
        network = create_backbone(backbone, backbone_weights)
        head = {"grids": (gallery_grid, query_grid), "channels": channels, "match_score": match_score}
        self.net = LocalSimilarityNet(network, backbone, **head, levels=levels, trained=trained)
        self.quantizer = None if quantizer is None else _read_quantizer(quantizer, self.net.dimension)
        self._validated: list[tuple[Tensor, ...]] = []

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns R-MAC (B, D) and the local map, 7×7 of a query and 15×15 of a gallery image, L2-normalised."""
        maps, vectors = self.net.embed(batch.images, self._grid(role))
        return Representation(vector=vectors, local_map=maps)

    @property
    def descriptor_name(self) -> str:
        """Returns what the vector is."""
        return "R-MAC"

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Returns the vector."""
        return {self.descriptor_name: self.embed(batch, role).vector}

    @property
    def borrowed(self) -> tuple[str, ...]:
        """Returns the prefixes of the weights that stay those of `backbone_weights`."""
        frozen = {"head": ("trunk", "local", "regional"), "local": ("trunk", "regional"), "all": ("regional",)}
        return tuple(f"net.{part}." for part in frozen[self._trained])

    @property
    def head(self) -> Any:
        """Returns what compares maps, for re-rankers."""
        return self.net.head

    @property
    def locates(self) -> bool:
        """Tells whether the head was taught boxes."""
        return self._loss == "cls+loc"

    def check_data(self, data: Any) -> None:
        """Raises ValueError where the data doesn't give pairs of images."""
        if not getattr(data, "gives_pairs", False):
            name = name_of(data)
            raise ValueError(
                f"data must give pairs of images that show one object, data={name} doesn't: cut_paste does"
            )

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Returns the loss of the positive pairs and the hardest negative ones."""
        galleries, queries = self.maps_of(batch)
        volumes = all_correlation_volumes(galleries, queries)
        positives = self.net.head(volumes.diagonal().movedim(-1, 0))
        chosen = volumes[self._hardest(batch.objects, volumes)]
        negatives = self.net.head(torch.cat([chosen, self._spoilt(galleries, queries)]))
        targets = encode_boxes(batch.boxes, *batch.galleries.shape[2:])
        loss = pair_loss(positives, negatives, targets, self._loss, **self._terms)
        told = (similarity(positives.logits) > 0.5).sum() + (similarity(negatives.logits) <= 0.5).sum()
        self.log("train/loss", loss, batch_size=len(batch))
        accuracy = told / (len(positives.logits) + len(negatives.logits))
        self.log("train/accuracy", accuracy, batch_size=len(batch), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Starts anew."""
        self._validated = []

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Keeps the maps of the batch."""
        galleries, queries = self.maps_of(batch)
        targets = encode_boxes(batch.boxes, *batch.galleries.shape[2:])
        self._validated.append((galleries, queries, batch.objects, targets))

    def on_validation_epoch_end(self) -> None:
        """Compares every query with every gallery image of the split: mean average precision, overlap of the boxes."""
        if not self._validated:
            return  # a rank without a batch has nothing to gather the shapes from
        parts = [gather_rows(torch.cat(rows)) for rows in zip(*self._validated, strict=True)]
        galleries, queries, objects, targets = parts
        rank, world = self.global_rank, self.trainer.world_size
        scores, boxes = self._all_pairs(galleries, queries[rank::world], torch.arange(rank, len(queries), world))
        relevant = objects[rank::world, None] == objects
        values = gather_rows(average_precision(scores, relevant))
        overlaps = gather_rows(box_overlap(decode_boxes(boxes), decode_boxes(targets[rank::world])))
        self.log("val/map", values.nanmean().item(), prog_bar=True, sync_dist=True)
        self.log("val/iou", overlaps.mean().item(), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns SGD over what is trained."""
        optimizer = torch.optim.SGD([each for each in self.parameters() if each.requires_grad], **self._rates)
        if self._schedule == "constant":
            return {"optimizer": optimizer}
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns three seeded images."""
        images = torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))
        return Batch(index=torch.arange(3), images=images)

    @classmethod
    def tiny_training_batch(cls) -> PairBatch:
        """Returns three seeded pairs."""
        images = cls.tiny_batch().images
        boxes = torch.tensor([[10.0, 10, 70, 60], [0, 0, 64, 96], [30, 20, 128, 80]])
        return PairBatch(torch.arange(3), images[:, :, 16:80, 16:80], images, boxes, torch.arange(3))

    def _grid(self, role: Role) -> int:
        return self.net.query_grid if role == "query" else self.net.gallery_grid

    def maps_of(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Returns the local maps of galleries and queries; those that the batch brings ready-made stay as they are."""
        galleries, queries = (
            self.net.local_map(self.net.shared(images), self._grid(role)) if images.shape[1] == _RGB else images.float()
            for images, role in ((batch.galleries, "gallery"), (batch.queries, "query"))
        )
        if self.quantizer is None:
            return galleries, queries
        from zoo.search.local_maps import quantised

        return quantised(galleries, self.quantizer), queries

    def _hardest(self, objects: Tensor, volumes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns galleries' and queries' positions of the negative pairs to learn from, the most similar ones."""
        asked, shown = negative_pairs(objects)
        if len(asked) > self._negatives:
            logits = PairScorer(self.net.head)(volumes.detach()[shown, asked]).logits
            hardest = logits.diff(dim=1)[:, 0].topk(self._negatives).indices
            asked, shown = asked[hardest], shown[hardest]
        return shown, asked

    def _spoilt(self, galleries: Tensor, queries: Tensor) -> Tensor:
        """Returns volumes of queries with their own galleries, the cells of these shuffled; there may be none."""
        count, block = self._shuffled
        chosen = torch.randperm(len(queries), device=queries.device)[:count]
        return correlation_volume(shuffled_cells(galleries[chosen], block), queries[chosen])

    def _all_pairs(self, galleries: Tensor, queries: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores (Q, N) of all pairs, and the boxes (Q, 4) in the gallery images `own (Q,)`."""
        scores, boxes, scorer = [], [], PairScorer(self.net.head)
        for query, place in zip(queries.split(1), own.tolist(), strict=True):
            found = [scorer(correlation_volume(part, query)) for part in galleries.split(_PAIRS)]
            scores.append(torch.cat([each.logits.double().diff(dim=1)[:, 0] for each in found]))
            boxes.append(torch.cat([each.boxes for each in found])[place])
        return torch.stack(scores), torch.stack(boxes)


def _read_quantizer(folder: str, dimension: int) -> Any:
    from zoo.search.local_maps import read_quantizer

    quantizer = read_quantizer(folder)
    if quantizer.dimension != dimension:
        raise ValueError(f"quantizer must be for maps of dimension {dimension}, {folder} is for {quantizer.dimension}")
    return quantizer


def _check_channels(channels: Sequence[int]) -> None:
    if (
        not isinstance(channels, (list, tuple))
        or len(channels) != 2
        or not all(is_integer(c) and c > 0 for c in channels)
    ):
        raise ValueError(f"channels must be two integers of at least 1, got {channels!r}")


export = LocalSimilarity
