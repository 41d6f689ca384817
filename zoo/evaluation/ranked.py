"""The base of every benchmark that judges ranked lists: galleries searched by similarity, or lists from a file."""

from __future__ import annotations

import inspect
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torchmetrics import MetricCollection

from zoo.checks import check_integers, check_words, is_integer
from zoo.evaluation import ranked_lists
from zoo.evaluation.judge import Judge, RelevanceJudge, Setting
from zoo.evaluation.pictures import ranking_sheet
from zoo.evaluation.protocol import Benchmark, Shard, hashed, ids_hash
from zoo.evaluation.rankings import Rankings
from zoo.evaluation.report import Cell, Report, Row
from zoo.evaluation.source import Source, read_ids
from zoo.truth.regroup import without_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from PIL import Image
    from torch.utils.data import DataLoader

    from zoo.evaluation.collect import Collected
    from zoo.evaluation.judge import Lists
    from zoo.evaluation.predictions import Predictions
    from zoo.evaluation.searching import Searching
    from zoo.truth.relevance import GradedLists, RelevanceLists
    from zoo.types import Role

INCOMPLETE = ("refuse", "restrict")


class RankedBenchmark(Benchmark):
    """Queries, a gallery, and lists of which items are relevant or junk for each query.

    A subclass names itself (`name`, `title`), its `settings`, and implements `metrics` and `read`. Parameters that all
    share: `gallery`, a text file of names (None: the ground truth's or the data's own); `incomplete`, what to do where
    the gallery lacks listed images: "refuse" or "restrict" the lists to what is there; `similarity` of descriptors;
    `sheet_queries` on the contact sheet; `kept` items of every list in rankings.json.
    """

    roles: ClassVar[tuple[Role, ...]] = ("gallery", "query")
    title: ClassVar[str]
    settings: Mapping[str, Setting] = {"": Setting(("relevant",), ("junk",))}
    shown_setting: str = ""
    leave_out_query = False

    def __init__(self, *, gallery: str | None, incomplete: str, similarity: str, sheet_queries: int, kept: int) -> None:
        check_words(incomplete=(incomplete, INCOMPLETE))
        ranked_lists.check_similarity(similarity)
        check_integers(0, sheet_queries=sheet_queries, kept=kept)
        self.gallery, self.incomplete, self.similarity = gallery, incomplete, similarity
        self.sheet_queries, self.kept = sheet_queries, kept
        self._extra: list[Any] = []

    # --- what a subclass says

    def metrics(self) -> list[Any]:
        """Returns the protocol's metrics, each with `per_query`."""
        raise NotImplementedError(f"{type(self).__name__} must implement metrics()")

    def read(self, source: Source) -> RelevanceLists:
        """Returns the ground truth as the file or the data states it."""
        raise NotImplementedError(f"{type(self).__name__} must implement read(source)")

    def fingerprint_extras(self) -> dict[str, Any]:
        """Returns what else defines the protocol."""
        return {}

    def judge_of(self, truth: Any) -> Judge:
        """Returns the judge of the resolved ground truth."""
        return RelevanceJudge(truth.pack(self.gallery_ids), self.settings, self._own())

    # --- the contract

    def add_metrics(self, metrics: Sequence[Any]) -> None:
        """Takes metrics beside the protocol's own; raises ValueError for one that does not judge ranked lists."""
        for metric in metrics:
            if "scores" not in inspect.signature(type(metric).update).parameters:
                raise ValueError(
                    f"metrics: '{metric.label}' does not judge ranked lists, so '{self.name}' can't use it"
                )
            if not metric.per_query:
                raise ValueError(f"metrics: '{metric.label}' must keep each query's value: per_query must be true")
        taken = {metric.label for metric in self.metrics()}
        self._extra = [metric for metric in metrics if metric.label not in taken]

    def search_with(self, search: Searching) -> None:
        """Takes an index and re-rankers, whose lists become the shown row."""
        self.search = search

    def open(self, data: Any) -> None:
        """Reads the ground truth for a model to be evaluated on `data`."""
        self.open_source(Source.of_data(data, self.name))

    def open_source(self, source: Source) -> None:
        """Reads the ground truth and settles which queries and gallery items there are."""
        truth = self.read(source)
        listed = read_ids(self.gallery) if self.gallery else None
        if truth.positional:
            truth = truth.name_positions(*self._position_names(source, listed))
        else:
            source = source.named(truth.query_ids, listed or truth.gallery_ids)
        gallery = listed or truth.gallery_ids or source.gallery_ids
        if gallery is None:
            wanted = "set benchmark.gallery to a text file with a name a line, or choose data=folder"
            raise ValueError(f"benchmark '{self.name}': nothing names the whole gallery: {wanted}")
        self.gallery_ids = self._present_gallery(tuple(gallery), source)
        truth = self._complete(truth, source)
        self.source, self.query_ids, self.query_images = source, truth.query_ids, truth.query_images
        self.boxes = _boxes(truth)
        if self.leave_out_query and source.queries_in_gallery:
            truth = without_own(truth)
        self._truth_hash = truth.fingerprint()
        self.excluded = truth.excluded
        self.judge = self.judge_of(truth)
        self.notes = (*truth.notes, *self._unanswerable())

    def loaders(self, data: Any) -> list[DataLoader]:
        """Returns the gallery's loader and the queries', cut to their boxes."""
        return [
            data.selection(data.gallery_split, self.gallery_ids),
            data.selection(data.query_split, self.query_images, self.boxes),
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Returns what makes two results comparable, and its hash."""
        parts = {
            "benchmark": self.name,
            "gallery": len(self.gallery_ids),
            "gallery_ids": ids_hash(self.gallery_ids),
            "queries": len(self.query_ids),
            "query_ids": ids_hash(map(repr, zip(self.query_ids, self.query_images, self.boxes, strict=True))),
            "truth": self._truth_hash,
            "metrics": sorted(metric.label for metric in self.metrics()),
            "queries_left_out_of_gallery": int((self.judge.own >= 0).sum()),
        }
        parts |= self.fingerprint_extras()
        if list(self.settings) != [""]:
            parts["settings"] = {name: [list(s.relevant), list(s.ignored)] for name, s in self.settings.items()}
        return hashed(parts)

    def score(self, collected: Mapping[str, Collected], data: Any, shown: str, shard: Shard) -> Report:
        """Returns the report; collective. Raises ValueError if descriptors are missing."""
        self.check_all_embedded(collected)
        rows = [
            Row(
                label,
                self.similarity == "cosine",
                self.cells(self._vector_lists(collected, label, shard), shard.device),
            )
            for label in collected["query"].vectors
        ]
        if self.search is not None:
            payloads = data.payloads(data.gallery_split, self.gallery_ids) if hasattr(data, "payloads") else None
            found = self.search.lists(collected, shard, self.judge.own, self.kept, payloads)
            rows.append(Row(self.search.label(shown), None, self.cells(found, shard.device)))
            shown = rows[-1].label
        return self.report(rows, next(row for row in rows if row.label == shown))

    def score_predictions(self, predictions: Predictions) -> Report:
        """Returns the report on lists or scores from a file; raises ValueError where they don't cover the protocol."""
        # Closed at once if a metric fails, so that the progress bar doesn't outlive it.
        with closing(self.prediction_lists(predictions, "judging")) as lists:
            row = Row("predictions", None, self.cells(lists, torch.device("cpu")))
        return self.report([row], row)

    def rankings(self, collected: Mapping[str, Collected], data: Any, report: Report) -> Rankings:
        """Returns the top of every list of the report's own row."""
        label = report.own.label
        if self.search is not None:
            return self.rankings_of([self.search.heads], label, "scores of the last step")
        lists = self._vector_lists(collected, label, Shard())
        return self.rankings_of(lists, label, ranked_lists.SIMILARITIES[self.similarity])

    def sheet(
        self, collected: Mapping[str, Collected], data: Any, report: Report, rankings: Rankings
    ) -> Image.Image | None:
        """Returns each query's nearest items by the own row."""
        return ranking_sheet(rankings, data, self.sheet_queries)

    # --- shared by vectors and predictions

    def check_all_embedded(self, collected: Mapping[str, Collected]) -> None:
        """Raises ValueError if descriptors of images are missing."""
        for role, names in (("gallery", self.gallery_ids), ("query", self.query_ids)):
            missing = len(names) - len(collected[role].index)
            if missing:
                raise ValueError(f"every {role} image must be embedded, {missing} are missing (limit_test_batches?)")

    def cells(self, lists: Iterable[Lists], device: torch.device) -> dict[str, Cell]:
        """Returns a cell for every setting and metric; collective."""
        wanted = [*self.metrics(), *self._extra]
        collections = {
            # No metric shares states with another, so that looking for groups of them would be in vain.
            setting: MetricCollection({m.label: m.clone() for m in wanted}, compute_groups=False).to(device)
            for setting in self.judge.settings
        }
        for part in lists:
            for setting, metrics in collections.items():
                judgement = self.judge.judge(setting, part).to(device)
                metrics.update(scores=part.scores, query=part.rows.to(device), **judgement)
        queries = len(self.query_ids)
        return {
            f"{setting}/{metric.label}" if setting else metric.label: Cell.of(metrics[metric.label], queries)
            for setting, metrics in collections.items()
            for metric in wanted
        }

    def prediction_lists(self, predictions: Predictions, title: str) -> Iterator[Lists]:
        """Returns the file's lists in the protocol's order and positions, behind a progress bar."""
        names = self.query_ids, self.gallery_ids
        parts = ranked_lists.from_predictions(predictions, *names, self.excluded, self.source)
        return ranked_lists.with_progress(parts, len(self.query_ids), title)

    def rankings_of(self, lists: Iterable[Lists], descriptor: str, score: str = "scores of the file") -> Rankings:
        """Returns the top `kept` items of every query with what the shown setting says of them.

        `score` says what the scores are.
        """
        queries = [query for part in lists for query in ranked_lists.top(part, self, self.kept)]
        data = self.source.data
        splits = (data.query_split, data.gallery_split) if data is not None else ("query", "gallery")
        return Rankings(descriptor, score, *splits, queries, self.shown_setting or None)

    def report(self, rows: Sequence[Row], own: Row) -> Report:
        """Returns the report of finished rows."""
        return Report(self.title, rows, own, self.fingerprint(), self.query_ids)

    # --- settling names

    def _position_names(self, source: Source, listed: Sequence[str] | None) -> tuple[Sequence[str], Sequence[str]]:
        if source.query_ids is None or source.gallery_ids is None:
            raise ValueError(f"benchmark '{self.name}': its ground truth names images by position: set data=folder")
        return source.query_ids, listed or source.gallery_ids

    def _present_gallery(self, gallery: tuple[str, ...], source: Source) -> tuple[str, ...]:
        if source.gallery_ids is None:
            return gallery
        present = set(source.gallery_ids)
        kept = tuple(name for name in gallery if name in present)
        if len(kept) < len(gallery):
            absent = next(name for name in gallery if name not in present)
            there = next(iter(source.gallery_ids), "nothing")
            missing = f"{len(gallery) - len(kept)} of {len(gallery)} gallery items are missing, '{absent}' first"
            self._refuse(f"{missing} (what is there is called like '{there}')")
        return kept

    def _complete(self, truth: Any, source: Source) -> Any:
        available = None if source.query_images is None else set(source.query_images)
        missing = truth.missing(self.gallery_ids)
        images = truth.query_images
        lost = [image for image in images if available is not None and image not in available]
        if missing:
            there = f"whose items are called like '{self.gallery_ids[0]}'" if self.gallery_ids else "which is empty"
            self._refuse(f"{len(missing)} listed images, '{min(missing)}' for one, are not in the gallery, {there}")
        if lost:
            self._refuse(f"{len(lost)} of {len(images)} query images are missing, '{lost[0]}' first")
        if not (missing or lost):
            return truth
        return truth.restrict(self.gallery_ids, available)

    def _unanswerable(self) -> list[str]:
        """Says how many queries have nothing to find; raises ValueError where none has."""
        totals = {name: self.judge.total(name, torch.arange(len(self.query_ids))) for name in self.judge.settings}
        if not any(total.any() for total in totals.values()):
            raise ValueError(f"benchmark '{self.name}': nothing in the gallery is relevant to any query")
        return [
            f"{setting + ': ' if setting else ''}queries left out of the means because nothing is relevant to them: "
            f"{int((total == 0).sum())} of {len(total)}"
            for setting, total in totals.items()
            if (total == 0).any()
        ]

    def _refuse(self, what: str) -> None:
        if self.incomplete == "refuse":
            raise ValueError(
                f"benchmark '{self.name}': {what}; benchmark.incomplete=restrict leaves them out (another protocol)"
            )

    def _own(self) -> torch.Tensor:
        """Returns (Q,) each query's own position in the gallery, -1 where it isn't left out."""
        if not (self.leave_out_query and self.source.queries_in_gallery):
            return torch.full((len(self.query_ids),), -1)
        position = {name: place for place, name in enumerate(self.gallery_ids)}
        return torch.tensor([position.get(image, -1) for image in self.query_images])

    def _vector_lists(self, collected: Mapping[str, Collected], label: str, shard: Shard) -> Iterable[Lists]:
        vectors = [collected[role].vectors[label].to(shard.device) for role in ("query", "gallery")]
        return ranked_lists.from_vectors(*vectors, shard.rows(len(self.query_ids)), self.similarity)


def _boxes(truth: RelevanceLists | GradedLists) -> list[list[float] | None]:
    """Returns each query's box, None for the whole image."""
    if truth.boxes is None:
        return [None] * len(truth.query_ids)
    return [None if np.isnan(box[0]) else [float(value) for value in box] for box in truth.boxes]


def check_cut_offs(k: Sequence[int | None], whole: bool = False) -> list[int | None]:
    """Returns the cut-offs as a list; raises ValueError unless they are different integers of at least 1.

    With `whole`, None may stand for the whole gallery.
    """
    if isinstance(k, str) or not hasattr(k, "__iter__"):
        raise ValueError(f"k must be a list, such as [1,5,10], got {k!r}")
    given = [one for one in k if not (whole and one is None)]
    wrong = [one for one in given if not is_integer(one) or one < 1]
    if wrong or not k or len(set(k)) < len(k):
        rule = "different integers of at least 1" + (" or null" if whole else "")
        raise ValueError(f"k must be a list of {rule}, got {list(k)}")
    return list(k)
