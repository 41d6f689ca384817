"""Scene graphs: one at a time, and packed into flat arrays for batches.

Shapes: G graphs, O objects (nodes) of a graph, T objects of all graphs, A attributes, E edges, R relations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAX_NODES = 64  # one adjacency row is one 64-bit mask
MAX_RELATIONS = 8  # an ordered pair's relations, both directions, are one 16-bit code


@dataclass(frozen=True, eq=False)
class SceneGraph:
    """A directed multigraph of objects with integer attributes, checked on construction; its arrays are read-only.

    attributes: (O, A) integers. edges: (E, 3) integers `source, target, relation`, every triple at most once and no
    edge from a node to itself. antisymmetric: ids of the relations of which u→v excludes v→u, so that a reversed edge
    is one substitution. relations: R, the number of relations that the graph's vocabulary has, known even where an
    edge of some relation is missing; None takes the largest id found in `edges` and `antisymmetric`, plus one.

    Raises ValueError that names the argument, the rule and the value.
    """

    attributes: np.ndarray
    edges: np.ndarray
    antisymmetric: tuple[int, ...] = ()
    relations: int | None = None

    def __post_init__(self) -> None:
        attributes = _integers("attributes", self.attributes, "(O, A)")
        if attributes.shape[1] == 0:
            raise ValueError(f"attributes must hold at least one attribute per node, got shape {attributes.shape}")
        empty = np.size(self.edges) == 0
        edges = np.zeros((0, 3), np.int64) if empty else _integers("edges", self.edges, "(E, 3)")
        if edges.shape[1] != 3:
            raise ValueError(f"edges must have shape (E, 3) = source, target, relation, got {edges.shape}")
        antisymmetric = _relation_ids(self.antisymmetric)
        relations = _relation_count(self.relations, max((*antisymmetric, *edges[:, 2].tolist()), default=-1) + 1)
        _check_edges(edges, len(attributes), antisymmetric)
        for array in (attributes, edges):
            array.setflags(write=False)
        for name, value in zip(
            ("attributes", "edges", "antisymmetric", "relations"),
            (attributes, edges, antisymmetric, relations),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.attributes)


@dataclass(frozen=True, eq=False)
class PackedGraphs:
    """Many scene graphs in flat arrays; behaves as a sequence of `SceneGraph`.

    offsets: (G + 1,) integers, graph g owns the nodes offsets[g]:offsets[g + 1]. attributes: (T, A) integers.
    adjacency: (T, R) uint64, bit t of [node, relation] is the edge from this node to its graph's node t.
    antisymmetric: as in `SceneGraph`, for all graphs.

    Raises ValueError where a graph has more than 64 nodes, there are more than 8 relations or the arrays disagree.
    """

    offsets: np.ndarray
    attributes: np.ndarray
    adjacency: np.ndarray
    antisymmetric: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        offsets = np.array(self.offsets, np.int64)
        attributes = _integers("attributes", self.attributes, "(T, A)")
        adjacency = np.array(self.adjacency, np.uint64)
        antisymmetric = _relation_ids(self.antisymmetric)
        if offsets.ndim != 1 or offsets.size == 0 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
            raise ValueError(f"offsets must be (G + 1,) and rise from 0, got shape {offsets.shape}: {offsets[:5]}…")
        if offsets[-1] != len(attributes) or adjacency.ndim != 2 or len(adjacency) != len(attributes):
            raise ValueError(
                "offsets, attributes and adjacency must agree on the number of nodes, got "
                f"{offsets[-1]}, {attributes.shape} and {adjacency.shape}"
            )
        _relation_count(adjacency.shape[1], max(antisymmetric, default=-1) + 1)
        _check_masks(offsets, adjacency, antisymmetric)
        values = {"offsets": offsets, "attributes": attributes, "adjacency": adjacency}
        for name, array in values.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "antisymmetric", antisymmetric)

    @classmethod
    def from_graphs(cls, graphs: Sequence[SceneGraph]) -> PackedGraphs:
        """Pack graphs that share their number of attributes and their antisymmetric relations.

        Raises ValueError for an empty sequence, or graphs that differ in either.
        """
        if len(graphs) == 0:
            raise ValueError("graphs must hold at least one SceneGraph, got none")
        first = graphs[0]
        for number, graph in enumerate(graphs):
            if not isinstance(graph, SceneGraph):
                raise ValueError(f"graphs must hold SceneGraph only, item {number} is {type(graph).__name__}")
            if (graph.attributes.shape[1], graph.antisymmetric) != (first.attributes.shape[1], first.antisymmetric):
                raise ValueError(
                    "graphs must agree on attributes and antisymmetric, item 0 has "
                    f"A={first.attributes.shape[1]}, {first.antisymmetric}, item {number} has "
                    f"A={graph.attributes.shape[1]}, {graph.antisymmetric}"
                )
        offsets = np.concatenate([[0], np.cumsum([len(graph) for graph in graphs])])
        _check_sizes(offsets)
        adjacency = np.zeros((offsets[-1], max(graph.relations for graph in graphs)), np.uint64)
        edges = np.concatenate([graph.edges for graph in graphs])
        shift = np.repeat(offsets[:-1], [len(graph.edges) for graph in graphs])
        bits = np.uint64(1) << edges[:, 1].astype(np.uint64)
        np.bitwise_or.at(adjacency, (edges[:, 0] + shift, edges[:, 2]), bits)
        return cls(offsets, np.concatenate([graph.attributes for graph in graphs]), adjacency, first.antisymmetric)

    @classmethod
    def from_padded(
        cls, attributes: np.ndarray, adjacency: np.ndarray, count: np.ndarray, antisymmetric: tuple[int, ...] = ()
    ) -> PackedGraphs:
        """Pack graphs padded to a common number of nodes, without a loop over them.

        attributes: (G, O, A) integers. adjacency: (G, R, O, O) bool, [g, r, i, j] is the edge i→j of relation r.
        count: (G,) number of real nodes; what stands in the rows and columns behind them is ignored.
        Raises ValueError where shapes disagree or a count lies outside 0…O.
        """
        attributes, adjacency, count = np.asarray(attributes), np.asarray(adjacency, bool), np.asarray(count)
        if attributes.ndim != 3 or adjacency.ndim != 4 or count.ndim != 1:
            raise ValueError(
                "attributes, adjacency, count must have shapes (G, O, A), (G, R, O, O), (G,), got "
                f"{attributes.shape}, {adjacency.shape}, {count.shape}"
            )
        graphs, nodes = attributes.shape[:2]
        if adjacency.shape[0] != graphs or adjacency.shape[2:] != (nodes, nodes) or len(count) != graphs:
            raise ValueError(
                f"adjacency and count must fit attributes {attributes.shape}, got {adjacency.shape} and {count.shape}"
            )
        if nodes > MAX_NODES:
            raise ValueError(f"attributes must hold at most {MAX_NODES} nodes per graph, got O={nodes}")
        if np.any((count < 0) | (count > nodes)):
            raise ValueError(f"count must lie in 0…{nodes}, got {count.min()}…{count.max()}")
        real = np.arange(nodes) < count[:, None]
        bits = np.where(adjacency & real[:, None, None, :], np.uint64(1) << np.arange(nodes, dtype=np.uint64), 0)
        masks = bits.astype(np.uint64).sum(axis=3, dtype=np.uint64).transpose(0, 2, 1)
        offsets = np.concatenate([[0], np.cumsum(count)])
        return cls(offsets, attributes[real], masks[real], antisymmetric)

    @classmethod
    def concatenate(cls, parts: Sequence[PackedGraphs]) -> PackedGraphs:
        """Put the graphs of several sets one after another.

        Raises ValueError for an empty sequence, or sets that differ in attributes, relations or antisymmetric ones.
        """
        kinds = {(part.attributes.shape[1], part.relations, part.antisymmetric) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"parts must agree on attributes, relations and antisymmetric, got {sorted(kinds)}")
        sizes, attributes, adjacency = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("sizes", "attributes", "adjacency")
        )
        return cls(np.concatenate([[0], np.cumsum(sizes)]), attributes, adjacency, parts[0].antisymmetric)

    @property
    def sizes(self) -> np.ndarray:
        """Number of nodes per graph, (G,)."""
        return np.diff(self.offsets)

    @property
    def relations(self) -> int:
        """Number of relations R."""
        return self.adjacency.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the content; object order and the number of relations are part of it."""
        digest = hashlib.sha256(repr((self.attributes.shape, self.adjacency.shape, self.antisymmetric)).encode())
        for array, dtype in ((self.offsets, "<i8"), (self.attributes, "<i8"), (self.adjacency, "<u8")):
            digest.update(np.ascontiguousarray(array, dtype).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Number of graphs."""
        return len(self.offsets) - 1

    def __getitem__(self, item: int | slice | np.ndarray) -> SceneGraph | PackedGraphs:
        """One graph for an integer, a `PackedGraphs` for a slice or an array of indices or booleans."""
        chosen = np.arange(len(self))[item]
        if chosen.ndim == 0:
            nodes = slice(self.offsets[chosen], self.offsets[chosen + 1])
            masks = self.adjacency[nodes]
            bits = masks[:, None, :] >> np.arange(len(masks), dtype=np.uint64)[None, :, None] & np.uint64(1)
            return SceneGraph(self.attributes[nodes], np.argwhere(bits), self.antisymmetric, self.relations)
        offsets = np.concatenate([[0], np.cumsum(self.sizes[chosen])])
        nodes = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], self.sizes[chosen])
        return PackedGraphs(offsets, self.attributes[nodes], self.adjacency[nodes], self.antisymmetric)

    def relation(self, number: int) -> PackedGraphs:
        """The same nodes with the edges of one relation alone; raises ValueError for a number that isn't one."""
        if not 0 <= number < self.relations:
            raise ValueError(f"number must lie in 0 … {self.relations - 1}, got {number}")
        antisymmetric = (0,) if number in self.antisymmetric else ()
        return PackedGraphs(self.offsets, self.attributes, self.adjacency[:, number : number + 1], antisymmetric)

    def __iter__(self) -> Iterator[SceneGraph]:
        """The graphs, one after another."""
        return (self[number] for number in range(len(self)))


def _integers(name: str, values: np.ndarray, shape: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"{name} must be integers of shape {shape}, got {array.dtype} of shape {array.shape}")
    return np.array(array, np.int64, order="C")


def _relation_ids(antisymmetric: Sequence[int]) -> tuple[int, ...]:
    ids = tuple(sorted({int(relation) for relation in antisymmetric}))
    if ids and not 0 <= ids[0] <= ids[-1] < MAX_RELATIONS:
        raise ValueError(f"antisymmetric must hold relation ids in 0…{MAX_RELATIONS - 1}, got {tuple(antisymmetric)}")
    return ids


def _relation_count(given: int | None, needed: int) -> int:
    count = needed if given is None else int(given)
    if not needed <= count <= MAX_RELATIONS:
        raise ValueError(f"relations must lie in {needed}…{MAX_RELATIONS} (one above the largest id), got {count}")
    return count


def _check_edges(edges: np.ndarray, nodes: int, antisymmetric: tuple[int, ...]) -> None:
    source, target, relation = edges.T
    rules = (
        (f"name nodes in 0…{nodes - 1}", (edges[:, :2] < 0).any(1) | (edges[:, :2] >= nodes).any(1)),
        ("have a relation id of at least 0", relation < 0),
        ("join two different nodes", source == target),
    )
    for rule, broken in rules:
        if broken.any():
            raise ValueError(f"edges must {rule}, got {edges[np.argmax(broken)].tolist()}")
    key = (source * nodes + target) * MAX_RELATIONS + relation
    unique, first = np.unique(key, return_index=True)
    if len(unique) < len(key):
        repeated = np.setdiff1d(np.arange(len(key)), first)[0]
        raise ValueError(f"edges must name each (source, target, relation) once, got {edges[repeated].tolist()} twice")
    both = np.isin((target * nodes + source) * MAX_RELATIONS + relation, key) & np.isin(relation, antisymmetric)
    if both.any():
        raise ValueError(
            f"edges of an antisymmetric relation exclude their reverse, got {edges[np.argmax(both)].tolist()} both ways"
        )


def _check_sizes(offsets: np.ndarray) -> None:
    sizes = np.diff(offsets)
    if sizes.size and sizes.max() > MAX_NODES:
        raise ValueError(f"graphs must have at most {MAX_NODES} nodes, graph {sizes.argmax()} has {sizes.max()}")


def _check_masks(offsets: np.ndarray, adjacency: np.ndarray, antisymmetric: tuple[int, ...]) -> None:
    _check_sizes(offsets)
    sizes = np.diff(offsets)
    start, size = np.repeat(offsets[:-1], sizes), np.repeat(sizes, sizes)
    node = np.arange(len(adjacency)) - start
    for target in range(MAX_NODES):
        edge = (adjacency >> np.uint64(target) & np.uint64(1)).astype(bool)
        if not edge.any():
            continue
        outside = edge.any(1) & ((target >= size) | (target == node))
        if outside.any():
            row = np.argmax(outside)
            raise ValueError(f"adjacency must join two different nodes of a graph, got {node[row]}→{target}, row {row}")
        source, relation = np.nonzero(edge)
        back = adjacency[start[source] + target, relation] >> node[source].astype(np.uint64) & np.uint64(1)
        both = (back == 1) & np.isin(relation, antisymmetric)
        if both.any():
            raise ValueError(
                f"adjacency of an antisymmetric relation excludes the reverse, got {node[source[np.argmax(both)]]}→"
                f"{target} both ways for relation {relation[np.argmax(both)]}"
            )
