"""Any ground truth that lists, for each query, what is relevant: one's own, or that of place recognition sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.ranked import RankedBenchmark, check_cut_offs
from zoo.evaluation.source import input_path
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.recall import RetrievalRecall
from zoo.truth import read_gnd
from zoo.truth.regroup import merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class RelevanceListsBenchmark(RankedBenchmark):
    """mAP and Recall@k (any hit); parameters: `conf/benchmark/lists.yaml`.

    `ground_truth` is JSON {query: [items]}, {query: {"relevant": [items], "junk": [items]}}, or by position
    [[query, [items]], …] as VPR-Bench has it.
    """

    name, title = "lists", "Relevance lists"

    def __init__(
        self,
        *,
        ground_truth: str,
        k: Sequence[int],
        leave_out_query: bool,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.ground_truth, self.k, self.leave_out_query = (
            input_path("ground_truth", ground_truth),
            check_cut_offs(k),
            leave_out_query,
        )

    def metrics(self) -> list[Any]:
        """Returns mAP and Recall@k."""
        recalls = [RetrievalRecall(k=k, any_hit=True, per_query=True) for k in self.k]
        return [RetrievalMAP(k=None, convention="finite", per_query=True), *recalls]

    def read(self, source: Source) -> RelevanceLists:
        """Returns the lists of the file."""
        return merged(read_gnd(self.ground_truth), {"relevant": ("relevant",), "junk": ("junk",)})


export = RelevanceListsBenchmark
