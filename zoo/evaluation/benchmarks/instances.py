"""Leave-one-out retrieval by label: every image asks for the others of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark, check_cut_offs
from zoo.evaluation.source import input_path
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.recall import RetrievalRecall
from zoo.truth.regroup import from_labels, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class Instances(RankedBenchmark):
    """mAP and Recall@k (any hit), each image a query in turn; parameters: `conf/benchmark/instances.yaml`.

    Labels are those of the data (the folder an image lies in), or of a CSV file with the columns image, label. Where
    the data has a table, each of its rows is a query instead, cut to its box. An image alone in its class has nothing
    to find and is left out of the means.
    """

    name, title = "instances", "Instances, leave one out"
    settings = {"": Setting(("relevant",))}
    leave_out_query = True

    def __init__(
        self,
        *,
        labels: str | None,
        k: Sequence[int],
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.labels = None if labels is None else input_path("labels", labels)
        self.k = check_cut_offs(k)

    def metrics(self) -> list[Any]:
        """Returns mAP and Recall@k."""
        recalls = [RetrievalRecall(k=k, any_hit=True, per_query=True) for k in self.k]
        return [RetrievalMAP(k=None, convention="finite", per_query=True), *recalls]

    def read(self, source: Source) -> RelevanceLists:
        """Returns for each image the others of its label; raises ValueError where nobody states labels."""
        table = getattr(source.data, "table", None) if self.labels is None else None
        if table is not None:
            return source.data.ground_truth()
        if not source.queries_in_gallery:
            raise ValueError(f"benchmark '{self.name}' asks with every image of the gallery: leave out data.queries")
        if self.labels is not None:
            names, labels = read_labels(self.labels)
            labelled = set(names)
            unlabelled = [name for name in source.gallery_ids or () if name not in labelled]
            if unlabelled and self.incomplete == "refuse":
                raise ValueError(
                    f"labels must name every image of the gallery, {len(unlabelled)} are missing, '{unlabelled[0]}' "
                    "first; benchmark.incomplete=restrict leaves them out (another protocol)"
                )
            return from_labels(names, labels)
        if not hasattr(source.data, "labels"):
            wanted = "set benchmark.labels to a CSV file, or data=folder with a folder for each class"
            raise ValueError(f"benchmark '{self.name}': {wanted}")
        split = source.data.gallery_split
        return from_labels(source.data.ids(split), source.data.labels(split))


export = Instances
