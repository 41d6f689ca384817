"""Compiled loops over coded probability maps; imported only when some are searched."""

from __future__ import annotations

from functools import partial

import numpy as np

from zoo.ops.compiling import compiled

_LANES = 8  # cells whose centroids are added at a time, so that sums are loaded and stored less often
_TILE = 4096  # images whose distances stay in the first cache

# Sums may be taken in any order, which vector instructions need; NaN and infinity keep their meaning.
_REORDERED = {"reassoc", "contract", "nsz"}


@partial(compiled, fastmath=_REORDERED)
def add_products(values, cells, count, centroids, out):
    """Add to `out (K,)` the sum of `values (count,)` times the rows `cells (count,)` of `centroids (P, K)` uint8."""
    whole = count - count % _LANES
    for start in range(0, whole, _LANES):
        a, b, c, d, e, f, g, h = cells[start : start + _LANES]
        va, vb, vc, vd, ve, vf, vg, vh = values[start : start + _LANES]
        for k in range(out.shape[0]):
            first = va * np.float32(centroids[a, k]) + vb * np.float32(centroids[b, k])
            second = vc * np.float32(centroids[c, k]) + vd * np.float32(centroids[d, k])
            third = ve * np.float32(centroids[e, k]) + vf * np.float32(centroids[f, k])
            fourth = vg * np.float32(centroids[g, k]) + vh * np.float32(centroids[h, k])
            out[k] += (first + second) + (third + fourth)
    for place in range(whole, count):
        value, cell = values[place], cells[place]
        for k in range(out.shape[0]):
            out[k] += value * np.float32(centroids[cell, k])


@compiled
def products(query, classes, centroids, out):
    """Write to `out (T, K)` the products of the maps `query (T, P)` with the centroids of `classes (T,)`.

    `centroids (C, P, K)` uint8, in 255ths; cells where the query is 0 aren't read.
    """
    cells = np.empty(query.shape[1], np.int64)
    values = np.empty(query.shape[1], np.float32)
    for row in range(query.shape[0]):
        count = 0
        for cell in range(query.shape[1]):
            if query[row, cell] != 0:
                cells[count], values[count] = cell, query[row, cell]
                count += 1
        out[row, :] = 0
        add_products(values, cells, count, centroids[classes[row]], out[row])


@partial(compiled, fastmath=_REORDERED)
def add_up(tables, classes, codes, start, out):
    """Write to `out (n,)` what `tables (T, K)` of `classes (T,)` add up to for images `start` … of `codes (C, N)`."""
    rest = classes.shape[0] % 4
    for first in range(0, out.shape[0], _TILE):
        end = min(first + _TILE, out.shape[0])
        sums = out[first:end]
        sums[:] = 0
        low, high = start + first, start + end
        for row in range(0, classes.shape[0] - rest, 4):
            ta, tb, tc, td = tables[row], tables[row + 1], tables[row + 2], tables[row + 3]
            a, b = codes[classes[row], low:high], codes[classes[row + 1], low:high]
            c, d = codes[classes[row + 2], low:high], codes[classes[row + 3], low:high]
            for i in range(end - first):
                sums[i] += (ta[a[i]] + tb[b[i]]) + (tc[c[i]] + td[d[i]])
        for row in range(classes.shape[0] - rest, classes.shape[0]):
            table, own = tables[row], codes[classes[row], low:high]
            for i in range(end - first):
                sums[i] += table[own[i]]
