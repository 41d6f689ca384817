"""Times the overlap of fields of view against Shapely's intersections, the table of all pairs, and blocks of it.

    python tools/benchmarks/field_of_view.py [--poses 100000] [--rounds 5]

One process and thread, CPU time, candidates interleaved, median over the rounds. Sectors of 50 m and 90 degrees; the
pairs of poses that are compared are at most two radii apart. Shapely's polygons have 64 corners on the arc and are
built beforehand. Goals: 50 times Shapely for pairs of which each pose occurs in many, as polygons do that are built
once, and 5 ms for a block.
"""

from __future__ import annotations

import argparse
import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
import shapely
import torch
from timing import measured

from zoo.ops.field_of_view import affinity_block, field_of_view_overlap, overlapping_pairs

RADIUS, ANGLE, CORNERS = 50.0, 90.0, 64
SIDE = 70.0  # m; no two places in such a square are more than two radii apart
QUERIES, CLIPPED = 1_000, 4_000  # poses on either side, and the pairs of them that Shapely intersects
ENTRIES = 100  # of a row of the table
BATCH, ROWS, ANCHORS = 32, 319, 127
TOLERANCE = 5e-4  # of polygons with so few corners


def poses_in_square(count: int, side: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform((0, 0, 0), (side, side, 360), (count, 3))


def polygons(poses: np.ndarray) -> np.ndarray:
    turns = np.deg2rad(poses[:, 2:] + np.linspace(-ANGLE / 2, ANGLE / 2, CORNERS))
    arcs = poses[:, None, :2] + RADIUS * np.stack([np.sin(turns), np.cos(turns)], axis=2)
    return shapely.polygons(np.concatenate([poses[:, None, :2], arcs], axis=1))


def print_overlap(rounds: int) -> None:
    a, b = (poses_in_square(QUERIES, SIDE, seed) for seed in (0, 1))
    generator = np.random.default_rng(2)
    rows, columns = generator.integers(0, QUERIES, (2, QUERIES * QUERIES))
    clipped_a, clipped_b = polygons(a)[rows[:CLIPPED]], polygons(b)[columns[:CLIPPED]]
    single_a, single_b = a[rows], b[columns]
    names = f"Shapely, {CORNERS} corners, built before", "single pairs", f"all pairs of {QUERIES:,} and {QUERIES:,}"
    runs = {
        names[0]: lambda: shapely.area(shapely.intersection(clipped_a, clipped_b)),
        names[1]: lambda: field_of_view_overlap(single_a, single_b, RADIUS, ANGLE),
        names[2]: lambda: field_of_view_overlap(a[:, None], b, RADIUS, ANGLE),
    }
    seconds = measured(runs, rounds)
    pairs = {name: CLIPPED if name == names[0] else QUERIES * QUERIES for name in names}
    for name, goal in zip(names, ("", "", ">= 50x"), strict=True):
        each = seconds[name] / pairs[name]
        ratio = seconds[names[0]] / CLIPPED / each
        print(f"{name:38}{each * 1e9:12,.0f} ns{1 / each / 1e6:13.2f} M/s{ratio:12.0f}x{goal:>10}")
    area = RADIUS**2 * np.deg2rad(ANGLE / 2)
    gap = np.abs(runs[names[0]]() / area - runs[names[1]]()[:CLIPPED].numpy()).max()
    if gap > TOLERANCE:
        raise SystemExit(f"overlaps differ by {gap:.1e}, more than {TOLERANCE:.0e}")


def print_table(count: int, rounds: int) -> None:
    # A pair within two radii shares something in three cases of ten.
    side = (count * np.pi * (2 * RADIUS) ** 2 * 0.3 / ENTRIES) ** 0.5
    table = overlapping_pairs(poses_in_square(count, side, 3), RADIUS, ANGLE, "area")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, count, (BATCH, ROWS), generator=generator)
    anchors = torch.stack([torch.randperm(count, generator=generator)[:ANCHORS] for _ in range(BATCH)])
    poses = poses_in_square(count, side, 3)
    names = f"table of {count:,} poses", f"block {BATCH} x {ROWS} x {ANCHORS}"
    runs = {
        names[0]: lambda: overlapping_pairs(poses, RADIUS, ANGLE, "area"),
        names[1]: lambda: affinity_block(*table, rows, anchors),
    }
    seconds = measured(runs, rounds)
    entries = len(table[1])
    print(f"{names[0]:38}{seconds[names[0]]:12.2f} s {entries / seconds[names[0]] / 1e6:13.2f} M/s")
    print(f"{names[1]:38}{seconds[names[1]] * 1e3:12.2f} ms{'':30}{'<= 5 ms':>10}")
    print(f"\nThe table has {entries:,} entries, {entries / count:.0f} a row.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poses", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Sectors of {RADIUS:.0f} m and {ANGLE:.0f} degrees, CPU time of one thread, Shapely {shapely.__version__}\n")
    print(f"{'':38}{'CPU time':>15}{'pairs':>17}{'to Shapely':>13}{'goal':>10}")
    print_overlap(options.rounds)
    print_table(options.poses, options.rounds)


if __name__ == "__main__":
    main()
