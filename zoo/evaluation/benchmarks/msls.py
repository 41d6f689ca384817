"""Mapillary Street-Level Sequences: places within 25 m of the query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark, check_cut_offs
from zoo.evaluation.source import optional_path, own_lists
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.recall import RetrievalRecall
from zoo.truth import read_msls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class Msls(RankedBenchmark):
    """Recall@k (any hit) and mAP@k on MSLS as Sec. 3 of Hanning 2024 has it; parameters: `conf/benchmark/msls.yaml`.

    `root` is the folder that holds train_val and test, None for the data's own cities and truth. Every query that has a
    positive counts; an image within `radius` metres (inclusive) of it is positive whatever its heading; panoramas are
    neither queries nor gallery items.
    """

    name, title = "msls", "MSLS"
    settings = {"": Setting(("relevant",))}
    leaderboard: ClassVar[bool] = False

    def __init__(
        self,
        *,
        root: str | None,
        cities: Sequence[str],
        radius: float,
        k: Sequence[int],
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.root, self.cities, self.radius, self.k = optional_path("root", root), cities, radius, check_cut_offs(k)

    def metrics(self) -> list[Any]:
        """Returns mAP@k and Recall@k."""
        precision = [RetrievalMAP(k=k, convention="finite", per_query=True) for k in self.k]
        return precision + [RetrievalRecall(k=k, any_hit=True, per_query=True) for k in self.k]

    def read(self, source: Source) -> RelevanceLists:
        """Returns the database images near each query."""
        if self.root is None:
            return own_lists(source, None, self.name, argument="root")
        return read_msls(self.root, self.cities, radius=self.radius, leaderboard=self.leaderboard)

    def fingerprint_extras(self) -> dict[str, Any]:
        """Returns what defines the positives."""
        return {"radius": self.radius, "boundary": "inclusive", "heading": "ignored", "panoramas": "out"}


export = Msls
