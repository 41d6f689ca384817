"""What a ranking loses to distractors: copies of the relevant images with their parts in another arrangement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from zoo.evaluation.judge import Setting
from zoo.evaluation.ranked import RankedBenchmark
from zoo.evaluation.report import Cell
from zoo.evaluation.source import input_path, optional_path, own_lists
from zoo.metrics.map import RetrievalMAP
from zoo.truth.extending import with_distractors
from zoo.truth.regroup import in_turn, merged
from zoo.truth.relevance import DISTRACTOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from zoo.evaluation.judge import Judge, Lists
    from zoo.evaluation.rankings import RankedQuery, Rankings
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists

GROUPS = {
    "relevant": ("relevant", "good", "ok", "easy", "hard"),
    "junk": ("junk",),
    DISTRACTOR: (DISTRACTOR,),
}


class Shuffled(RankedBenchmark):
    """mAP without distractors (clean), with them (shuffled), and the gap; parameters: `conf/benchmark/shuffled.yaml`.

    One ranked list of the whole gallery is judged twice: distractors are taken out of it like junk, or count as
    irrelevant, as in OxfShf and ParShf (Sec. 4.1 of Chen et al. 2019). The gap is the difference, query by query, of
    every metric, as `zoo.metrics.functional.shuffle_gap` has it; lower is better. Distractors are what the ground truth
    lists as such, and the gallery's images in the folders `distractors`. Raises ValueError where there are none.
    """

    name, title = "shuffled", "Shuffled distractors"
    settings = {"clean": Setting(("relevant",), ("junk", DISTRACTOR)), "shuffled": Setting(("relevant",), ("junk",))}
    shown_setting = "shuffled"

    def __init__(
        self,
        *,
        ground_truth: str | None,
        distractors: str | Sequence[str] | None,
        leave_one_out: bool,
        leave_out_query: bool,
        convention: str,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.ground_truth = optional_path("ground_truth", ground_truth)
        folders = [distractors] if isinstance(distractors, str) else distractors or []
        self.folders = [input_path("distractors", folder) for folder in folders]
        self.in_turn, self.leave_out_query = leave_one_out, leave_one_out or leave_out_query
        self.convention = convention
        self.metrics()  # refuses an unknown convention before anything is read

    def metrics(self) -> list[Any]:
        """Returns the mean average precision."""
        return [RetrievalMAP(k=None, convention=self.convention, per_query=True)]

    def read(self, source: Source) -> RelevanceLists:
        """Returns relevant, junk and distractors; raises ValueError for lists by position, folders elsewhere."""
        lists = merged(own_lists(source, self.ground_truth, self.name), GROUPS)
        if lists.positional:
            raise ValueError(
                f"benchmark '{self.name}': its ground truth names images by position, which distractors shift: "
                "write it by name, as tools/make_shuffled_distractors does"
            )
        if self.in_turn:
            if not source.queries_in_gallery:
                raise ValueError(
                    f"benchmark '{self.name}': leave_one_out asks with the gallery, leave out data.queries"
                )
            lists = in_turn(lists)
        return with_distractors(lists, self._in_folders(source))

    def judge_of(self, truth: RelevanceLists) -> Judge:
        """Returns the judge of the lists; raises ValueError where no image of the gallery is a distractor."""
        self._distractors = truth.groups[DISTRACTOR]
        if not any(self._distractors):
            wanted = "a ground truth of tools/make_shuffled_distractors, or benchmark.distractors=FOLDER"
            raise ValueError(f"benchmark '{self.name}': no image of the gallery is a distractor: set {wanted}")
        return super().judge_of(truth)

    def cells(self, lists: Iterable[Lists], device: torch.device) -> dict[str, Cell]:
        """Returns for every metric a cell in each setting, and their difference; collective."""
        cells = super().cells(lists, device)
        with_gaps: dict[str, Cell] = {}
        for metric in [*self.metrics(), *self._extra]:
            labels = [f"{setting}/{metric.label}" for setting in self.settings]
            with_gaps |= {label: cells[label] for label in labels}
            with_gaps[f"gap/{metric.label}"] = _difference(*(cells[label] for label in labels))
        return with_gaps

    def rankings_of(self, lists: Iterable[Lists], descriptor: str, score: str = "scores of the file") -> Rankings:
        """Returns the top of every list, distractors marked as such."""
        found = super().rankings_of(lists, descriptor, score)
        return replace(found, queries=[self._marked(query) for query in found.queries])

    def _marked(self, query: RankedQuery) -> RankedQuery:
        made = set(self._distractors[query.query])
        return replace(
            query, ranked=[replace(item, note=DISTRACTOR) if item.id in made else item for item in query.ranked]
        )

    def _in_folders(self, source: Source) -> list[str]:
        """Returns the gallery's images in the folders of distractors."""
        if not self.folders:
            return []
        if source.data is None:
            raise ValueError(f"benchmark '{self.name}': distractors are found by their folder: choose data=folder")
        tops = [folder.resolve() for folder in self.folders]
        split = source.data.gallery_split
        paths = {name: source.data.path(split, name).resolve() for name in source.data.ids(split)}
        for folder, top in zip(self.folders, tops, strict=True):
            if not any(path.is_relative_to(top) for path in paths.values()):
                raise ValueError(f"distractors must be a folder of the gallery's images (data.root), got {folder}")
        return [name for name, path in paths.items() if any(path.is_relative_to(top) for top in tops)]


def _difference(clean: Cell, shuffled: Cell) -> Cell:
    """Returns the first minus the second, query by query, with its mean and interval; both hold all ranks' queries."""
    values = np.subtract(clean.per_query, shuffled.per_query)
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return Cell(float(known.mean()) if len(known) else math.nan, math.nan, values.tolist())
    half_width = stdtrit(len(known) - 1, 0.975) * known.std(ddof=1) / math.sqrt(len(known))
    return Cell(float(known.mean()), float(half_width), values.tolist())


export = Shuffled
