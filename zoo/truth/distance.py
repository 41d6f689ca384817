"""Edit distance between scene graphs, one pair or all pairs of two sets (Messina et al. 2018, section 4.2)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.truth.cache import stored_matrix
from zoo.truth.graphs import PackedGraphs, SceneGraph

if TYPE_CHECKING:
    from zoo.truth.kernels import Costs, Graphs

FORMAT = 1  # raise it when a change alters distances, so that stored matrices are not taken for the new ones
PAIRS_PER_BLOCK = {"exact": 2_000, "bipartite": 40_000, "authors": 40_000}
NODES = ("soft", "hard")


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
    that appears only reversed; it is not symmetric and depends on object order.
    progress: show a bar on standard error. cache: a directory in which the result is kept, named by content; it is
    then read back memory-mapped and read-only.
    Raises ValueError for unknown words, graphs that don't fit each other, or too many nodes for "exact".
    """
    _check_word("nodes", nodes, NODES)
    _check_word("method", method, tuple(PAIRS_PER_BLOCK))
    queries, gallery = _packed("queries", queries), _packed("gallery", gallery)
    _check_pair(queries, gallery)
    if method == "exact":
        _check_nodes(queries, gallery, max_nodes)

    def compute() -> np.ndarray:
        return _all_pairs(queries, gallery, nodes, method, progress)

    if cache is None:
        return compute()
    key = repr((FORMAT, queries.fingerprint, gallery.fingerprint, nodes, method))
    name = f"edit_distance_{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    return stored_matrix(Path(cache) / name, (len(queries), len(gallery)), compute)


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


def _check_nodes(queries: PackedGraphs, gallery: PackedGraphs, max_nodes: int) -> None:
    largest = max(queries.sizes.max(initial=0), gallery.sizes.max(initial=0))
    if largest > max_nodes:
        raise ValueError(
            f"method 'exact' takes at most max_nodes={max_nodes} nodes per graph, got {largest}: its time grows "
            "with the factorial of the nodes; raise max_nodes to wait for it, or take method 'bipartite'"
        )


def _all_pairs(queries: PackedGraphs, gallery: PackedGraphs, nodes: str, method: str, progress: bool) -> np.ndarray:
    from zoo.truth import canonical, exact, kernels

    sides = [_flat(side, max(queries.relations, gallery.relations)) for side in (queries, gallery)]
    if method == "bipartite":
        sides = _ranked([(side, canonical.canonical_order(side)) for side in sides])
    run = {"exact": exact.exact_block, "bipartite": kernels.bipartite_block, "authors": kernels.authors_block}[method]
    costs = _costs(queries, sides[0], nodes)
    result = np.zeros((len(queries), len(gallery)), np.float32)
    blocks = list(_blocks(*result.shape, PAIRS_PER_BLOCK[method]))
    title = f"edit distance ({nodes}, {method})" if progress else None
    _run_blocks(lambda block: run(*sides, costs, *block, result), blocks, title)
    return result


def _flat(graphs: PackedGraphs, relations: int) -> Graphs:
    from zoo.truth.kernels import Graphs, pair_codes

    missing = relations - graphs.relations
    adjacency = np.pad(graphs.adjacency, ((0, 0), (0, missing)))
    starts = np.concatenate([[0], np.cumsum(graphs.sizes**2)])
    codes, degrees = pair_codes(graphs.offsets, starts, adjacency)
    tuples, kinds = np.unique(graphs.attributes, axis=0, return_inverse=True)
    return Graphs(graphs.offsets, kinds.reshape(-1), tuples, starts, codes, degrees, np.zeros(len(graphs), np.int64))


def _ranked(sides: list[tuple[Graphs, np.ndarray]]) -> list[Graphs]:
    """Put all nodes in canonical order and rank the graphs: smaller ones first, isomorphic ones equal."""
    from zoo.truth.canonical import reorder

    ordered, forms = [], []
    for side, order in sides:
        kinds, codes, degrees = reorder(side, order)
        ordered.append(side._replace(kinds=kinds, codes=codes, degrees=degrees))
        attributes, sizes = side.tuples[kinds].astype(">i8"), np.diff(side.offsets)
        spans = zip(sizes, side.offsets, side.offsets[1:], side.starts, side.starts[1:], strict=False)
        forms.append([(n, attributes[i:j].tobytes(), codes[k:m].astype(">u2").tobytes()) for n, i, j, k, m in spans])
    places = {form: place for place, form in enumerate(sorted({form for side in forms for form in side}))}
    return [
        side._replace(ranks=np.array([places[form] for form in own], np.int64))
        for side, own in zip(ordered, forms, strict=True)
    ]


def _costs(graphs: PackedGraphs, flat: Graphs, nodes: str) -> Costs:
    from zoo.truth.kernels import Costs

    relations = flat.degrees.shape[1] // 2
    single = np.isin(np.arange(relations), graphs.antisymmetric)
    code = np.arange(4**relations)
    fields = code[:, None] >> 2 * np.arange(relations) & 3
    bits = (fields & 1) + (fields >> 1)
    edge = np.where(single, bits > 0, bits).sum(axis=1)
    unit = graphs.attributes.shape[1] if nodes == "soft" else 1
    return Costs(nodes == "soft", unit, relations, single, edge, bits.sum(axis=1))


def _blocks(queries: int, gallery: int, pairs: int) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles of about `pairs` pairs: whole rows where several fit, slices of one row where none does."""
    width = max(1, min(gallery, pairs))
    height = max(1, pairs // width)
    for query in range(0, queries, height):
        for item in range(0, gallery, width):
            yield query, min(query + height, queries), item, min(item + width, gallery)


def _run_blocks(run: Callable, blocks: list, title: str | None) -> None:
    from numba import config
    from rich.console import Console
    from rich.progress import track

    threads = min(config.NUMBA_NUM_THREADS, len(blocks))  # get_num_threads() would start numba's own pool
    show = {"description": title, "total": len(blocks), "console": Console(stderr=True), "disable": title is None}
    if threads <= 1:
        for block in track(blocks, **show):
            run(block)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        done = as_completed([pool.submit(run, block) for block in blocks])
        for future in track(done, **show):
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
