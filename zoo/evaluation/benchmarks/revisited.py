"""Revisited Oxford and Paris: Easy, Medium and Hard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark, check_cut_offs
from zoo.evaluation.source import optional_path, own_lists
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.precision import RetrievalPrecision
from zoo.truth.regroup import merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists

SETTINGS = {
    "easy": Setting(("easy",), ("junk", "hard")),
    "medium": Setting(("easy", "hard"), ("junk",)),
    "hard": Setting(("hard",), ("junk", "easy")),
}


class Revisited(RankedBenchmark):
    """mAP and mP@k of Radenović et al. 2018, Sec. 3; parameters: `conf/benchmark/revisited.yaml`.

    `ground_truth` None is the data's own. What a setting ignores is taken out before counting; a query without
    positives in a setting is left out of it. Raises ValueError for a setting it doesn't know.
    """

    name, title = "revisited", "Revisited Oxford/Paris"

    def __init__(
        self,
        *,
        ground_truth: str | None,
        settings: Sequence[str],
        k: Sequence[int],
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        unknown = [name for name in settings if name not in SETTINGS]
        if unknown or not settings:
            raise ValueError(f"settings must be among {', '.join(SETTINGS)}, got {list(settings)}")
        self.ground_truth, self.k = optional_path("ground_truth", ground_truth), check_cut_offs(k)
        self.settings = {name: SETTINGS[name] for name in settings}
        self.shown_setting = "medium" if "medium" in settings else settings[0]

    def metrics(self) -> list[Any]:
        """Returns mAP and mP@k, k capped at the last relevant rank as the public evaluator does."""
        precisions = [RetrievalPrecision(k=k, capped=True, per_query=True) for k in self.k]
        return [RetrievalMAP(k=None, convention="trapezoid", per_query=True), *precisions]

    def read(self, source: Source) -> RelevanceLists:
        """Returns the easy, hard and junk images of each query."""
        lists = own_lists(source, self.ground_truth, self.name)
        return merged(lists, {name: (name,) for name in ("easy", "hard", "junk")})


export = Revisited
