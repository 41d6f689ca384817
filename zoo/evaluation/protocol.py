"""The contract that every benchmark fills, a plugin's too."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from PIL import Image
    from torch import Tensor
    from torch.utils.data import DataLoader

    from zoo.evaluation.collect import Collected
    from zoo.evaluation.rankings import Rankings
    from zoo.evaluation.report import Report
    from zoo.evaluation.searching import Searching
    from zoo.types import Batch, Role


@dataclass(frozen=True)
class Shard:
    """Which share of the queries this process scores, and where."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def rows(self, queries: int) -> Tensor:
        """Returns the positions (q,) int64 of this rank's queries: every one of `queries` on exactly one rank."""
        return torch.arange(queries)[self.rank :: self.world]


class Benchmark:
    """Queries, gallery, ground truth and metrics: one protocol.

    `name` is what messages and fingerprints call it; `roles` names the passes over images that it needs, in the order
    of `loaders`; `notes`, once it is open, say what of the ground truth was left out; `search` is what `search_with`
    took.
    """

    roles: ClassVar[tuple[Role, ...]] = ("gallery",)
    name: ClassVar[str]
    notes: Sequence[str] = ()
    search: Searching | None = None

    def add_metrics(self, metrics: Sequence[Any]) -> None:
        """Takes metrics that a user wants beside the protocol's own; raises ValueError where they don't fit."""
        if metrics:
            labels = ", ".join(metric.label for metric in metrics)
            raise ValueError(f"metrics: this benchmark takes none beside its own, got {labels}")

    def search_with(self, search: Searching) -> None:
        """Takes an index and re-rankers whose result becomes the shown row; raises ValueError where none can be."""
        raise ValueError(f"benchmark '{self.name}' compares descriptors, it can't use an index or a reranker")

    def check(self, model: Any, data: Any) -> None:
        """Raises ValueError where it can't judge the model on the data; asked before `open`, and of companions too."""
        model.check_descriptors()

    def open(self, data: Any) -> None:
        """Reads the ground truth, on every rank, before a model is run; ValueError or FileNotFoundError if it can't."""

    def prepare(self, data: Any) -> None:
        """Computes on rank 0 alone what takes long and is kept on disk; `data` is set up."""

    def loaders(self, data: Any) -> list[DataLoader]:
        """Returns this rank's loader for each of `roles`."""
        return [data.loader(data.gallery_split)]

    def described(self, model: Any, batch: Batch, role: Role) -> dict[str, Tensor]:
        """Returns the vectors (B, D) or (B, R, D) of a batch that are kept, by label: the model's descriptors."""
        return model.descriptors(batch, role)

    def tally(self, model: Any, batch: Batch, data: Any) -> Tensor | None:
        """Returns what is added up over all batches and ranks, for benchmarks that judge more than descriptors.

        `score` finds it in `Collected.sums` by the label of the model's own row, or a companion's. None for nothing.
        """
        return None

    def extra_vectors(self, batch: Batch) -> dict[str, Tensor]:
        """Returns vectors (B, D) that are compared beside the model's descriptors."""
        return {}

    def score(self, collected: Mapping[str, Collected], data: Any, shown: str, shard: Shard) -> Report:
        """Returns the report; collective. `collected` is keyed by role, `shown` the label of the model's own row."""
        raise NotImplementedError(f"{type(self).__name__} must implement score(collected, data, shown, shard)")

    def rankings(self, collected: Mapping[str, Collected], data: Any, report: Report) -> Rankings | None:
        """Returns the top of every query's list for the report's own row, on rank 0; None if there is none to show."""
        return None

    def sheet(
        self, collected: Mapping[str, Collected], data: Any, report: Report, rankings: Rankings | None
    ) -> Image.Image | None:
        """Returns the contact sheet, on rank 0, `rankings` being what the method of that name gave; None for none."""
        return None


def hashed(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a fingerprint: the parts and, under "hash", 16 hex digits over all of them."""
    return {**parts, "hash": short_hash(json.dumps(parts, sort_keys=True))}


def ids_hash(ids: Iterable[str]) -> str:
    """Returns 16 hex digits over names, whatever their order."""
    return short_hash(json.dumps(sorted(ids)))


def short_hash(text: str) -> str:
    """Returns the first 16 hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
