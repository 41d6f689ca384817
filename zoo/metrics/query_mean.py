"""Mean of one value per query, with its confidence interval: what every metric class derives from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scipy.special import stdtrit
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class QueryMean(Metric):
    """Averages a value over queries and says how far off the average may be.

    `compute()` is the mean over the queries for which the value is defined, a float64 scalar; `half_width()` the half
    of its 95 % t-interval; the state `undefined` counts the queries left out. All come from sums (x, x², n), so that
    uneven batches and ranks without any query give the figures of one process, up to the order of summation. With
    `per_query` the metric also keeps one id and one value per query for `per_query_values()`. `label` names the measure
    with the settings that it depends on; no two measures share one.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    total: Tensor
    square: Tensor
    count: Tensor
    undefined: Tensor
    ids: list[Tensor]
    values: list[Tensor]

    def __init__(self, label: str, *, per_query: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label = label
        self.per_query = per_query
        sums = {"total": torch.float64, "square": torch.float64, "count": torch.int64, "undefined": torch.int64}
        # MetricCollection lets metrics of the same states share one of them from the first batch on, if the values
        # happen to agree there, as recall@5 and recall@10 do. A state of its own name prevents that.
        for name, dtype in {**sums, f"measures {label}": torch.int64}.items():
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        if per_query:
            self.add_state("ids", [], dist_reduce_fx="cat")
            self.add_state("values", [], dist_reduce_fx="cat")

    def add(self, values: Tensor, query: Tensor | None) -> None:
        """Adds `values (Q,)` float64, NaN where undefined, of the queries with the ids `query (Q,)` int64.

        Raises ValueError for ids that do not fit, or that `per_query` needs and that are missing.
        """
        if query is not None and (query.shape != values.shape or query.dtype != torch.int64):
            raise ValueError(
                f"query must be int64 of shape ({len(values)},), one id per row, "
                f"got {query.dtype} of shape {tuple(query.shape)}"
            )
        if self.per_query:
            if query is None:
                raise ValueError("query must hold the queries' ids when per_query is set, got None")
            self.ids.append(query.to(self.total.device))
            self.values.append(values.to(self.total.device))
        defined = values[~values.isnan()].to(self.total.device)
        self.total += defined.sum()
        self.square += defined.square().sum()
        self.count += len(defined)
        self.undefined += len(values) - len(defined)

    def compute(self) -> Tensor:
        """Returns the mean over the defined queries of all ranks, NaN where there are none."""
        return self.total / self.count

    def half_width(self) -> Tensor:
        """Returns the half-width of the mean's 95 % t-interval over all ranks, NaN for fewer than two queries.

        A collective call under DDP: every rank has to make it.
        """
        with self._over_ranks():
            total, square, count = self.total, self.square, int(self.count)
        if count < 2:
            return torch.full_like(total, torch.nan)
        variance = (square - total.square() / count).clamp(min=0) / (count - 1)
        return float(stdtrit(count - 1, 0.975)) * (variance / count).sqrt()

    def per_query_values(self) -> tuple[Tensor, Tensor]:
        """Returns ids (Q,) int64, ascending, and values (Q,) float64 of all ranks, NaN where undefined.

        A collective call under DDP: every rank has to make it. Raises RuntimeError unless `per_query` is set.
        """
        if not self.per_query:
            raise RuntimeError("per_query_values needs per_query=True, got per_query=False")
        with self._over_ranks():
            self._fill_empty_lists()
            ids, values = dim_zero_cat(self.ids), dim_zero_cat(self.values)
        order = ids.argsort(stable=True)
        return ids[order], values[order]

    def _over_ranks(self) -> AbstractContextManager[None]:
        # A caller who has synchronised by hand has the sums of all ranks already, and keeps them.
        alone = not self._is_synced
        return self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=alone, should_unsync=alone)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Synchronises the states over ranks, of which some may have seen no query."""
        # torchmetrics would send an empty list as float32, which the other ranks' int64 and float64 don't match.
        self._fill_empty_lists()
        super().sync(*args, **kwargs)

    def _fill_empty_lists(self) -> None:
        if self.per_query and isinstance(self.ids, list) and not self.ids:
            self.ids.append(self.count.new_empty(0))
            self.values.append(self.total.new_empty(0))
