"""What travels between data, models, indexes, re-rankers and evaluators.

Letters used in every shape of the zoo:

- B items in a batch, Q queries, N gallery items, K items of a shortlist, L anchors
- D descriptor dimension, C channels or classes, H and W height and width of a map, R regions of an image
- V corners of an outline
- O objects of a scene, A attributes of an object, E edges of a scene graph, P pairs of objects
- M parts of a descriptor that are quantised, each by one of C codes
- S questions about an image, T components of a question vector or words of a question
- G ground truths that are used side by side
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

Role = Literal["query", "gallery"]

CHECKPOINT_KEY = "spatial_zoo"  # where a checkpoint or weights file says which model it belongs to


class _Transferable:
    """Moves every tensor of a dataclass, so that Lightning and pinned-memory loaders can handle a batch."""

    def _map(self, function: Callable[[Tensor], Tensor]) -> Any:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if hasattr(getattr(self, f.name), "device")}
        return replace(self, **{name: function(tensor) for name, tensor in tensors.items()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        """Returns a copy with all tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Any:
        """Returns a copy with all tensors in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True)
class Batch(_Transferable):
    """Images and what is asked about them.

    `index (B,)` int64 is the position within the split, by which gathered descriptors are put back into order.
    `images (B, 3, H, W)` float in [0, 1], before the model's own normalisation.
    `questions (B, S, T)`: float vectors, or int64 word ids of `vocabulary` (a name of `zoo.vocabulary`), 0 behind the
    last word. `answers (B, S)` int64 class ids, -1 where the answer isn't known or an image has fewer questions.
    `question_types (B, S)` int64 positions in `question_type_names`, written "kind/type" or "kind". All four or none.
    `distances (G, B, B)` float: G ground truths, from the image of a row (as query) to that of a column, for training.
    `original_size (B, 2)` int64: height and width in px of each picture as its file has it, turned upright and cut to
    its box, before it was resized. `descriptors (B, D)` float: made before, by whatever it was; images may be empty
    then. `label_map (B, H, W)` int64: the class of every pixel of `images`, -1 where it has none (void). `unreadable`
    lists the positions of files that could not be read, each with the reason; they have no row in the tensors, and all
    rows may be missing. Only loaders that were asked to go on fill it.
    """

    index: Tensor
    images: Tensor
    questions: Tensor | None = None
    answers: Tensor | None = None
    question_types: Tensor | None = None
    question_type_names: tuple[str, ...] = ()
    vocabulary: str | None = None
    distances: Tensor | None = None
    original_size: Tensor | None = None
    descriptors: Tensor | None = None
    label_map: Tensor | None = None
    unreadable: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        """Returns B."""
        return len(self.index)


@dataclass(frozen=True)
class PairBatch(_Transferable):
    """Pairs of images that show the same object: the object alone, and a whole image that it stands in.

    `index (B,)` int64 is the position within the split. `queries (B, 3, H, W)` are cut to the object and
    `galleries (B, 3, H', W')` whole, float in [0, 1]; each of the two has one size in a batch. `boxes (B, 4)` float:
    the object in the gallery image, px x0, y0, x1, y1 of `galleries`. `objects (B,)` int64: pairs of the same number
    show the same object, so that none is a negative for the other. In place of images both may hold local maps
    (B, D, H, W) that were made before, the boxes being in cells of the gallery's.
    """

    index: Tensor
    queries: Tensor
    galleries: Tensor
    boxes: Tensor
    objects: Tensor

    def __len__(self) -> int:
        """Returns B."""
        return len(self.index)


@dataclass(frozen=True)
class ShortlistBatch(_Transferable):
    """Queries with their nearest gallery images, for models that put these into another order.

    `index (B,)` int64 is the query's position within the split. `rows (B, 1+K)` int64 says where in a table of
    descriptors the query and its hits stand, nearest first, -1 where a list has ended; or else `descriptors
    (B, 1+K, D)` are there themselves. `relevant (B, K)` bool; `positives (B,)` int64 of the whole gallery, also those
    that are no hits. `affinities (B, K, A, L)` float: A affinities of the hits with the first L of them.
    """

    index: Tensor
    relevant: Tensor
    positives: Tensor
    rows: Tensor | None = None
    descriptors: Tensor | None = None
    affinities: Tensor | None = None

    def __len__(self) -> int:
        """Returns B."""
        return len(self.index)

    def first(self, hits: int) -> ShortlistBatch:
        """Returns the batch with at most so many hits of each query; `positives` stay those of the whole gallery."""
        cut = {
            name: value[:, : 1 + hits] for name in ("rows", "descriptors") if (value := getattr(self, name)) is not None
        }
        affinities = None if self.affinities is None else self.affinities[:, :hits, :, :]
        return replace(self, **cut, relevant=self.relevant[:, :hits], affinities=affinities)


@dataclass(frozen=True)
class Representation(_Transferable):
    """What a model knows of a batch of images; a model fills the fields that its `kinds` name, the others stay None.

    `vector (B, D)`; `local_map (B, D, H, W)`; `regions (B, R, D)` with `region_mask (B, R)` bool (True = exists),
    `region_boxes (B, R, 4)` pixels x0, y0, x1, y1 and `region_hulls (B, R, V, 2)` pixels x, y, the corners of convex
    outlines, the last one repeated to V; a region that doesn't exist repeats region 0, the whole image.
    `probability_map (B, C, H, W)`, of an image summing to 1 over C; of a query, `class_mask (B, C)` bool says which
    classes count (None: all), as `zoo.ops.sketches` makes both;
    `keypoints (B, K, 2)` pixels x, y, the upper left corner being 0, 0, with `keypoint_descriptors (B, K, D)` and
    `keypoint_mask (B, K)` bool (True = exists); `local_codes (B, H, W, M)` uint8, a local map as the `quantizer`
    (`zoo.search.quantizer.ProductQuantizer`) keeps it, which whoever needs a `local_map` can read too. Pixels are those
    of the images that the model was given; features on disk and indexes hold pixels of the upright original.
    `fingerprint` says which model, with which weights, made it, where that is known.
    """

    vector: Tensor | None = None
    local_map: Tensor | None = None
    regions: Tensor | None = None
    region_mask: Tensor | None = None
    region_boxes: Tensor | None = None
    region_hulls: Tensor | None = None
    probability_map: Tensor | None = None
    class_mask: Tensor | None = None
    keypoints: Tensor | None = None
    keypoint_descriptors: Tensor | None = None
    keypoint_mask: Tensor | None = None
    local_codes: Tensor | None = None
    quantizer: Any = None
    fingerprint: str | None = None

    def __len__(self) -> int:
        """Returns B, 0 if no field is filled."""
        return next((len(tensor) for tensor in self.filled().values()), 0)

    def filled(self) -> dict[str, Tensor]:
        """Returns the fields that hold tensors, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if hasattr(getattr(self, f.name), "device")}

    def rows(self, index: Any) -> Representation:
        """Returns the images at `index`, anything that indexes a tensor and keeps its first dimension."""
        return self._map(lambda tensor: tensor[index])

    def held(self) -> list[str]:
        """Returns the fields that may be asked for: those that are filled, and a local map that is there as codes."""
        return [*self.filled(), *(["local_map"] if self.local_map is None and self.local_codes is not None else [])]

    def require(self, kinds: Sequence[str], user: str) -> None:
        """Raises ValueError, naming both lists, when `user` needs a field that is not there."""
        held = self.held()
        if any(kind not in held for kind in kinds):
            raise ValueError(f"{user} needs the representation fields {list(kinds)}, the model fills {held}")


@dataclass(frozen=True)
class Ranking:
    """A ranked list for one query, nearest first.

    `ids (K,)` are the caller's (strings or ints); `scores (K,)` float, higher = nearer, not increasing; `evidence`
    holds one mapping per item for display (box of the found object, matched regions, inliers), or None.
    """

    ids: Sequence[str] | Sequence[int]
    scores: Tensor
    evidence: Sequence[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.scores):
            raise ValueError(f"Ranking: one score per id is needed, got {len(self.ids)} ids, {len(self.scores)} scores")
        if self.evidence is not None and len(self.evidence) != len(self.ids):
            raise ValueError(f"Ranking: one evidence per id, got {len(self.evidence)} for {len(self.ids)} ids")

    def __len__(self) -> int:
        """Returns K."""
        return len(self.ids)


def name_of(part: Any) -> str:
    """Returns the registered name of a model, a data module, an index or a re-ranker, else that of its class."""
    registered = getattr(part, "registered", None)
    return registered["name"] if registered else type(part).__name__
