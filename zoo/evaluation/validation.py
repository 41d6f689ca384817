"""Ranks the validation split after every epoch, for every model in the same way and under the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from zoo.evaluation.collect import Collected, Collector
from zoo.evaluation.pictures import ranked_sheet
from zoo.metrics.functional import spearman
from zoo.ops.distances import l2_distances
from zoo.truth import edit_distances
from zoo.truth.distance import EXACT_NODES

if TYPE_CHECKING:
    from torch import Tensor

QUERIES = 500  # as the benchmark has by default; all images of a large split would take hours and gigabytes


class RankingValidation(lightning.Callback):
    """Logs `val/<task score>` and, where the data has scene graphs, `val/spearman` and a picture of ranked results.

    `val/spearman` is the mean over the first 500 validation images as queries against all, descriptor distance (L2)
    against the edit distance between scene graphs, the query left out. The edit distances are those that the data is
    asked for in training (its `truth`; the mean over several), else the soft one (exact, bipartite if a graph has more
    than six nodes). The picture goes to loggers that take one.
    """

    def __init__(self) -> None:
        self._collector = Collector()
        self._truths: dict[str, Tensor] = {}

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Starts anew."""
        self._collector = Collector()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps what `validation_step` returned; nothing of a model that judges itself."""
        if pl_module.judges_itself:
            return
        self._collector.add(outputs["index"], {"vector": outputs["vector"].float()}, outputs["scores"])

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Gathers, ranks and logs; every rank arrives at the same numbers."""
        if pl_module.judges_itself:
            return
        collected = self._collector.gather(pl_module.device)
        for name, value in collected.scores.items():
            pl_module.log(f"val/{name}", value, prog_bar=name == "accuracy", sync_dist=True)
        if _has_scene_graphs(trainer.datamodule):
            self._rank(trainer, pl_module, collected)

    def _rank(self, trainer: Any, pl_module: Any, collected: Collected) -> None:
        vectors, index = collected.vectors["vector"], collected.index
        queries = index[index < QUERIES]
        truths = {name: truth[queries][:, index] for name, truth in self._distances(trainer.datamodule).items()}
        distances = l2_distances(vectors[: len(queries)], vectors)
        itself = torch.eye(*distances.shape, dtype=torch.bool)
        # A plain number: Lightning would reduce a CPU tensor where it is, which NCCL can't.
        values = [spearman(distances, truth, ignore=itself).nanmean().item() for truth in truths.values()]
        value = sum(values) / len(values)
        pl_module.log("val/spearman", value, prog_bar=True, sync_dist=True)
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if loggers and trainer.is_global_zero and not trainer.sanity_checking:
            name, truth = next(iter(truths.items()))
            orders = {"model": distances, f"ground truth (edit distance: {name})": truth}
            picture = ranked_sheet(trainer.datamodule, trainer.datamodule.val_split, orders, truth, queries=3, top=10)
            for logger in loggers:
                logger.log_image("val/ranked", [picture], step=trainer.global_step)

    def _distances(self, data: Any) -> dict[str, Tensor]:
        if not self._truths:
            graphs = data.scene_graphs(data.val_split)
            usual = "exact" if int(graphs.sizes.max()) <= EXACT_NODES else "bipartite"
            for nodes, method in getattr(data, "truth", ()) or [("soft", usual)]:
                distances = edit_distances(graphs[:QUERIES], graphs, nodes=nodes, method=method)
                self._truths[f"{nodes}, {method}"] = torch.from_numpy(np.array(distances))
        return self._truths


def _has_scene_graphs(data: Any) -> bool:
    """Tells whether images to rank are described; some data has scene graphs in some splits alone."""
    if hasattr(data, "has_scene_graphs"):
        return data.has_scene_graphs(data.val_split)
    return hasattr(data, "scene_graphs")
