"""The tables of fcn_segment's card: retrieval on CamVid by photos, drawings and both, with and without codes.

    python tools/fcn_segment_table.py --output tables.md
    python tools/fcn_segment_table.py --sets held_out --epochs 10        networks of the second set, trained shortly

Every frame of train and val is in the gallery, but for those of the query's own sequence within 150 video frames of it.
Queries are every third frame of val, searched with the weights of --weights; and every fifth frame of each sequence of
train, searched with a network that was trained without that sequence. Drawings are the true label map on 12 x 16 cells,
of the three largest classes or of all. A frame gains by how many pixels of its true label map agree with the query's,
less the gallery's median, clipped at 0; or by the mean IoU of both label maps. Intervals are of 2,000 bootstrap
samples of blocks of 50 video frames. Whatever is trained is kept in --cache, and the command goes on there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fcn_segment_study import (
    CENTROIDS,
    Coded,
    Frames,
    Gains,
    Networks,
    asked,
    exact_distances,
    expected_at_random,
    values,
)
from study import say, write_tables
from torch import Tensor

from zoo.checkpoints import load_model, weights_file
from zoo.evaluation.tables import Table
from zoo.progress import tracked

SETS = ("val", "held_out")
GAINS = {"agreement": "nDCG@10, agreement", "iou": "nDCG@10, mean IoU"}
BASELINE = "GeM"
_BLOCK, _SAMPLES = 50, 2000  # video frames; bootstrap samples


class QuerySet(NamedTuple):
    """Queries that one network searches for, by their positions among all frames."""

    title: str
    queries: list[int]
    maps: Tensor  # (N, C, H, W) of that network


def query_sets(frames: Frames, networks: Networks, weights: str, which: list[str]) -> Iterator[tuple[str, QuerySet]]:
    """Yields the name of a set, and the queries with the maps to search; several of one name belong together."""
    if "val" in which:
        model = load_model(str(weights_file("fcn_segment", weights)))
        val = [row for row, split in enumerate(frames.splits) if split == "val"]
        yield "val", QuerySet("every third frame of val", val[::3], networks.maps(model))
    for sequence in sorted(set(frames.sequences)) if "held_out" in which else ():
        own = [
            row
            for row, (split, each) in enumerate(zip(frames.splits, frames.sequences, strict=True))
            if split == "train" and each == sequence
        ]
        maps = networks.maps(networks.without(sequence))
        yield "held_out", QuerySet("every fifth frame of a sequence that wasn't trained on", own[::5], maps)


def rows_of(frames: Frames, each: QuerySet, vectors: dict[str, Tensor]) -> dict[str, dict[str, np.ndarray]]:
    """Returns name of a method → gain → each query's nDCG (Q,)."""
    left_out = frames.left_out(each.queries)
    gains = Gains.of(frames, each.queries, left_out, each.maps.shape[1])
    shares = each.maps.mean((2, 3)).double()
    distances = {
        **{name: -(rows[each.queries] @ rows.T).double() for name, rows in vectors.items()},
        "shares of the classes": torch.cdist(shares[each.queries], shares),
    }
    queries = asked(each.maps[each.queries], frames.labels[each.queries])
    distances |= {name: exact_distances(query, each.maps) for name, query in queries.items()}
    for centroids in tracked(CENTROIDS, "codes"):
        coded = Coded(each.maps, centroids)
        distances |= {f"{name}, K = {centroids}": coded.distances(query) for name, query in queries.items()}
    rows = {"random (expected)": {name: expected_at_random(gain, left_out) for name, gain in gains._asdict().items()}}
    for method, matrix in distances.items():
        rows[method] = {name: values(matrix, gain, left_out) for name, gain in gains._asdict().items()}
    return rows


def interval(found: np.ndarray, blocks: list[np.ndarray]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean: blocks are drawn until there are as many queries as in truth."""
    generator = np.random.default_rng(0)
    means = []
    for _ in range(_SAMPLES):
        drawn: list[np.ndarray] = []
        while sum(map(len, drawn)) < len(found):
            drawn.append(blocks[generator.integers(len(blocks))])
        means.append(np.nanmean(found[np.concatenate(drawn)[: len(found)]]))
    return tuple(np.percentile(means, (2.5, 97.5)))


def blocks_of(frames: Frames, queries: list[int]) -> list[np.ndarray]:
    """Returns, of each query, the positions of it and of those that follow it within a block."""
    sequences, numbers = frames.sequences[queries], frames.numbers[queries]
    return [
        np.flatnonzero((sequences == sequences[row]) & (numbers >= numbers[row]) & (numbers < numbers[row] + _BLOCK))
        for row in range(len(queries))
    ]


def table_of(title: str, rows: dict[str, dict[str, np.ndarray]], blocks: list[np.ndarray]) -> Table:
    """Returns means, their intervals, and the intervals of their differences from the baseline."""
    lines = []
    for method, found in rows.items():
        cells = []
        for name in GAINS:
            own, difference = found[name], found[name] - rows[BASELINE][name]
            cells.append(f"{np.nanmean(own):.3f} [{', '.join(f'{end:.3f}' for end in interval(own, blocks))}]")
            ends = ", ".join(f"{end:+.3f}" for end in interval(difference, blocks))
            cells.append("" if method == BASELINE else f"{np.nanmean(difference):+.3f} [{ends}]")
        lines.append([method, *cells])
    columns = [column for name in GAINS.values() for column in (name, f"less that of {BASELINE}")]
    count = len(next(iter(rows.values()))["agreement"])
    return Table(title, ["", *columns], lines, names=1, notes=[f"{count} queries."])


def joined(parts: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, np.ndarray]]:
    """Puts the queries of several networks together."""
    return {
        method: {name: np.concatenate([part[method][name] for part in parts]) for name in GAINS} for method in parts[0]
    }


def main() -> None:
    """Runs the command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--output", type=Path, help="Markdown file; else standard output")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"), help="(%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("outputs/fcn_segment_table"), help="(%(default)s)")
    parser.add_argument("--weights", default="camvid", help="of the first set: a name or a file (%(default)s)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--epochs", type=int, help="of the networks of the second set (as the recipe)")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    networks = Networks(options.cache, options.data, options.epochs)
    frames, vectors = Frames.read(networks.data), networks.pooled()
    parts: dict[str, list[tuple[QuerySet, Any]]] = {}
    for name, each in query_sets(frames, networks, options.weights, options.sets):
        say(f"{name}: {len(each.queries)} queries")
        parts.setdefault(name, []).append((each, rows_of(frames, each, vectors)))
    tables = []
    for found in parts.values():
        queries = [query for each, _ in found for query in each.queries]
        tables.append(table_of(found[0][0].title, joined([rows for _, rows in found]), blocks_of(frames, queries)))
    write_tables(tables, options.output)


if __name__ == "__main__":
    sys.exit(main())
