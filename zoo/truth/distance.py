"""Edit distance between scene graphs, one pair or all pairs of two sets (Messina et al. 2018, section 4.2)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from zoo.truth.cache import Block, MatrixFile, Write
from zoo.truth.graphs import PackedGraphs, SceneGraph
from zoo.truth.pairs import compute_pairs

FORMAT = 1  # raise it when a change alters distances, so that stored matrices are not taken for the new ones
NODES = ("soft", "hard")
METHODS = ("bipartite", "authors", "exact", "part")
EXACT_NODES = 6  # more nodes a graph make the exact distance of all pairs of an evaluation take hours
Sides = tuple[PackedGraphs, PackedGraphs]  # queries, gallery


def edit_distance(
    a: SceneGraph, b: SceneGraph, nodes: str = "soft", method: str = "bipartite", max_nodes: int = 10
) -> float:
    """Cost of editing graph a into graph b; arguments and errors as in `edit_distances`."""
    return float(edit_distances([a], [b], nodes, method, max_nodes)[0, 0])


def edit_distances(
    queries: Sequence[SceneGraph] | PackedGraphs,
    gallery: Sequence[SceneGraph] | PackedGraphs,
    nodes: str = "soft",
    method: str = "bipartite",
    max_nodes: int = 10,
    progress: bool = False,
    cache: str | os.PathLike | None = None,
) -> np.ndarray:
    """Compute the edit distance of every query and gallery graph, (Q, N) float32.

    Inserting or deleting a node or an edge costs 1. nodes: a node substitution costs the share of attributes that
    differ ("soft"), or 1 if any differs ("hard"). Edges between matched nodes are compared relation by relation; a
    reversed edge of an antisymmetric relation costs 1.
    method: "exact" searches all node maps, for graphs of at most `max_nodes` nodes. "bipartite" maps nodes by an
    optimal assignment, then adds the edges' cost under that map: never below exact, 0 for isomorphic graphs,
    symmetric, independent of object order. "authors" is the public code: the assignment from attributes alone on
    the square matrix with 5 in forbidden cells, once per relation and summed, and 1 for each edge of the query
    that appears only reversed; it is not symmetric and depends on object order. "part" is the cost of turning the
    query, of at most `max_nodes` nodes, into a part of the gallery graph: what that has beyond the query is free, and
    an attribute below 0 in a query, which other methods refuse, fits any; exact.
    progress: show a bar on standard error. cache: a directory in which the result is kept, named by content; it is
    filled block by block, so that a run that was killed goes on where it stopped, and read back memory-mapped and
    read-only.
    Raises ValueError for unknown words, graphs that don't fit each other, too many nodes for "exact" or "part", or a
    pair for which "part" would have to try millions of maps.
    """
    sides = checked_sides(queries, gallery, nodes, method, max_nodes)
    if cache is not None:
        return stored_distances(distance_file(sides, nodes, method, Path(cache)), sides, nodes, method, progress)
    result = np.empty((len(sides[0]), len(sides[1])), np.float32)

    def write(block: Block, values: np.ndarray) -> None:
        q0, q1, g0, g1 = block
        result[q0:q1, g0:g1] = values

    compute_pairs(sides, nodes, method, (), write, progress)
    return result


def checked_sides(
    queries: Sequence[SceneGraph] | PackedGraphs,
    gallery: Sequence[SceneGraph] | PackedGraphs,
    nodes: str,
    method: str,
    max_nodes: int = 10,
) -> Sides:
    """Pack both sets, checked against each other and against the method; raises as `edit_distances` does."""
    _check_word("nodes", nodes, NODES)
    _check_word("method", method, METHODS)
    queries, gallery = _packed("queries", queries), _packed("gallery", gallery)
    _check_pair(queries, gallery)
    _check_open(method, queries, gallery)
    if method in ("exact", "part"):
        _check_nodes(method, (queries,) if method == "part" else (queries, gallery), max_nodes)
    return queries, gallery


def distance_file(sides: Sides, nodes: str, method: str, folder: Path, name: str | None = None) -> MatrixFile:
    """Name the file in `folder` that is to hold the distances of two checked sets; without `name`, by its content."""
    content = repr((FORMAT, sides[0].fingerprint, sides[1].fingerprint, nodes, method))
    key = hashlib.sha256(content.encode()).hexdigest()
    return MatrixFile(folder / (name or f"edit_distance_{key[:32]}.npy"), (len(sides[0]), len(sides[1])), key)


def stored_distances(file: MatrixFile, sides: Sides, nodes: str, method: str, progress: bool) -> np.ndarray:
    """Read the distances from their file, memory-mapped, or compute what is missing of them first."""

    def fill(done: Collection[Block], write: Write) -> None:
        compute_pairs(sides, nodes, method, done, write, progress)

    return file.read(fill)


def _check_word(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _packed(name: str, graphs: Sequence[SceneGraph] | PackedGraphs) -> PackedGraphs:
    if isinstance(graphs, PackedGraphs):
        return graphs
    try:
        return PackedGraphs.from_graphs(graphs)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_pair(queries: PackedGraphs, gallery: PackedGraphs) -> None:
    widths = queries.attributes.shape[1], gallery.attributes.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(f"queries and gallery must have the same attributes per node, got A={widths[0]}, {widths[1]}")
    if queries.antisymmetric != gallery.antisymmetric:
        raise ValueError(
            "queries and gallery must agree on antisymmetric relations, got "
            f"{queries.antisymmetric} and {gallery.antisymmetric}"
        )


def _check_open(method: str, queries: PackedGraphs, gallery: PackedGraphs) -> None:
    for name, side in (("queries", queries), ("gallery", gallery)):
        if (name == "gallery" or method != "part") and side.attributes.min(initial=0) < 0:
            raise ValueError(
                f"{name} must have attributes of at least 0, got {side.attributes.min()}, method {method!r}: only "
                "queries of method 'part' may leave attributes open"
            )


def _check_nodes(method: str, sides: Sequence[PackedGraphs], max_nodes: int) -> None:
    largest = max(side.sizes.max(initial=0) for side in sides)
    if largest > max_nodes:
        whose = "query" if method == "part" else "graph"
        raise ValueError(
            f"method {method!r} takes at most max_nodes={max_nodes} nodes per {whose}, got {largest}: its time grows "
            "with the factorial of the nodes; raise max_nodes to wait for it, or take method 'bipartite'"
        )
