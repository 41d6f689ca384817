"""Scene graphs of Sort-of-CLEVR and CLEVR, as the ground truth of Messina et al. 2018 defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.truth.graphs import PackedGraphs, SceneGraph

if TYPE_CHECKING:
    from collections.abc import Iterator

NEAREST, FARTHEST = 0, 1
RIGHT, FRONT = 0, 1
CLEVR_VOCABULARY = {
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "shape": ("cube", "sphere", "cylinder"),
    "material": ("rubber", "metal"),
    "size": ("small", "large"),
}


def sort_of_clevr_graphs(
    colour: np.ndarray, shape: np.ndarray, x: np.ndarray, y: np.ndarray, count: np.ndarray, size: int = 75
) -> PackedGraphs:
    """Build the graphs of N Sort-of-CLEVR images from padded object lists.

    colour, shape, x, y: (N, O); x and y are centres in pixels of an image of `size` × `size`. count: (N,) objects
    per image. Attributes: colour, shape, left (x < size / 2), up (y < size / 2). Relation 0 is i→nearest(i),
    relation 1 is i→farthest(i): squared distance, first index on ties, never i itself; none for a single object.
    Raises ValueError where shapes disagree or a count lies outside 0…O.
    """
    columns = {"colour": colour, "shape": shape, "x": x, "y": y}
    columns = {name: np.asarray(values) for name, values in columns.items()}
    count = np.asarray(count)
    for name, values in columns.items():
        if values.ndim != 2 or values.shape != columns["colour"].shape or count.shape != values.shape[:1]:
            raise ValueError(f"{name} must be (N, O) like colour, with count (N,), got {values.shape}, {count.shape}")
    x, y = columns["x"].astype(np.float64), columns["y"].astype(np.float64)
    images, objects = x.shape
    attributes = np.stack([columns["colour"], columns["shape"], x < size / 2, y < size / 2], axis=2)
    squared = (x[:, :, None] - x[:, None, :]) ** 2 + (y[:, :, None] - y[:, None, :]) ** 2
    partner = (np.arange(objects) < count[:, None])[:, None, :] & ~np.eye(objects, dtype=bool)
    adjacency = np.zeros((images, 2, objects, objects), bool)
    if objects > 1:
        nearest = np.where(partner, squared, np.inf).argmin(axis=2)
        farthest = np.where(partner, squared, -np.inf).argmax(axis=2)
        columns_of = np.arange(objects)
        adjacency[:, NEAREST] = (nearest[:, :, None] == columns_of) & partner
        adjacency[:, FARTHEST] = (farthest[:, :, None] == columns_of) & partner
    return PackedGraphs.from_padded(attributes, adjacency, count)


def clevr_graph(scene: dict) -> SceneGraph:
    """Build the graph of one entry of a CLEVR scenes file.

    Attributes: color, shape, material, size, each an index into `CLEVR_VOCABULARY`. In the file
    `relationships["right"][i]` lists the objects that stand right of object i; each such j becomes the edge
    i→j of relation 0, read "j is right of i". Relation 1 is "front", likewise. Left and behind are implied and left
    out. Both are antisymmetric. Object order is the file's.
    Raises ValueError for a missing key, a word outside the vocabulary, or lists that don't fit the objects.
    """
    for key in ("objects", "relationships"):
        if key not in scene:
            raise ValueError(f"scene must have the key {key!r}, got {sorted(scene)}")
    attributes = [[_word(name, words, item) for name, words in CLEVR_VOCABULARY.items()] for item in scene["objects"]]
    edges = []
    for relation, name in ((RIGHT, "right"), (FRONT, "front")):
        if name not in scene["relationships"]:
            raise ValueError(f"scene relationships must have the key {name!r}, got {sorted(scene['relationships'])}")
        pairs = related(name, scene["relationships"][name], len(attributes))
        edges.extend((source, target, relation) for source, target in pairs)
    table = np.array(attributes, np.int64).reshape(-1, len(CLEVR_VOCABULARY))
    return SceneGraph(table, np.array(edges, np.int64), (RIGHT, FRONT), relations=2)


def related(name: str, lists: Any, objects: int) -> Iterator[tuple[int, int]]:
    """Yields the pairs (i, j) of a CLEVR scene of which "j is `name` of i" holds, for lists[i] that hold j.

    Raises ValueError, which names the relation, unless there is a list of other objects for each.
    """
    if not isinstance(lists, list) or len(lists) != objects or not all(isinstance(row, list) for row in lists):
        raise ValueError(f"relationships {name!r} must hold a list for each of the {objects} objects")
    for place, row in enumerate(lists):
        for other in row:
            if type(other) is not int or not 0 <= other < objects or other == place or row.count(other) > 1:
                raise ValueError(
                    f"relationships {name!r} of object {place} must name other objects once, got {other!r}"
                )
            yield place, other


def _word(name: str, words: tuple[str, ...], item: dict) -> int:
    if item.get(name) not in words:
        raise ValueError(f"scene object's {name} must be one of {', '.join(words)}, got {item.get(name)!r}")
    return words.index(item[name])
