"""Ground-truth distances between the images of a training batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.truth import PackedGraphs, edit_distances
from zoo.truth.distance import METHODS as ALL_METHODS
from zoo.truth.distance import NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.data._loading import BatchDataset
    from zoo.types import Batch

# "part" searches a whole image for a part of it; between the images of a batch it says little.
METHODS = tuple(method for method in ALL_METHODS if method != "part")  # which no descriptor distance can follow


def check_truth(truth: Sequence[str] | str | None) -> list[tuple[str, str]]:
    """Returns (nodes, method) of every word such as "soft/authors", none of None.

    Raises ValueError for a word that isn't so made, or something else than a word or a list of them.
    """
    words = [truth] if isinstance(truth, str) else [] if truth is None else truth
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"truth must be a list of ground truths such as soft/authors, got {truth!r}")
    pairs = [tuple(str(word).split("/")) for word in words]
    for word, pair in zip(words, pairs, strict=True):
        if len(pair) != 2 or pair[0] not in NODES or pair[1] not in METHODS:
            raise ValueError(
                f"truth must list ground truths nodes/method with nodes {' | '.join(NODES)} and method "
                f"{' | '.join(METHODS)}, such as soft/authors, got {word!r}"
            )
    return pairs


class WithDistances(Dataset):
    """A dataset whose batches carry `distances`: the edit distance of the batch's graphs for each (nodes, method)."""

    def __init__(self, dataset: BatchDataset, graphs: PackedGraphs, truth: Sequence[tuple[str, str]]) -> None:
        self.dataset, self.graphs, self.truth = dataset, graphs, truth

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self.dataset.__getitems__(indices)
        graphs = self.graphs[batch.index.numpy()]
        distances = np.stack([edit_distances(graphs, graphs, nodes, method) for nodes, method in self.truth])
        return replace(batch, distances=torch.from_numpy(distances))
