"""Relational retrieval: does the order of the gallery by descriptor follow the order by scene-graph edit distance?"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo.evaluation.report import Cell, Report, Row
from zoo.metrics.spearman import RankSpearman
from zoo.ops.distances import l2_distances
from zoo.truth import edit_distances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.evaluation.collect import Collected
    from zoo.types import Batch

BASELINES = ("pixels", "random", "composition")
RANDOM_DIM = 256
AGREEMENT = ("exact", "exact by relation", "bipartite", "authors")
EXACT_NODES = 6  # more nodes a graph make the exact distance of millions of pairs infeasible


class Relational:
    """Mean Spearman correlation per query, Sec. 6 of Messina et al. 2018; parameters: `conf/benchmark/relational.yaml`.

    Raises ValueError for a baseline it doesn't know or fewer than one query.
    """

    def __init__(
        self,
        *,
        queries: int,
        nodes: Sequence[str],
        methods: Sequence[str],
        normalised: Sequence[bool],
        baselines: Sequence[str],
        agreement: bool,
        published: Mapping[str, Sequence[float]],
        seed: int,
        sheet_queries: int,
        sheet_top: int,
        cache: str,
    ) -> None:
        unknown = [name for name in baselines if name not in BASELINES]
        if unknown:
            raise ValueError(f"baselines must be among {', '.join(BASELINES)}, got {unknown}")
        if queries < 1:
            raise ValueError(f"queries must be at least 1, got {queries}")
        self.queries, self.columns = queries, [(how, policy) for how in methods for policy in nodes]
        self.normalised, self.baselines, self.agreement = normalised, baselines, agreement
        self.published, self.seed, self.cache = published, seed, os.path.expanduser(cache)
        self.sheet_queries, self.sheet_top = sheet_queries, sheet_top

    def prepare(self, data: Any) -> None:
        """Computes every ground truth that scoring needs and keeps it on disk, with a progress bar."""
        for method, nodes in self._truths(data):
            self.truth(data, method, nodes, progress=True)

    def truth(self, data: Any, method: str, nodes: str, progress: bool = False) -> np.ndarray:
        """Returns the edit distances (Q, N) of the gallery's first Q items to all N, read from disk where known.

        "exact by relation" compares the graphs of one relation each and adds up, as the authors' approximation does.
        """
        graphs = data.scene_graphs(data.gallery_split)
        parts = [graphs]
        if method == "exact by relation":
            method, parts = "exact", [graphs.relation(number) for number in range(graphs.relations)]
        return sum(
            edit_distances(part[: self.queries], part, nodes, method, 10, progress, self.cache) for part in parts
        )

    def extra_vectors(self, batch: Batch) -> dict[str, Tensor]:
        """Returns what a baseline needs of the images besides the model's descriptors."""
        if "pixels" not in self.baselines:
            return {}
        return {"pixels": (batch.images * 255).round().to(torch.uint8).flatten(1)}

    def fingerprint(self, data: Any) -> dict[str, Any]:
        """Returns what makes two results comparable, and its hash."""
        split = data.gallery_split
        graphs = data.scene_graphs(split)
        parts = {
            "benchmark": "relational",
            "gallery": data.size(split),
            "queries": min(self.queries, data.size(split)),
            "ids": hashlib.sha256("\n".join(data.ids(split)).encode()).hexdigest()[:16],
            "graphs": graphs.fingerprint,
            "columns": [f"{method} {nodes}" for method, nodes in self.columns],
            "distance": "L2, query left out, average ranks",
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return {**parts, "hash": digest}

    def score(self, collected: Collected, data: Any, shown: str, rank: int, world: int, device: torch.device) -> Report:
        """Returns the table; collective: each rank scores its share of the queries, sums are exchanged.

        `shown` is the label of the model's own descriptor. Raises ValueError if descriptors of the gallery are missing.
        """
        missing = data.size(data.gallery_split) - len(collected.index)
        if missing:
            raise ValueError(f"the whole gallery must be embedded, {missing} images are missing (limit_test_batches?)")
        own = torch.arange(rank, min(self.queries, len(collected.index)), world)
        truths = {column: self._own_truth(data, *column, own) for column in self.columns}
        rows = []
        for label, vectors in {**collected.vectors, **self._data_vectors(data)}.items():
            for normalise in self.normalised:
                distances = l2_distances(*_pick(vectors, own, normalise))
                cells = {column: _mean_spearman(distances, truth, own, device) for column, truth in truths.items()}
                rows.append(Row(label, normalise, cells, self.published.get(label)))
        return Report(
            rows,
            self._agreement(data, own, device),
            collected.scores,
            self.fingerprint(data),
            next(row for row in rows if row.label == shown),
        )

    def sheet_distances(self, collected: Collected, row: Row) -> Tensor:
        """Returns the distances (sheet queries, N) of the row that the contact sheet shows."""
        own = torch.arange(min(self.sheet_queries, len(collected.index)))
        return l2_distances(*_pick(collected.vectors[row.label], own, row.normalised))

    def _truths(self, data: Any) -> list[tuple[str, str]]:
        extra = [(method, "soft") for method in AGREEMENT] if self._agrees(data) else []
        return list(dict.fromkeys([*self.columns, *extra]))

    def _own_truth(self, data: Any, method: str, nodes: str, own: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self.truth(data, method, nodes)[own.numpy()]))

    def _agrees(self, data: Any) -> bool:
        return self.agreement and int(data.scene_graphs(data.gallery_split).sizes.max()) <= EXACT_NODES

    def _agreement(self, data: Any, own: Tensor, device: torch.device) -> dict[str, Cell]:
        """Correlates the exact distance with the approximations (paper, Sec. 6: .89, not said of which exact form)."""
        if not self._agrees(data):
            return {}
        truth = {method: self._own_truth(data, method, "soft", own) for method in AGREEMENT}
        pairs = [("exact", "bipartite"), ("exact", "authors"), ("exact by relation", "authors")]
        return {f"{a} ~ {b}": _mean_spearman(truth[a], truth[b], own, device) for a, b in pairs}

    def _data_vectors(self, data: Any) -> dict[str, Tensor]:
        vectors = {}
        if "random" in self.baselines:
            generator = torch.Generator().manual_seed(self.seed)
            vectors["random"] = torch.randn(data.size(data.gallery_split), RANDOM_DIM, generator=generator)
        if "composition" in self.baselines:
            vectors["composition"] = torch.as_tensor(data.compositions(data.gallery_split))
        return vectors


def _pick(vectors: Tensor, own: Tensor, normalise: bool) -> tuple[Tensor, Tensor]:
    vectors = F.normalize(vectors.float(), dim=1) if normalise else vectors
    return vectors[own], vectors


def _mean_spearman(distances: Tensor, truth: Tensor, own: Tensor, device: torch.device) -> Cell:
    metric = RankSpearman(per_query=True).to(device)
    if len(own):
        itself = torch.zeros(distances.shape, dtype=torch.bool).scatter_(1, own[:, None], value=True)
        metric.update(distances, truth, ignore=itself, query=own)
    ids, values = metric.per_query_values()
    return Cell(
        metric.compute().item(), metric.half_width().item(), dict(zip(ids.tolist(), values.tolist(), strict=True))
    )


export = Relational
