"""Oxford5k and Paris6k as first published: good and ok images are relevant, junk is taken out of the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.ranked import RankedBenchmark
from zoo.evaluation.source import input_path
from zoo.metrics.map import RetrievalMAP
from zoo.truth import read_gnd
from zoo.truth.regroup import merged

if TYPE_CHECKING:
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class Oxford(RankedBenchmark):
    """Trapezoidal mAP over the queries of Philbin et al. 2007; parameters: `conf/benchmark/oxford.yaml`.

    `ground_truth` is a gnd_*.pkl, its JSON form, or the folder of the published text files. Queries are cut to their
    boxes and stay in the gallery, where their own image counts as the truth says.
    """

    name, title = "oxford", "Oxford/Paris, classic"

    def __init__(self, *, ground_truth: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.ground_truth = input_path("ground_truth", ground_truth)

    def metrics(self) -> list[Any]:
        """Returns the mean average precision of the original evaluation program."""
        return [RetrievalMAP(k=None, convention="trapezoid", per_query=True)]

    def read(self, source: Source) -> RelevanceLists:
        """Returns good and ok images as one group, relevant."""
        return merged(read_gnd(self.ground_truth), {"relevant": ("good", "ok"), "junk": ("junk",)})


export = Oxford
