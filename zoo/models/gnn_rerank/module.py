"""Trains the graph neural network that re-ranks hits, as Hanning 2024 does: the projection first, then the rest."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from zoo.affinities import create_affinity, hit_affinities
from zoo.metrics.functional import average_precision, recall_at_k
from zoo.models.gnn_rerank.checks import check_parameters
from zoo.models.gnn_rerank.hits import first_alike, read_rows
from zoo.models.gnn_rerank.losses import ContrastiveMse
from zoo.models.gnn_rerank.net import GnnRerankNet, similarities
from zoo.module import Reranker
from zoo.ops.losses import contrastive_list_loss, quantized_ap_loss
from zoo.types import ShortlistBatch, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

log = logging.getLogger("zoo")

_ROWS = 8192  # descriptors projected at a time
_BEST = "best_projection"  # where a checkpoint keeps what the first phase has found


class GnnRerank(Reranker):
    """Re-ranks hits by refined affinities; `conf/model/gnn_rerank.yaml` explains the parameters.

    Trained on `ShortlistBatch`es in two phases within one run: for `projection_epochs` the projection alone, the loss
    being that of its cosines; the second phase begins with the projection of the epoch that was best in validation.
    `val/map@10` is that of the whole network, and 0 as long as this isn't trained; `val/projection_map@10` that of the
    projection, `val/search_map@10` that of the hits as they came. Raises ValueError for a number out of range or an
    unknown word, naming rule and value.
    """

    optional_weights: ClassVar[tuple[str, ...]] = ("contrast.",)
    tiny: ClassVar[dict[str, Any]] = {
        "dimension": 8, "projection": 6, "anchors": 3, "hits": 5, "projection_hits": 4, "width": 8, "heads": 2,
        "affinities": ["heading"], "projection_epochs": 0,
    }  # fmt: skip

    def __init__(
        self, *, dimension: int, projection: int | None, anchors: int, affinities: Sequence[Any], hits: int,
        projection_hits: int, width: int, layers: int, heads: int, expansion: int, dropout: float, norm: str,
        centre: bool, projection_epochs: int, lock: bool, phase2_input: str, loss: str, bins: int, temperature: float,
        mse_weight: float, convention: str, learning_rate: float, decay: float,
    ) -> None:  # fmt: skip
        super().__init__()
        check_parameters({name: value for name, value in locals().items() if name not in ("self", "__class__")})
        self.dimension, self.anchors, self.hits, self._projection_hits = dimension, anchors, hits, projection_hits
        self.affinities = [create_affinity(entry) for entry in affinities]
        fields = (field for each in self.affinities for field in each.fields)
        self.reads = tuple(dict.fromkeys(fields)) if layers else ()
        self._projection_epochs = projection_epochs if projection else 0
        self._lock, self._cached, self._bins = lock and projection is not None, phase2_input == "projected", bins
        self._rates, self._loss_name, self._temperature = (learning_rate, decay), loss, temperature
        self.net = GnnRerankNet(
            dimension=dimension, projection=projection, anchors=anchors, affinities=len(affinities), width=width,
            layers=layers, heads=heads, expansion=expansion, dropout=dropout, norm=norm, centre=centre,
        )  # fmt: skip
        outputs = 1 + anchors * (1 + len(affinities))
        own = loss == "contrastive_mse" and layers > 0
        self.contrast = ContrastiveMse(width, outputs, temperature, mse_weight, convention) if own else None
        self._best: dict[str, Any] | None = None
        self._tables: dict[str, Tensor] = {}
        self._sums: Tensor | None = None

    def check_data(self, data: Any) -> None:
        """Raises ValueError where the data doesn't give shortlists of descriptors, or none of this dimension."""
        name = name_of(data)
        if not getattr(data, "gives_shortlists", False):
            raise ValueError(f"data must give shortlists of descriptors, data={name} doesn't: street_level does")
        if self.net.projection is not None and data.dimension != self.dimension:
            raise ValueError(f"model.dimension must be that of the descriptors, {data.dimension}, got {self.dimension}")
        data.prepare_shortlists(self.hits, self.anchors, self.affinities)

    def configure_optimizers(self) -> Any:
        """Returns Adam; its rate falls by `decay` after every epoch, and begins anew with the second phase."""
        rate, decay = self._rates
        optimizer = torch.optim.Adam(self.parameters(), lr=rate)
        first = self._projection_epochs

        def factor(epoch: int) -> float:
            return decay ** (epoch if epoch < first else epoch - first)

        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]

    def on_fit_start(self) -> None:
        """Warns where the run ends before its second phase begins."""
        epochs = self.trainer.max_epochs
        if self.net.layers and epochs is not None and 0 < epochs <= self._projection_epochs:
            log.warning(
                "trainer.max_epochs=%d ends within the first phase of %d epochs: the graph network stays untrained",
                epochs, self._projection_epochs,
            )  # fmt: skip

    def on_train_epoch_start(self) -> None:
        """Begins the second phase with the best projection of the first."""
        if self.current_epoch == self._projection_epochs and self._best is not None:
            self.net.projection.load_state_dict(self._best["weights"])
            log.info("second phase, with the projection of val/projection_map@10 %.4f", self._best["score"])
        self._tables.clear()  # raw descriptors make way for projected ones

    def training_step(self, batch: ShortlistBatch, batch_idx: int) -> Tensor:
        """Returns the loss: in the first phase that of the projection's cosines, then that of the refined ones."""
        first = self._first_phase
        loss = self._loss(batch.first(self._projection_hits if first else self.hits), first)
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True, sync_dist=True)
        if self.trainer.world_size > 1:  # what is idle in a phase must still take part in the exchange of gradients
            loss = loss + 0.0 * sum(each.sum() for each in self._idle())
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Keeps Adam from moving, or counting, what is idle in this phase."""
        for parameter in self._idle():
            parameter.grad = None

    def validation_step(self, batch: ShortlistBatch, batch_idx: int) -> None:
        """Adds up AP@10 of search, projection and network, its Recall@1, and the queries that have positives."""
        batch, first = batch.first(self.hits), self._first_phase
        projected, valid = self._projected(batch, "val")
        as_they_came = -torch.arange(batch.relevant.shape[1], device=projected.device).expand(batch.relevant.shape)
        found = [as_they_came, similarities(projected)]
        found.append(found[1] if first else self.net(projected, batch.affinities, valid))
        ignore = None if valid is None else ~valid
        precisions = [
            average_precision(each.float(), batch.relevant, ignore, 10, batch.positives).nan_to_num() for each in found
        ]
        hit = recall_at_k(found[-1].float(), batch.relevant, 1, ignore, batch.positives).nan_to_num()
        sums = torch.stack([*(values.sum() for values in (*precisions, hit)), (batch.positives > 0).sum()])
        self._sums = sums.double() if self._sums is None else self._sums + sums

    def on_validation_epoch_end(self) -> None:
        """Logs the means; in the first phase keeps the best projection. Every rank arrives at the same numbers."""
        own = torch.zeros(5, dtype=torch.float64, device=self.device) if self._sums is None else self._sums
        self._sums = None
        *sums, count = self.trainer.strategy.reduce(own.float(), reduce_op="sum").tolist()
        search, projection, network, recall = (value / max(count, 1) for value in sums)
        self.log("val/search_map@10", search)
        trained = not self._first_phase or not self.net.layers
        self.log("val/map@10", network if trained else 0.0, prog_bar=True)
        self.log("val/recall@1", recall if trained else 0.0)
        self.log("val/projection_map@10", projection, prog_bar=True)
        if (
            self._first_phase
            and not self.trainer.sanity_checking
            and projection > (self._best or {"score": -1})["score"]
        ):
            weights = {name: value.detach().cpu().clone() for name, value in self.net.projection.state_dict().items()}
            self._best = {"score": projection, "weights": weights}

    def on_fit_end(self) -> None:
        """Warns where nothing was gained, once the whole network was trained."""
        if self.net.layers and self.trainer.current_epoch <= self._projection_epochs:
            return
        values = self.trainer.callback_metrics
        reached, before = values.get("val/map@10"), values.get("val/search_map@10")
        if self.trainer.is_global_zero and reached is not None and before is not None and reached <= before:
            log.warning(
                "re-ranking doesn't help: val/map@10 is %.4f, that of the search's own order %.4f; train for longer "
                "(trainer.max_epochs), on more queries, or at another model.learning_rate", reached, before,
            )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the first phase has found, so that a run may be resumed between the phases."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[_BEST] = self._best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it up again."""
        self._best = checkpoint.get(_BEST)

    @property
    def _first_phase(self) -> bool:
        return self.current_epoch < self._projection_epochs

    @property
    def _frozen(self) -> bool:
        """Tells whether the projection stays as it is."""
        return self._lock and not self._first_phase and bool(self.net.layers)

    def _idle(self) -> list[Tensor]:
        """Returns the parameters that the current phase leaves alone."""
        projection = [] if self.net.projection is None else list(self.net.projection.parameters())
        if self._first_phase:
            own = set(map(id, projection))
            return [each for each in self.parameters() if id(each) not in own]
        return projection if self._frozen else []

    def _loss(self, batch: ShortlistBatch, first: bool) -> Tensor:
        projected, valid = self._projected(batch, "train")
        refined = projected if first else self.net.refine(projected, batch.affinities, valid)
        scores, relevant = similarities(refined).float(), batch.relevant
        exist = torch.ones_like(relevant) if valid is None else valid
        if self._loss_name == "ap":
            return quantized_ap_loss(scores, relevant, self._bins, ignore=~exist)
        if self.contrast is None or first:
            return contrastive_list_loss(scores, relevant, self._temperature, ~exist)
        nodes = F.pad(exist, (1, 0), value=True)
        return self.contrast(scores, relevant, refined, self.net.features(projected, batch.affinities, valid), nodes)

    def _projected(self, batch: ShortlistBatch, split: str) -> tuple[Tensor, Tensor | None]:
        """Returns projected descriptors (B, 1+K, P) and which hits exist (B, K), None where all do."""
        if batch.descriptors is not None:
            rows, valid, done = batch.descriptors, None, False
        else:
            table, done = self._table(split)
            rows, valid = table[batch.rows.clamp(min=0)], batch.rows[:, 1:] >= 0
            valid = None if bool(valid.all()) else valid
        if done:
            return rows, valid
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            return self.net.project(rows), valid

    def _table(self, split: str) -> tuple[Tensor, bool]:
        """Returns a split's descriptors on the device, and whether they are projected already."""
        done = self._cached and self._frozen
        if split not in self._tables:
            table = self.trainer.datamodule.descriptors(split)
            if done:
                with self._evaluating():
                    parts = [self.net.project(part.to(self.device).float()) for part in table.split(_ROWS)]
                table = torch.cat(parts)
            self._tables[split] = table.to(self.device)
        return self._tables[split], done

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.net.training
        self.net.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.net.train(training)

    def project(self, descriptors: Any) -> Tensor:
        """Returns (N, P) of descriptors (N, D): what `rerank(…, projected=True)` takes, to be computed once and kept.

        Raises ValueError for another D than the trained one, or where the model has no projection.
        """
        if self.net.projection is None:
            raise ValueError(
                "descriptors can't be projected: this model has no projection, it compares them as they are"
            )
        rows = read_rows("descriptors", descriptors, self.dimension).to(self.device)
        with self._evaluating():
            return torch.cat([self.net.project(part) for part in rows.split(_ROWS)])

    def rerank(self, query: Any, hits: Any, metadata: Any = None, projected: bool = False) -> tuple[Tensor, Tensor]:
        """Returns the new order (K,) int64 of the hits (K, D) of one query (D,), and their scores (K,) in that order.

        Arrays or tensors, from any database, nearest first; K and L = `anchors` may be smaller than in training, but a
        list that is much shorter gives the network less to go by. Equal scores keep their order. `metadata` holds what
        the model's affinities read, such as easting, northing and heading: columns (K,), or a mapping for each hit.
        With `projected`, query and hits are what `project` has returned. Raises ValueError for another D than the
        trained one, values that aren't finite, or metadata that lacks a field.
        """
        width = self.net.projection.out_features if projected and self.net.projection is not None else self.dimension
        expected = width if self.net.projection is not None else None
        hits = read_rows("hits", hits, expected).to(self.device)
        query = read_rows("query", query, hits.shape[1], one=True).to(self.device)
        if not len(hits):
            return torch.empty(0, dtype=torch.int64), torch.empty(0)
        affinities = None
        if self.affinities and self.net.layers:
            affinities = hit_affinities(self.affinities, self.anchors, metadata, len(hits)).to(self.device)
        both = torch.cat([query, hits])
        with self._evaluating():
            both = both if projected else self.net.project(both)
            scores = self.net(both[None], affinities)[0].float().cpu()
        scores = scores[first_alike(hits, affinities)]
        order = scores.argsort(descending=True, stable=True)
        return order, scores[order]

    @classmethod
    def tiny_training_batch(cls) -> ShortlistBatch:
        """Returns four made-up queries with five hits each."""
        generator = torch.Generator().manual_seed(0)
        count, hits, sizes = 4, cls.tiny["hits"], cls.tiny
        relevant = torch.zeros(count, hits, dtype=torch.bool)
        relevant[:, 1::2] = True
        return ShortlistBatch(
            index=torch.arange(count),
            relevant=relevant,
            positives=relevant.sum(1),
            descriptors=torch.randn(count, 1 + hits, sizes["dimension"], generator=generator),
            affinities=torch.rand(count, hits, len(sizes["affinities"]), sizes["anchors"], generator=generator),
        )

    @classmethod
    def tiny_hits(cls) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns a made-up query with seven hits and their headings."""
        generator = torch.Generator().manual_seed(1)
        rows = torch.randn(8, cls.tiny["dimension"], generator=generator)
        return rows[0], rows[1:], {"heading": 360 * torch.rand(7, generator=generator)}


export = GnnRerank
