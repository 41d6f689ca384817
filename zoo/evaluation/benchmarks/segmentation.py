"""Segmentation: do the probability maps tell the class of every pixel?"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from zoo.checks import check_integers
from zoo.evaluation.label_pictures import label_sheet
from zoo.evaluation.protocol import Benchmark, Shard, hashed, ids_hash, short_hash
from zoo.evaluation.report import Cell, Report, Row
from zoo.evaluation.tables import Table, mean_and_interval
from zoo.metrics.functional.segmentation import (
    class_accuracy,
    intersection_over_union,
    label_confusion,
    pixel_accuracy,
)
from zoo.types import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from PIL import Image
    from torch import Tensor

    from zoo.evaluation.collect import Collected
    from zoo.evaluation.rankings import Rankings
    from zoo.types import Batch, Role

METRICS = {"miou": intersection_over_union, "class_accuracy": class_accuracy}


@dataclass(frozen=True)
class SegmentationReport(Report):
    """A report whose queries are the classes; `accuracies` label of a row → share of the pixels that are right.

    `shares` are those of the classes in the truth.
    """

    accuracies: Mapping[str, float] = field(default_factory=dict)
    shares: tuple[float, ...] = ()

    def tables(self) -> list[Table]:
        """Returns one table: IoU of every class, and the means."""
        title = f"{self.title}, intersection over union ({self.fingerprint['gallery']} images)"
        lines = [
            [name, f"{100 * share:.2f} %", *(_shown(row.cells["miou"].per_query[place]) for row in self.rows)]
            for place, (name, share) in enumerate(zip(self.query_ids, self.shares, strict=True))
        ]
        means = {
            "mean IoU": [row.cells["miou"].mean for row in self.rows],
            "mean class accuracy": [row.cells["class_accuracy"].mean for row in self.rows],
            "pixel accuracy": [self.accuracies[row.label] for row in self.rows],
        }
        lines += [[name, "", *map(_shown, values)] for name, values in means.items()]
        notes = ["–: a class that no pixel has and that none was taken for; the mean leaves it out"]
        undefined = any(math.isnan(value) for row in self.rows for value in row.cells["miou"].per_query)
        headers = ["class", "of the pixels", *(row.label for row in self.rows)]
        return [Table(title, headers, lines, notes=notes if undefined else ())]


class Segmentation(Benchmark):
    """IoU of every class, mean IoU and pixel accuracy; parameters: `conf/benchmark/segmentation.yaml`.

    Probability maps are enlarged to the label maps, which are as large as their files have them, and each pixel gets
    the most probable class. In results.json the classes stand where queries stand elsewhere. Raises ValueError for a
    negative number of pictures.
    """

    name = "segmentation"

    def __init__(self, *, sheet_images: int) -> None:
        check_integers(0, sheet_images=sheet_images)
        self.sheet_images = sheet_images
        self._predicted: dict[int, np.ndarray] = {}

    def check(self, model: Any, data: Any) -> None:
        """Raises ValueError for a model without probability maps, or of other classes than the data's."""
        if "probability_map" not in model.kinds:
            raise ValueError(
                f"benchmark '{self.name}' needs the representation fields ['probability_map'], the model fills "
                f"{list(model.kinds)}"
            )
        if hasattr(data, "classes"):
            _order(model, data)

    def open(self, data: Any) -> None:
        """Raises ValueError where the data has no label maps, and what opening it raises."""
        if not hasattr(data, "label_map"):
            name = name_of(data)
            raise ValueError(
                f"benchmark '{self.name}' needs label maps, data={name} has none: choose label_maps, camvid, voc or "
                "pascal_context"
            )
        data.setup("test")
        self._predicted = {}

    def described(self, model: Any, batch: Batch, role: Role) -> dict[str, Tensor]:
        """Returns nothing: no descriptors are compared."""
        return {}

    def tally(self, model: Any, batch: Batch, data: Any) -> Tensor:
        """Returns the confusion matrix (C, C) of the batch, in the order of the data's classes.

        Raises ValueError for a model without probability maps, or of other classes.
        """
        represented = model.embed(batch)
        represented.require(["probability_map"], f"benchmark '{self.name}'")
        order, split = _order(model, data), data.gallery_split
        shown = self._positions(data.size(split))
        total = torch.zeros(len(order), len(order), dtype=torch.int64, device=batch.index.device)
        for position, maps in zip(batch.index.tolist(), represented.probability_map, strict=True):
            truth = torch.from_numpy(data.label_map(split, position)).to(maps.device)
            large = F.interpolate(maps[None, order], truth.shape, mode="bilinear", align_corners=False)
            predicted = large[0].argmax(0)
            total += label_confusion(predicted, truth, len(order))
            if position in shown and position not in self._predicted:  # companions come later
                self._predicted[position] = predicted.cpu().numpy()
        return total

    def score(self, collected: Mapping[str, Collected], data: Any, shown: str, shard: Shard) -> Report:
        """Returns the report; collective. Raises ValueError if images are missing."""
        gallery, split = collected["gallery"], data.gallery_split
        missing = data.size(split) - len(gallery.index)
        if missing:
            raise ValueError(f"every image must be judged, {missing} are missing (limit_test_batches?)")
        self._gather()
        rows = [Row(label, None, _cells(confusion)) for label, confusion in gallery.sums.items()]
        accuracies = {label: pixel_accuracy(confusion).item() for label, confusion in gallery.sums.items()}
        counts = gallery.sums[shown].sum(1)
        return SegmentationReport(
            "Segmentation",
            rows,
            next(row for row in rows if row.label == shown),
            self._fingerprint(data, counts),
            data.classes.names,
            scores={"pixel_accuracy": accuracies[shown]},
            accuracies=accuracies,
            shares=tuple((counts.double() / counts.sum()).tolist()),
        )

    def sheet(
        self, collected: Mapping[str, Collected], data: Any, report: Report, rankings: Rankings | None
    ) -> Image.Image | None:
        """Returns images beside their true and predicted label maps, evenly spread over the split."""
        return label_sheet(data, data.gallery_split, self._predicted, data.classes.colours)

    def _positions(self, size: int) -> set[int]:
        """Returns which images are shown; neighbours are often alike, as frames of a film are."""
        count = min(self.sheet_images, size)
        return {place * size // count for place in range(count)}

    def _gather(self) -> None:
        """Brings what other ranks predicted for the sheet to all; collective."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        parts: list[dict] = [{}] * dist.get_world_size()
        dist.all_gather_object(parts, self._predicted)
        self._predicted = {position: labels for part in parts for position, labels in part.items()}

    def _fingerprint(self, data: Any, counts: Tensor) -> dict[str, Any]:
        ids = data.ids(data.gallery_split)
        return hashed(
            {
                "benchmark": self.name,
                "gallery": len(ids),
                "gallery_ids": ids_hash(ids),
                "queries": len(counts),
                "query_ids": short_hash(json.dumps(data.classes.names)),
                "truth": short_hash(json.dumps(counts.tolist())),
                "metrics": sorted(METRICS),
                "judged": "probability maps, enlarged to the label maps' own size",
            }
        )


def _order(model: Any, data: Any) -> list[int]:
    """Returns where the data's classes stand among the model's; raises ValueError unless both have the same."""
    own, wanted = tuple(getattr(model, "class_names", ())), tuple(data.classes.names)
    if sorted(own) != sorted(wanted):
        differing = sorted(set(own) ^ set(wanted))
        raise ValueError(
            f"the model's classes must be those of the data, {data.classes.name}: {len(own)} against {len(wanted)}, "
            f"not in both: {', '.join(differing[:5])}"
        )
    return [own.index(name) for name in wanted]


def _cells(confusion: Tensor) -> dict[str, Cell]:
    cells = {}
    for label, metric in METRICS.items():
        values = metric(confusion)
        cells[label] = Cell(values.nanmean().item(), math.nan, values.tolist())
    return cells


def _shown(value: float) -> str:
    return mean_and_interval(value, math.nan)


export = Segmentation
