"""Relational retrieval: does the order of the gallery by descriptor follow the order by scene-graph edit distance?"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.evaluation.pictures import ranked_sheet
from zoo.evaluation.protocol import Benchmark, Shard, hashed, ids_hash
from zoo.evaluation.rankings import RankedItem, RankedQuery, Rankings
from zoo.evaluation.report import Cell, Report, Row
from zoo.metrics.spearman import RankSpearman
from zoo.ops.distances import l2_distances
from zoo.truth import edit_distances
from zoo.truth.distance import EXACT_NODES, NODES
from zoo.types import Batch, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from torch import Tensor

    from zoo.evaluation.collect import Collected

log = logging.getLogger("zoo")

BASELINES = ("pixels", "random", "composition")
RANDOM_DIM = 256
METHODS = ("authors", "bipartite", "exact", "exact by relation")
_QUERIES_AT_ONCE = 64  # whose distances to the gallery are held while lists are kept


class Relational(Benchmark):
    """Mean Spearman correlation per query, Sec. 6 of Messina et al. 2018; parameters: `conf/benchmark/relational.yaml`.

    Raises ValueError for a baseline it doesn't know or fewer than one query.
    """

    name = "relational"

    def __init__(
        self,
        *,
        queries: int,
        nodes: Sequence[str],
        methods: Sequence[str],
        normalised: Sequence[bool],
        baselines: Sequence[str],
        agreement: bool,
        same_size: bool,
        published: Mapping[str, Sequence[float]],
        seed: int,
        sheet_queries: int,
        sheet_top: int,
        sheet_rows: Sequence[str],
        kept: int,
        cache: str,
    ) -> None:
        unknown = [name for name in baselines if name not in BASELINES]
        if unknown:
            raise ValueError(f"baselines must be among {', '.join(BASELINES)}, got {unknown}")
        for name, words, known in (("nodes", nodes, NODES), ("methods", methods, METHODS)):
            if isinstance(words, str) or not words or not set(words) <= set(known):
                raise ValueError(f"{name} must be a list of {', '.join(known)}, got {words!r}")
        if queries < 1:
            raise ValueError(f"queries must be at least 1, got {queries}")
        self.queries, self.columns = queries, [(how, policy) for how in methods for policy in nodes]
        self.normalised, self.baselines, self.agreement = normalised, baselines, agreement
        self.published, self.seed, self.cache = published, seed, os.path.expanduser(cache)
        self.sheet_queries, self.sheet_top, self.kept = sheet_queries, sheet_top, kept
        self.sheet_rows, self.same_size = sheet_rows, same_size

    def open(self, data: Any) -> None:
        """Raises ValueError where the data has no scene graphs."""
        if not hasattr(data, "scene_graphs"):
            raise ValueError(
                f"benchmark '{self.name}' needs scene graphs, data={name_of(data)} has none: choose sort_of_clevr or "
                "clevr, or another benchmark (zoo list benchmark)"
            )

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
        ids, graphs = data.ids(split), data.scene_graphs(split)
        parts = {
            "benchmark": self.name,
            "gallery": len(ids),
            "gallery_ids": ids_hash(ids),
            "queries": min(self.queries, len(ids)),
            "query_ids": ids_hash(ids[: self.queries]),
            "truth": graphs.fingerprint[:16],
            "metrics": sorted(_label(column) for column in self.columns),
            "distance": "L2, query left out, average ranks",
        }
        if self.same_size:
            parts["judged"] = "against items with as many objects as the query"
        return hashed(parts)

    def score(self, collected: Mapping[str, Collected], data: Any, shown: str, shard: Shard) -> Report:
        """Returns the table; collective: each rank scores its share of the queries, sums are exchanged.

        `shown` is the label of the model's own descriptor. Raises ValueError if descriptors of the gallery are missing.
        """
        gallery = collected["gallery"]
        missing = data.size(data.gallery_split) - len(gallery.index)
        if missing:
            raise ValueError(f"the whole gallery must be embedded, {missing} images are missing (limit_test_batches?)")
        queries = min(self.queries, len(gallery.index))
        own = shard.rows(queries)
        truths = {column: self._own_truth(data, *column, own) for column in self.columns}
        ignored = self._ignored(_sizes(data), own)
        rows = []
        baselines = self._data_vectors(data)
        if taken := baselines.keys() & gallery.vectors.keys():
            raise ValueError(f"a baseline is called {min(taken)!r} already: choose another label for the model beside")
        for label, vectors in {**gallery.vectors, **baselines}.items():
            for normalise in self.normalised:
                distances = l2_distances(vectors[own], vectors, normalise)
                cells = {
                    _label(column): _mean_spearman(distances, truth, own, ignored, queries, shard.device)
                    for column, truth in truths.items()
                }
                rows.append(Row(label, normalise, cells, self.published.get(label)))
        return Report(
            "Relational retrieval, Spearman's rho" + (", equal numbers of objects" if self.same_size else ""),
            rows,
            next(row for row in rows if row.label == shown),
            self.fingerprint(data),
            data.ids(data.gallery_split)[:queries],
            agreement=self._agreement(data, own, ignored, queries, shard.device),
            agreement_published=self.published,
            scores=gallery.scores,
        )

    def rankings(self, collected: Mapping[str, Collected], data: Any, report: Report) -> Rankings:
        """Returns the nearest items of every query by the own row's distance, each with its ground-truth distance."""
        split, names = data.gallery_split, data.ids(data.gallery_split)
        method, nodes = self.columns[0]
        truth, sizes = self.truth(data, method, nodes), _sizes(data)
        vectors = self._vectors(collected, data, report.own.label)
        queries = []
        for rows in torch.arange(len(report.query_ids)).split(_QUERIES_AT_ONCE):
            distances = self._distances(vectors, sizes, report.own, rows)
            order = distances.argsort(dim=1, stable=True)[:, : self.kept].tolist()
            for query, nearest, row in zip(rows.tolist(), order, distances, strict=True):
                items = [
                    RankedItem(names[item], -row[item].item(), note=f"ground truth {truth[query, item]:.3g}")
                    for item in nearest
                    if row[item] < torch.inf
                ]
                queries.append(RankedQuery(query, names[query], names[query], None, None, items))
        return Rankings(report.own.label, "L2 distance, negative", split, split, queries)

    def sheet(
        self, collected: Mapping[str, Collected], data: Any, report: Report, rankings: Rankings
    ) -> Image.Image | None:
        """Returns each query's nearest items by the own row, the `sheet_rows` there are, and the first ground truth."""
        shown = min(self.sheet_queries, len(report.query_ids))
        if not shown:
            return None
        queries, sizes, orders = torch.arange(shown), _sizes(data), {}
        for row in (report.own, *self._other_rows(report)):
            vectors = self._vectors(collected, data, row.label)
            title = row.label + (", L2-normalised" if row.normalised else "")
            orders[title] = self._distances(vectors, sizes, row, queries)
        method, nodes = self.columns[0]
        truth = torch.from_numpy(self.truth(data, method, nodes)[:shown].copy())
        truth = truth.masked_fill(self._ignored(sizes, queries), torch.inf)
        orders[f"ground truth (edit distance: {nodes}, {method})"] = truth
        return ranked_sheet(data, data.gallery_split, orders, truth, shown, self.sheet_top)

    def _other_rows(self, report: Report) -> list[Row]:
        found = {row.label: row for row in reversed(report.rows)}  # of raw and normalised the one that comes first
        absent = [label for label in self.sheet_rows if label not in found]
        if absent:
            log.warning("benchmark.sheet_rows: no row of the table is called %s", ", ".join(absent))
        return [found[label] for label in self.sheet_rows if label in found]

    def _vectors(self, collected: Mapping[str, Collected], data: Any, label: str) -> Tensor:
        known = collected["gallery"].vectors
        return known[label] if label in known else self._data_vectors(data)[label]

    def _distances(self, vectors: Tensor, sizes: Tensor, row: Row, queries: Tensor) -> Tensor:
        """Returns distances (q, N), infinite where a query isn't judged."""
        distances = l2_distances(vectors[queries], vectors, bool(row.normalised))
        return distances.masked_fill(self._ignored(sizes, queries), torch.inf)

    def _truths(self, data: Any) -> list[tuple[str, str]]:
        extra = [(method, "soft") for method in METHODS] if self._agrees(data) else []
        return list(dict.fromkeys([*self.columns, *extra]))

    def _own_truth(self, data: Any, method: str, nodes: str, own: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self.truth(data, method, nodes)[own.numpy()]))

    def _agrees(self, data: Any) -> bool:
        return self.agreement and int(data.scene_graphs(data.gallery_split).sizes.max()) <= EXACT_NODES

    def _ignored(self, sizes: Tensor, own: Tensor) -> Tensor:
        """Returns (q, N) bool: what a query is not judged against, itself and perhaps images of other `sizes` (N,)."""
        ignored = (sizes[own, None] != sizes) if self.same_size else torch.zeros((len(own), len(sizes)), dtype=bool)
        return ignored.scatter_(1, own[:, None], value=True)

    def _agreement(
        self, data: Any, own: Tensor, ignored: Tensor, queries: int, device: torch.device
    ) -> dict[str, Cell]:
        """Correlates the exact distance with the approximations (paper, Sec. 6: .89, not said of which exact form)."""
        if not self._agrees(data):
            return {}
        truth = {method: self._own_truth(data, method, "soft", own) for method in METHODS}
        pairs = [("exact", "bipartite"), ("exact", "authors"), ("exact by relation", "authors")]
        return {f"{a} ~ {b}": _mean_spearman(truth[a], truth[b], own, ignored, queries, device) for a, b in pairs}

    def _data_vectors(self, data: Any) -> dict[str, Tensor]:
        vectors = {}
        if "random" in self.baselines:
            generator = torch.Generator().manual_seed(self.seed)
            vectors["random"] = torch.randn(data.size(data.gallery_split), RANDOM_DIM, generator=generator)
        if "composition" in self.baselines:
            vectors["composition"] = torch.as_tensor(data.compositions(data.gallery_split))
        return vectors


def _sizes(data: Any) -> Tensor:
    """Returns (N,) the number of objects of every gallery image."""
    return torch.from_numpy(np.asarray(data.scene_graphs(data.gallery_split).sizes))


def _label(column: tuple[str, str]) -> str:
    return "spearman/" + "_".join(column)


def _mean_spearman(
    distances: Tensor, truth: Tensor, own: Tensor, ignored: Tensor, queries: int, device: torch.device
) -> Cell:
    metric = RankSpearman(per_query=True).to(device)
    if len(own):
        metric.update(distances, truth, ignore=ignored, query=own)
    return Cell.of(metric, queries)


export = Relational
