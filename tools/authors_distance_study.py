"""What the edit distance of the authors' public code measures on CLEVR scenes: a table for the model card.

    python tools/authors_distance_study.py [--data ../shared/data]

All Spearman coefficients are means over queries, each over the gallery without the query's own scene.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from zoo.truth import PackedGraphs, edit_distances, read_scenes

SETS = {
    "clevr_real267 (train, 1,000)": "clevr_real267/scenes/CLEVR_train_scenes_1000.json",
    "clevr_mini (val, 400)": "clevr_mini/scenes/CLEVR_val_scenes.json",
}
QUERIES = 400
SHUFFLES = 5


def shuffled(graphs: PackedGraphs, rng: np.random.Generator) -> PackedGraphs:
    """The same graphs with the objects of each in another order."""
    result = []
    for graph in graphs:
        order = rng.permutation(len(graph))
        edges = graph.edges.copy()
        edges[:, :2] = np.argsort(order)[edges[:, :2]]
        result.append(type(graph)(graph.attributes[order], edges, graph.antisymmetric, graph.relations))
    return PackedGraphs.from_graphs(result)


def spearman(a: np.ndarray, b: np.ndarray, kept: np.ndarray | None = None) -> float:
    """Mean over queries of the rank correlation of two distances, over the other scenes or those kept, (Q, N) bool."""
    import torch

    from zoo.metrics.functional import spearman as by_query

    ignore = np.eye(len(a), a.shape[1], dtype=bool)
    if kept is not None:
        ignore |= ~kept
    a, b = (np.broadcast_to(side, ignore.shape).astype(np.float64) for side in (a, b))
    return float(np.nanmean(by_query(torch.tensor(a), torch.tensor(b), torch.tensor(ignore)).numpy()))


def order_rows(graphs: PackedGraphs, nodes: str) -> dict[str, float]:
    """How far the distance depends on the order of the gallery's objects, mean over some shuffles."""
    rng = np.random.default_rng(0)
    queries = graphs[:QUERIES]
    plain = edit_distances(queries, graphs, nodes, "authors")
    others = ~np.eye(*plain.shape, dtype=bool)
    found = []
    for _ in range(SHUFFLES):
        again = edit_distances(queries, shuffled(graphs, rng), nodes, "authors")
        own = np.diag(again)
        change = np.abs(again - plain)[others]
        found.append((spearman(plain, again), (change > 0).mean(), change.mean(), (own > 0).mean(), own.mean()))
    names = (
        "gallery shuffled: Spearman with unshuffled",
        "gallery shuffled: share of pairs that change",
        "gallery shuffled: mean change",
        "d(a, a shuffled) > 0: share",
        "d(a, a shuffled): mean",
    )
    return {
        "d: mean over pairs": float(plain[others].mean()),
        **dict(zip(names, np.mean(found, axis=0).tolist(), strict=True)),
    }


def count_rows(graphs: PackedGraphs, nodes: str) -> dict[str, float]:
    """How far the distance follows the number of objects, agrees with bipartite, and is symmetric."""
    queries, sizes = graphs[:QUERIES], graphs.sizes
    few, same = sizes[None, :], sizes[: len(queries), None] == sizes
    difference = np.abs(sizes[: len(queries), None] - sizes)
    authors, bipartite = (edit_distances(queries, graphs, nodes, method) for method in ("authors", "bipartite"))
    square = authors[:, : len(queries)]
    apart = ~np.eye(len(square), dtype=bool)
    return {
        "authors ~ number of objects of the gallery scene": spearman(authors, few),
        "authors ~ |difference of numbers|": spearman(authors, difference),
        "bipartite ~ number of objects of the gallery scene": spearman(bipartite, few),
        "bipartite ~ |difference of numbers|": spearman(bipartite, difference),
        "d(a, b) ≠ d(b, a): share of pairs": float((square != square.T)[apart].mean()),
        "|d(a, b) - d(b, a)|: mean": float(np.abs(square - square.T)[apart].mean()),
        "ranking by d(q, g) ~ by d(g, q)": spearman(square, square.T),
        "authors ~ bipartite": spearman(authors, bipartite),
        "authors ~ bipartite, same number of objects": spearman(authors, bipartite, same),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ZOO_DATA", "../shared/data")))
    data = parser.parse_args().data
    table = Table("set", "of the distance", "soft", "hard")
    for name, file in SETS.items():
        graphs = read_scenes(data / file).graphs
        soft, hard = ({**order_rows(graphs, nodes), **count_rows(graphs, nodes)} for nodes in ("soft", "hard"))
        for row, value in soft.items():
            table.add_row(name if row == next(iter(soft)) else "", row, f"{value:.3f}", f"{hard[row]:.3f}")
        table.add_section()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
