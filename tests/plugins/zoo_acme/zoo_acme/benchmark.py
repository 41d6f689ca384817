"""Pictures of shelves: those of the same shelf, by their names, are relevant to one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark
from zoo.metrics.map import RetrievalMAP
from zoo.truth.regroup import from_labels

if TYPE_CHECKING:
    from zoo.evaluation.source import Source
    from zoo.truth import RelevanceLists


class Shelves(RankedBenchmark):
    """mAP where an image called `<shelf><separator><anything>` asks for the others of its shelf."""

    name, title = "acme_shelves", "Acme's shelves"
    settings = {"": Setting(("relevant",))}
    leave_out_query = True

    def __init__(self, *, separator: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.separator = separator

    def metrics(self) -> list[Any]:
        """Returns mAP."""
        return [RetrievalMAP(k=None, convention="finite", per_query=True)]

    def read(self, source: Source) -> RelevanceLists:
        """Returns for each gallery image the others of its shelf."""
        return from_labels(source.gallery_ids, [name.split(self.separator)[0] for name in source.gallery_ids])
