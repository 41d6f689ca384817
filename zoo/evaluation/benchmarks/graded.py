"""Graded relevance: how good is the order, where some answers are better than others?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import GradedJudge, Judge
from zoo.evaluation.protocol import short_hash
from zoo.evaluation.ranked import RankedBenchmark, check_cut_offs
from zoo.evaluation.source import input_path
from zoo.metrics.ndcg import RetrievalNDCG
from zoo.truth import read_graded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.report import Report, Row
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import GradedLists

CANDIDATES = ("gallery", "listed")


class Graded(RankedBenchmark):
    """nDCG@k over stated gains (Järvelin and Kekäläinen 2002); parameters: `conf/benchmark/graded.yaml`.

    `ground_truth` is JSON {query: {item: gain}}, TREC qrels or a CSV with the columns query, item, gain. `candidates`
    says what each query ranks: "gallery", all of it, what the truth does not name having gain 0; or "listed", the items
    named for this query alone, as in rPascal and rImageNet, whose 50 queries have 180 and 305 references each on the
    average (Sec. 4.5 of Furuta et al. 2018). The layout in which Prabhu and Venkatesh Babu (2015) hand out those two
    is not documented publicly: write their relevance, every reference of a query with gain 0 … 3, in one of the forms
    above. Results have the curve over k, as in Fig. 7 there, in table.md and curve.png.
    """

    name, title = "graded", "Graded relevance"

    def __init__(
        self,
        *,
        ground_truth: str,
        k: Sequence[int | None],
        gain: str,
        candidates: str,
        leave_out_query: bool,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.ground_truth = input_path("ground_truth", ground_truth)
        if candidates not in CANDIDATES:
            raise ValueError(f"candidates must be one of {', '.join(CANDIDATES)}, got {candidates!r}")
        self.gain, self.candidates, self.leave_out_query = gain, candidates, leave_out_query
        self.k = check_cut_offs(k, whole=True)
        self.metrics()  # refuses a gain that doesn't exist before anything is read

    def metrics(self) -> list[Any]:
        """Returns nDCG at each cut-off."""
        return [RetrievalNDCG(k=k, gain=self.gain, per_query=True) for k in self.k]

    def read(self, source: Source) -> GradedLists:
        """Returns the stated gains; where nothing else is ranked, the gallery is what they name."""
        truth = read_graded(self.ground_truth)
        if self.candidates == "gallery":
            return truth
        return replace(truth, gallery_ids=tuple(sorted({item for gains in truth.gains for item in gains})))

    def judge_of(self, truth: GradedLists) -> Judge:
        """Returns the judge of the gains."""
        self._listed_hash = short_hash(
            json.dumps(sorted([q, sorted(g)] for q, g in zip(truth.query_ids, truth.gains, strict=True)))
        )
        return GradedJudge(truth.pack(self.gallery_ids), self._own(), self.candidates == "listed")

    def fingerprint_extras(self) -> dict[str, Any]:
        """Returns what each query ranks, where that isn't the gallery."""
        return {} if self.candidates == "gallery" else {"candidates": self.candidates, "listed": self._listed_hash}

    def report(self, rows: Sequence[Row], own: Row) -> Report:
        """Returns the report, with nDCG over the cut-offs."""
        return replace(super().report(rows, own), curve="ndcg" if self.gain == "linear" else "ndcg_exp")


export = Graded
