"""All pairs of two sets of graphs, block by block; the compiled loops are imported when a block is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from zoo.truth.cache import Block, Write
from zoo.truth.graphs import PackedGraphs

if TYPE_CHECKING:
    from rich.progress import Progress

    from zoo.truth.kernels import Costs, Graphs

PAIRS_PER_BLOCK = {"exact": 2_000, "bipartite": 40_000, "authors": 40_000, "part": 100}
# For one pair, seconds; a query that nearly fits in very many places of a crowded scene needs more than anyone waits.
MOST_MAPS = {"exact": 1 << 60, "part": 1_000_000}
GALLERY_PART = 40_000  # graphs made ready for the loops at a time, so that memory doesn't grow with the gallery


class Unfinished(ValueError):
    """A pair whose exact search was given up: `query` and `item` are the places of its graphs."""

    def __init__(self, query: int, item: int, objects: int, maps: int) -> None:
        self.query, self.item, self.objects, self.maps = query, item, objects, maps
        super().__init__(self.naming(f"query {query}", f"gallery graph {item}"))

    def naming(self, query: str, item: str) -> str:
        """The message, with what the two graphs are called."""
        return (
            f"method 'part' tried {self.maps:,} maps of {query} ({self.objects} objects) into {item} and is not at the "
            "end: give the query fewer objects or more attributes, or take method 'bipartite'"
        )


def compute_pairs(
    sides: tuple[PackedGraphs, PackedGraphs],
    nodes: str,
    method: str,
    done: Collection[Block],
    write: Write,
    progress: bool,
) -> None:
    """Compute every block of the distances of queries and gallery that is not in `done` and hand it to `write`.

    Several threads share the blocks. progress: show a bar on standard error, which starts at what is done. Raises
    `Unfinished` for a pair that "part" gives up.
    """
    queries, gallery = sides
    plan = {
        start: list(_blocks(len(queries), range(start, min(start + GALLERY_PART, len(gallery))), len(gallery), method))
        for start in range(0, len(gallery), GALLERY_PART)
    }
    missing = {start: [block for block in blocks if block not in done] for start, blocks in plan.items()}
    total = len(queries) * len(gallery)
    with _bar(progress) as bar:
        task = bar.add_task(
            f"edit distance ({nodes}, {method})",
            total=total,
            completed=total - sum(_pairs(block) for blocks in missing.values() for block in blocks),
        )
        for start, blocks in missing.items():
            if blocks:
                stop = np.zeros(1, np.int64)
                run = _part_runner(queries, gallery, start, nodes, method, write, stop)
                _run_blocks(run, blocks, lambda block: bar.advance(task, _pairs(block)), stop)


def _blocks(queries: int, part: range, gallery: int, method: str) -> Iterator[Block]:
    """Rectangles of some pairs, each contiguous in the matrix: whole rows where several fit, else slices of one."""
    width = max(1, min(len(part), PAIRS_PER_BLOCK[method]))
    height = max(1, PAIRS_PER_BLOCK[method] // width) if width == gallery else 1
    for query in range(0, queries, height):
        for item in range(part.start, part.stop, width):
            yield query, min(query + height, queries), item, min(item + width, part.stop)


def _pairs(block: Block) -> int:
    return (block[1] - block[0]) * (block[3] - block[2])


def _bar(progress: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("of {task.total:,} pairs"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not progress)


def _part_runner(
    queries: PackedGraphs,
    gallery: PackedGraphs,
    start: int,
    nodes: str,
    method: str,
    write: Write,
    stop: np.ndarray,
) -> Callable[[Block], Block]:
    """Make graphs from `start` on ready for the loops; what it returns computes and writes a block, and returns it.

    Once `stop` (1,) is set, a search ends soon and its block isn't written.
    """
    from zoo.truth import exact, kernels

    some = gallery if len(gallery) <= GALLERY_PART else gallery[start : start + GALLERY_PART]
    flat, _ = ready(queries, some, method)
    costs = edit_costs(queries, flat[0], nodes, method)
    quick = {"bipartite": kernels.bipartite_block, "authors": kernels.authors_block}

    def run(block: Block) -> Block:
        q0, q1, g0, g1 = block
        values = np.zeros((q1 - q0, g1 - g0), np.float32)
        place = (*flat, costs, q0, q1, g0 - start, g1 - start, values)
        if method in quick:
            quick[method](*place)
        else:
            query, item = exact.exact_block(*place, stop)
            if stop[0] and query >= 0:
                return block
            if query >= 0:
                raise Unfinished(query, start + item, int(queries.sizes[query]), costs.most)
        write(block, values)
        return block

    return run


def ready(queries: PackedGraphs, gallery: PackedGraphs, method: str) -> tuple[list[Graphs], list[np.ndarray]]:
    """Put both sides into the arrays that the loops read, and say which node of its graph stands at each place, (T,).

    Bipartite wants the nodes in canonical order, and the graphs ranked.
    """
    relations = max(queries.relations, gallery.relations)
    flat = [_flat(side, relations) for side in (queries, gallery)]
    if method != "bipartite":
        return flat, [np.arange(len(side.kinds)) - np.repeat(side.offsets[:-1], np.diff(side.offsets)) for side in flat]
    from zoo.truth.canonical import canonical_order

    orders = [canonical_order(side) for side in flat]
    return _ranked(list(zip(flat, orders, strict=True))), orders


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


def edit_costs(graphs: PackedGraphs, flat: Graphs, nodes: str, method: str) -> Costs:
    """Price the edits of graphs made ready by `ready`."""
    from zoo.truth.kernels import Costs

    relations = flat.degrees.shape[1] // 2
    single = np.isin(np.arange(relations), graphs.antisymmetric)
    code = np.arange(4**relations)
    fields = code[:, None] >> 2 * np.arange(relations) & 3
    bits = (fields & 1) + (fields >> 1)
    edge = np.where(single, bits > 0, bits).sum(axis=1)
    unit = graphs.attributes.shape[1] if nodes == "soft" else 1
    return Costs(
        method == "part", MOST_MAPS.get(method, 0), nodes == "soft", unit, relations, single, edge, bits.sum(axis=1)
    )


def _run_blocks(
    run: Callable[[Block], Block], blocks: list[Block], advance: Callable[[Block], None], stop: np.ndarray
) -> None:
    from numba import config

    threads = min(config.NUMBA_NUM_THREADS, len(blocks))  # get_num_threads() would start numba's own pool
    # Even a single thread is not the main one: that waits, which Ctrl-C ends at once, where a compiled loop is deaf.
    pool, rest = ThreadPoolExecutor(threads), iter(blocks)
    running: set[Future[Block]] = set()
    try:
        while True:
            running |= {pool.submit(run, block) for block in islice(rest, threads - len(running))}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                advance(future.result())
    finally:
        stop[0] = 1
        pool.shutdown(wait=True, cancel_futures=True)
