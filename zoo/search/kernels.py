"""Compiled loop of the region index; imported only when an index of regions is searched."""

from __future__ import annotations

from functools import partial

import numpy as np

from zoo.ops.compiling import compiled

TILE = 4  # query regions, against two stored ones at a time: as many sums as there are registers for

# Sums may be taken in any order, which vector instructions need; NaN and infinity keep their meaning.
_REORDERED = {"reassoc", "contract", "nsz"}


@partial(compiled, fastmath=_REORDERED)
def row_maxima(queries, rows, out):
    """Write for each row (T, D) its largest product with any of `queries (R, D)` to `out (T,)`.

    R must be a multiple of TILE, T even. A matrix product of so few query regions waits for the stored ones; here each
    is read from memory once.
    """
    for t in range(0, len(rows), 2):
        first, second = rows[t], rows[t + 1]
        best_first = best_second = np.float32(-np.inf)
        for q in range(0, len(queries), TILE):
            q0, q1, q2, q3 = queries[q], queries[q + 1], queries[q + 2], queries[q + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
            for d in range(rows.shape[1]):
                x, y = first[d], second[d]
                a0 += q0[d] * x
                b0 += q0[d] * y
                a1 += q1[d] * x
                b1 += q1[d] * y
                a2 += q2[d] * x
                b2 += q2[d] * y
                a3 += q3[d] * x
                b3 += q3[d] * y
            best_first = max(best_first, a0, a1, a2, a3)
            best_second = max(best_second, b0, b1, b2, b3)
        out[t], out[t + 1] = best_first, best_second
