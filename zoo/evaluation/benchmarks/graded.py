"""Graded relevance: how good is the order, where some answers are better than others?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import GradedJudge, Judge
from zoo.evaluation.ranked import RankedBenchmark, check_cut_offs
from zoo.evaluation.source import input_path
from zoo.metrics.ndcg import RetrievalNDCG
from zoo.truth import read_graded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.source import Source
    from zoo.truth.relevance import GradedLists


class Graded(RankedBenchmark):
    """nDCG@k over stated gains (Järvelin and Kekäläinen 2002); parameters: `conf/benchmark/graded.yaml`.

    `ground_truth` is JSON {query: {item: gain}}, TREC qrels or a CSV with the columns query, item, gain; what it does
    not name has gain 0.
    """

    name, title = "graded", "Graded relevance"

    def __init__(
        self,
        *,
        ground_truth: str,
        k: Sequence[int | None],
        gain: str,
        leave_out_query: bool,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.ground_truth = input_path("ground_truth", ground_truth)
        self.gain, self.leave_out_query = gain, leave_out_query
        self.k = check_cut_offs(k, whole=True)
        self.metrics()  # refuses a gain that doesn't exist before anything is read

    def metrics(self) -> list[Any]:
        """Returns nDCG at each cut-off."""
        return [RetrievalNDCG(k=k, gain=self.gain, per_query=True) for k in self.k]

    def read(self, source: Source) -> GradedLists:
        """Returns the stated gains."""
        return read_graded(self.ground_truth)

    def judge_of(self, truth: GradedLists) -> Judge:
        """Returns the judge of the gains."""
        return GradedJudge(truth.pack(self.gallery_ids), self._own())


export = Graded
