"""Search by what is where: probability maps as a byte a class, compared with photos, drawings, or both at once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from zoo.checks import check_flags, check_integers
from zoo.search._checks import all_finite
from zoo.search.map_codebook import MOST, STEPS, MapCodebook
from zoo.search.map_columns import Columns
from zoo.search.stored import Found, StoredIndex
from zoo.search.top import Nearest
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from zoo.search.storage import Pieces

CODEBOOK = "codebook"  # what the index calls it in its manifest
_BLOCK = 1 << 16  # images whose distances are held at a time


class _Maps(NamedTuple):
    """Maps (B, C, H, W) float32, and of queries which classes count (B, C) bool, None for all."""

    maps: Tensor
    counts: np.ndarray | None = None


class ProbabilityMapsIndex(StoredIndex):
    """Ranks images by the squared distance of their probability maps to the query's, over the classes that count.

    An item takes a byte a class. Queries are photos (eq. 2 of Furuta et al. 2018), drawings, of which only the drawn
    classes count (eq. 5), and drawings over photos (eq. 7), as `zoo.ops.sketches` makes them; each is exact for what
    the codes decode to. `rounded` rounds a photo's probabilities to 255ths, so that the many below 1/510 cost nothing.
    Scores are minus the squared distances; evidence holds arrays, the `classes` that count and what each of them adds
    to a distance. The codebook, `centroids` a class, is learnt from at most `train_size` images, in a folder beside
    that of the index.
    """

    needs: ClassVar[tuple[str, ...]] = ("probability_map",)
    tiny: ClassVar[Mapping[str, Any]] = {"centroids": 64}
    largest_block: ClassVar[int] = 256  # 60 maps of 64 x 64 are 1 MB
    snapshot_format: ClassVar[str] = "npy"

    def __init__(self, *, centroids: int, train_size: int, rounded: bool, seed: int) -> None:
        super().__init__()
        check_integers(1, centroids=centroids, train_size=train_size)
        if centroids > MOST:
            raise ValueError(f"centroids must be at most {MOST}, so that a code is a byte, got {centroids}")
        check_flags(rounded=rounded)
        self.centroids, self.train_size, self.rounded, self.seed = centroids, train_size, rounded, seed
        self.codebook: MapCodebook | None = None
        self._columns = Columns()
        self._folder: Path | None = None

    @property
    def ready(self) -> bool:
        """Says whether there is a codebook."""
        return self.codebook is not None

    def place(self, folder: Path) -> None:
        """Takes note of where the index will be: the sample that it learns from is kept beside that folder."""
        self._folder = folder

    def sample_size(self, one: Representation) -> int:
        """Returns `train_size`, until there is a codebook."""
        return self.train_size if self.codebook is None else 0

    def train(self, items: Representation) -> None:
        """Learns the codebook from the items."""
        self._learn_in(None, len(items), lambda start: [items.rows(slice(start, None))], "")

    def learn(self, count: int, blocks: Callable[[int], Iterable[Representation]], stamp: str) -> None:
        """Learns the codebook from `count` items that come block by block; goes on where it was interrupted.

        Maps wait as bytes on disk, where 20,000 of 60 classes and 64 x 64 cells take 4.9 GB; of these one class at a
        time is in memory.
        """
        folder = None if self._folder is None else self._folder.parent / f".{self._folder.name}.learning"
        self._learn_in(folder, count, blocks, stamp)

    def prepare(self, items: Representation, what: str) -> _Maps:
        """Returns the maps; raises ValueError for another size, values that aren't finite, or a wrong class mask."""
        maps = items.probability_map
        if self.codebook is None:
            check_maps(maps, what)
        else:
            self.codebook.check(maps, what)
        mask = items.class_mask
        if mask is not None and (mask.dtype != torch.bool or mask.shape != maps.shape[:2]):
            raise ValueError(f"class_mask must be (B, C) bool, got {mask.dtype} {tuple(mask.shape)}")
        return _Maps(maps.detach().cpu().float(), None if mask is None else mask.cpu().numpy())

    def append(self, rows: _Maps) -> None:
        """Adds codes; learns the codebook first where there is none."""
        if self.codebook is None:
            self.train(Representation(probability_map=rows.maps))
        self._columns.append(self.codebook.encode(rows.maps))

    def keep(self, mask: np.ndarray) -> None:
        """Drops columns; files stay as they are."""
        self._columns.keep(mask)

    def nearest(self, queries: _Maps, k: int, allowed: np.ndarray | None) -> Found:
        """Returns the nearest images, each with what every class that counts adds to its distance."""
        positions = np.full((len(queries.maps), k), -1, np.int64)
        scores = np.full((len(queries.maps), k), -np.inf, np.float32)
        evidence = []
        for number, maps in enumerate(queries.maps):
            counts = None if queries.counts is None else queries.counts[number]
            classes, tables = self.tables(maps, counts)
            own, distances = self.scan(classes, tables, k, allowed)
            positions[number, : len(own)], scores[number, : len(own)] = own, -distances
            evidence.append(self._shares(classes, tables, own))
        return Found(positions, scores, evidence)

    def tables(self, maps: Tensor, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the classes that count (T,) and their squared distances (T, K) to the centroids, of `maps (C, H, W)`.

        `counts (C,)` bool, None for all.
        """
        classes = np.arange(self.codebook.classes) if counts is None else np.flatnonzero(counts)
        query = maps.flatten(1).numpy()[classes]
        return classes, self.codebook.tables(
            np.rint(query * STEPS) / np.float32(STEPS) if self.rounded else query, classes
        )

    def scan(
        self, classes: np.ndarray, tables: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions (n,) and squared distances (n,) of the n <= k images that are nearest by `tables`."""
        from zoo.search.map_kernels import add_up

        best, start = Nearest(k), 0
        for codes, chosen in self._columns.parts():
            for low in range(0, codes.shape[1], _BLOCK):
                sums = np.empty(min(_BLOCK, codes.shape[1] - low), np.float32)
                add_up(tables, classes, codes, low, sums)
                if chosen is not None:
                    sums = sums[chosen[np.searchsorted(chosen, low) : np.searchsorted(chosen, low + len(sums))] - low]
                if allowed is not None:
                    sums[~allowed[start : start + len(sums)]] = np.inf
                best.add(sums, start)
                start += len(sums)
        return best.found()

    def take(self, positions: np.ndarray) -> Representation:
        """Returns what the codes decode to."""
        return Representation(probability_map=self.codebook.decode(self._columns.at(positions)))

    def segment(self, start: int) -> dict[str, np.ndarray | Pieces]:
        """Returns the codes (C, N - start)."""
        return {"codes": self._columns.since(start)}

    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the codes of a segment; they stay on disk."""
        codes = arrays["codes"]
        if codes.dtype != np.uint8 or codes.ndim != 2 or self._columns.classes not in (None, len(codes)):
            raise ValueError(f"its codes are {codes.dtype} {codes.shape}")
        self._columns.map(codes)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the codebook's centroids (C, H, W, K), once there is one."""
        return {} if self.codebook is None else {CODEBOOK: self.codebook.array}

    def restore_snapshot(self, content: Mapping[str, np.ndarray]) -> None:
        """Takes the codebook, which stays on disk; raises ValueError where the codes aren't its."""
        if content:
            self.codebook = MapCodebook.of(content[CODEBOOK])
        codes = [codes for codes, _ in self._columns.parts() if codes.size]
        if codes and (
            self.codebook is None
            or self._columns.classes != self.codebook.classes
            or any(int(own.max()) >= self.codebook.count for own in codes)
        ):
            raise ValueError(f"its codes aren't those of {self.codebook}")

    def written(self, files: Sequence[Mapping[str, Path]], removed: np.ndarray) -> None:
        """Lets go of codes in memory, for the files that hold them now."""
        mapped = [np.load(file["codes"], mmap_mode="r", allow_pickle=False) for file in files]
        kept = np.ones(sum(codes.shape[1] for codes in mapped), bool)
        kept[removed] = False
        self._columns.clear()
        for codes in mapped:
            self._columns.map(codes)
        self._columns.keep(kept)

    def _learn_in(
        self, folder: Path | None, count: int, blocks: Callable[[int], Iterable[Representation]], stamp: str
    ) -> None:
        from zoo.search.map_learning import MapSample

        if self.codebook is not None:
            raise ValueError("the index has its codebook already, train must come before the first items")
        with tempfile.TemporaryDirectory() as temporary:
            sample = MapSample(folder or Path(temporary) / "sample", count, stamp)
            for items in blocks(sample.count):
                check_maps(items.probability_map, "items")
                sample.append(items.probability_map.detach().cpu().float())
            self.codebook = sample.learn(self.centroids, self.seed)
            sample.remove()

    def _shares(self, classes: np.ndarray, tables: np.ndarray, positions: np.ndarray) -> list[dict[str, Any]]:
        codes = self._columns.at(positions)[classes]
        shares = np.take_along_axis(tables, codes.astype(np.int64), axis=1).T
        return [{"classes": classes, "class_distances": own} for own in shares]


def check_maps(maps: Tensor, what: str) -> None:
    """Raises ValueError where `maps` isn't (B, C, H, W), or isn't finite."""
    if maps.dim() != 4 or 0 in maps.shape[1:]:
        raise ValueError(f"the probability maps of {what} must be (B, C, H, W), got {tuple(maps.shape)}")
    if not all_finite(maps.detach().cpu().float().numpy()):
        raise ValueError(f"the probability maps of {what} must be finite, got NaN or infinite values")


export = ProbabilityMapsIndex
