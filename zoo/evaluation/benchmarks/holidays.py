"""INRIA Holidays: the first photo of each group asks for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark
from zoo.evaluation.source import read_ids
from zoo.metrics.map import RetrievalMAP
from zoo.truth.readers import holidays_lists

if TYPE_CHECKING:
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class Holidays(RankedBenchmark):
    """Trapezoidal mAP as in the evaluation program of Jégou et al. 2008; parameters: `conf/benchmark/holidays.yaml`.

    The names of the gallery tell which images are queries and what is relevant; a query's own image is taken out of its
    list. Images named otherwise are distractors.
    """

    name, title = "holidays", "INRIA Holidays"
    settings = {"": Setting(("relevant",))}
    leave_out_query = True

    def metrics(self) -> list[Any]:
        """Returns the mean average precision of the published evaluation program."""
        return [RetrievalMAP(k=None, convention="trapezoid", per_query=True)]

    def read(self, source: Source) -> RelevanceLists:
        """Returns the groups of the gallery's names; raises ValueError where nobody states them or they are others."""
        names = read_ids(self.gallery) if self.gallery else source.gallery_ids
        if names is None:
            wanted = "set benchmark.gallery to a text file with a name a line, or choose data=holidays"
            raise ValueError(f"benchmark '{self.name}': nothing names the whole gallery: {wanted}")
        return holidays_lists(names)


export = Holidays
