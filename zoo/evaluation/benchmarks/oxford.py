"""Oxford5k and Paris6k as first published: good and ok images are relevant, junk is taken out of the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.ranked import RankedBenchmark
from zoo.evaluation.source import optional_path, own_lists
from zoo.metrics.map import RetrievalMAP
from zoo.truth.regroup import merged

if TYPE_CHECKING:
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class Oxford(RankedBenchmark):
    """Trapezoidal mAP over the queries of Philbin et al. 2007; parameters: `conf/benchmark/oxford.yaml`.

    `ground_truth` is a gnd_*.pkl, its JSON form, or the folder of the published text files, None for the data's own.
    Queries are cut to their boxes and stay in the gallery, where their own image counts as the truth says.
    """

    name, title = "oxford", "Oxford/Paris, classic"

    def __init__(self, *, ground_truth: str | None, **shared: Any) -> None:
        super().__init__(**shared)
        self.ground_truth = optional_path("ground_truth", ground_truth)

    def metrics(self) -> list[Any]:
        """Returns the mean average precision of the original evaluation program."""
        return [RetrievalMAP(k=None, convention="trapezoid", per_query=True)]

    def read(self, source: Source) -> RelevanceLists:
        """Returns good and ok images as one group, relevant."""
        lists = own_lists(source, self.ground_truth, self.name)
        return merged(lists, {"relevant": ("good", "ok"), "junk": ("junk",)})


export = Oxford
