"""INSTRE: boxed queries for instances of buildings, flat and solid objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark
from zoo.evaluation.source import optional_path, own_lists
from zoo.metrics.map import RetrievalMAP
from zoo.truth.readers import read_instre

if TYPE_CHECKING:
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class Instre(RankedBenchmark):
    """Trapezoidal mAP over the 1,250 queries of Iscen et al. 2017; parameters: `conf/benchmark/instre.yaml`.

    `ground_truth` is gnd_instre.mat, None for the data's own. Queries are cut to their boxes and lie outside the
    gallery; average precision is that of the program published with Holidays, as in the authors' evaluation.
    """

    name, title = "instre", "INSTRE"
    settings = {"": Setting(("relevant",))}

    def __init__(self, *, ground_truth: str | None, **shared: Any) -> None:
        super().__init__(**shared)
        self.ground_truth = optional_path("ground_truth", ground_truth)

    def metrics(self) -> list[Any]:
        """Returns the mean average precision."""
        return [RetrievalMAP(k=None, convention="trapezoid", per_query=True)]

    def read(self, source: Source) -> RelevanceLists:
        """Returns the positives of each query."""
        return own_lists(source, self.ground_truth, self.name, read_instre)


export = Instre
