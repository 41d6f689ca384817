"""Text against text and arrangement: what is gained where images of equally many words are sorted by what is where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.evaluation.benchmarks.graded import Graded
from zoo.evaluation.judge import Lists
from zoo.evaluation.protocol import Shard, short_hash
from zoo.evaluation.report import Row
from zoo.evaluation.source import input_path
from zoo.metrics.mean_gain import MeanGain
from zoo.search.caption_files import read_captions
from zoo.search.captions import KEY, CaptionWords, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoo.evaluation.collect import Collected
    from zoo.evaluation.rankings import Rankings
    from zoo.evaluation.report import Report

TEXT, AND = "text", "text + "
_AT_ONCE = 16  # queries whose words are counted together


class CocoCaptions(Graded):
    """Text-based retrieval and "text + proposed system" (Sec. 4.2 of Furuta et al. 2018), on any captioned images.

    A query is a caption and the picture that goes with it: its first caption in `texts`, and the image of the query
    split. Rows: text alone (how many of the words an image's `captions` hold, equal ones in the gallery's order), each
    descriptor alone, and both, equal ones by descriptor; with an index, the search that `zoo search text=…` makes.
    `ground_truth` holds subjects' scores (there 1 … 5, of the ten images chosen by each method), in the forms and with
    the `candidates` of `Graded`, and gives gain@k, the mean score of the first k, and nDCG@k with its curve.

    What differs from the paper: there people typed words and drew until they were content, and chose ten images by
    hand; here the caption is the text, the photo stands for the drawing (eq. 2), and the first images of each list are
    the choice. tools/coco_caption_queries.py picks captions as the paper does. Raises ValueError for what `Graded`
    does, and for a query without a caption; BadFile for a damaged file.
    """

    name, title = "coco_captions", "Captions and arrangement"

    def __init__(self, *, captions: str, texts: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.captions, self.texts = input_path("captions", captions), input_path("texts", texts)

    def metrics(self) -> list[Any]:
        """Returns the mean gain and nDCG at each cut-off; of the whole gallery nDCG alone."""
        gains = [MeanGain(k=k, per_query=True) for k in self.k if k is not None]
        return [*gains, *super().metrics()]

    def open(self, data: Any) -> None:
        """Reads ground truth and captions."""
        super().open(data)
        self._words = self._texts_of(data)
        known = read_captions(self.captions)
        found = [known.find(id_, _path(data, data.gallery_split, id_)) for id_ in self.gallery_ids]
        self._captions = [[] if number is None else known.texts[number] for number in found]
        without = sum(not own for own in self._captions)
        if without == len(self._captions):
            raise ValueError(f"captions must name images of the gallery, got {self.captions}, which names none of them")
        if without:
            self.notes = (*self.notes, f"gallery images without a caption, which no word finds: {without}")
        self._counted = CaptionWords()
        self._counted.append(self._captions)

    def fingerprint_extras(self) -> dict[str, Any]:
        """Returns what is ranked, and the words of queries and gallery."""
        parts = super().fingerprint_extras()
        if hasattr(self, "_words"):
            parts |= {"texts": short_hash(repr(self._words)), "captions": short_hash(repr(self._captions))}
        return parts

    def score(self, collected: Mapping[str, Collected], data: Any, shown: str, shard: Shard) -> Report:
        """Returns the report; collective. Raises ValueError if descriptors are missing."""
        self.check_all_embedded(collected)
        labels = list(collected["query"].vectors)
        rows = [
            Row(label, None, self.cells(self._vector_lists(collected, label, shard), shard.device))
            for label in (TEXT, *labels, *(f"{AND}{label}" for label in labels))
        ]
        own = f"{AND}{shown}"
        if self.search is not None:
            payloads = [{KEY: texts} if texts else {} for texts in self._captions]
            found = self.search.lists(collected, shard, self.judge.own, self.kept, payloads, self._words)
            own = f"{AND}{self.search.label(shown)}"
            rows.append(Row(own, None, self.cells(found, shard.device)))
        return self.report(rows, next(row for row in rows if row.label == own))

    def rankings(self, collected: Mapping[str, Collected], data: Any, report: Report) -> Rankings:
        """Returns the top of every list of the report's own row."""
        if self.search is not None:
            return super().rankings(collected, data, report)
        lists = self._vector_lists(collected, report.own.label, Shard())
        return self.rankings_of(lists, report.own.label, "places counted from the last, by words and then descriptor")

    def _vector_lists(self, collected: Mapping[str, Collected], label: str, shard: Shard) -> Iterator[Lists]:
        if label == TEXT:
            return self._by_text(shard)
        if not label.startswith(AND):
            return super()._vector_lists(collected, label, shard)
        return map(self._text_first, super()._vector_lists(collected, label.removeprefix(AND), shard))

    def _by_text(self, shard: Shard) -> Iterator[Lists]:
        for part in shard.rows(len(self.query_ids)).split(_AT_ONCE):
            yield Lists(part, self._counts(part).double().to(shard.device))

    def _text_first(self, lists: Lists) -> Lists:
        """Returns the lists with scores by which more words always come first, equal ones as before."""
        counts, scores = self._counts(lists.rows).numpy(), lists.scores.double().cpu().numpy()
        ranks = np.empty(scores.shape)
        for line, keys in enumerate(zip(scores, counts, strict=True)):
            order = np.lexsort(keys)  # the last key, the words, goes first
            steps = np.diff(counts[line, order]).astype(bool) | np.diff(scores[line, order]).astype(bool)
            ranks[line, order] = np.append(0, steps.cumsum())  # what is equal stays so
        return Lists(lists.rows, torch.from_numpy(ranks).to(lists.scores.device))

    def _counts(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self._counted.counts(self._words[row]) for row in rows.tolist()]))

    def _texts_of(self, data: Any) -> list[list[str]]:
        """Returns the words of each query's first caption."""
        known, words = read_captions(self.texts), []
        for id_, image in zip(self.query_ids, self.query_images, strict=True):
            number = known.find(id_, _path(data, data.query_split, image))
            texts = [] if number is None else known.texts[number]
            if not texts or not words_of(texts[0]):
                raise ValueError(
                    f"texts must hold a caption with words for every query, {self.texts} has none of {id_!r}"
                )
            words.append(words_of(texts[0]))
        return words


def _path(data: Any, split: str, id_: str) -> str | None:
    return str(data.path(split, id_)) if hasattr(data, "path") else None


export = CocoCaptions
