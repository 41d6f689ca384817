"""Compiled search for a query's best place inside larger graphs; imported with the kernels.

What a graph has beyond the query costs nothing: the cost is that of turning the query into a part of the graph. An
object of the query that finds none left costs 1, a relation that the graph lacks or has turned costs 1, an attribute
below 0 fits any. Depth-first branch and bound over node maps, exact.
"""

from __future__ import annotations

import numpy as np

from zoo.truth.kernels import compiled


@compiled
def open_substitutions(queries, query, gallery, costs, table):
    """Write the cost of a query's nodes against the gallery's attribute tuples into `table` (O, V)."""
    first, tuples = queries.offsets[query], gallery.tuples
    n = queries.offsets[query + 1] - first
    for i in range(n):
        own = queries.tuples[queries.kinds[first + i]]
        for v in range(len(tuples)):
            differing = 0
            for a in range(len(own)):
                differing += own[a] >= 0 and own[a] != tuples[v, a]
            table[i, v] = differing if costs.soft else min(differing, 1)


@compiled
def lost_edges(queries, q, gallery, g, image, i, k, bits):
    """Relations between node i and those before it that are not there once i becomes k (-1: none)."""
    n, m = queries.offsets[q + 1] - queries.offsets[q], gallery.offsets[g + 1] - gallery.offsets[g]
    total = 0
    for j in range(i):
        own = queries.codes[queries.starts[q] + i * n + j]
        theirs = np.uint16(0)
        if k >= 0 and image[j] >= 0:
            theirs = gallery.codes[gallery.starts[g] + k * m + image[j]]
        total += bits[own & ~theirs]
    return total


@compiled
def part_pair(queries, q, gallery, g, table, costs, image, best_image, spent, least):
    """Cost, in units, of the query's best place in one graph; the map goes to `best_image`, -1 for an object lost."""
    n, m = queries.offsets[q + 1] - queries.offsets[q], gallery.offsets[g + 1] - gallery.offsets[g]
    first = gallery.offsets[g]
    least[n] = 0
    for i in range(n - 1, -1, -1):
        low = costs.unit
        for k in range(m):
            low = min(low, table[i, gallery.kinds[first + k]])
        least[i] = least[i + 1] + low
    best, level, used, may_lose = np.int64(1) << 60, 0, np.uint64(0), max(0, n - m)
    spent[0] = 0
    image[0] = -2  # nothing tried; k runs over the graph's nodes, then -1 stands for a lost object
    while level >= 0:
        if level == n:
            if spent[n] < best:
                best = spent[n]
                for i in range(n):
                    best_image[i] = image[i]
            level -= 1
            continue
        tried = image[level]
        if tried >= 0:
            used &= ~(np.uint64(1) << np.uint64(tried))
        elif tried == -1:
            may_lose += 1
            level -= 1
            continue
        k = max(tried, -1) + 1
        while k < m and (used >> np.uint64(k)) & np.uint64(1):
            k += 1
        if k == m:
            if may_lose == 0:
                level -= 1
                continue
            k = -1
            may_lose -= 1
        else:
            used |= np.uint64(1) << np.uint64(k)
        image[level] = k
        cost = table[level, gallery.kinds[first + k]] if k >= 0 else costs.unit
        cost += costs.unit * lost_edges(queries, q, gallery, g, image, level, k, costs.bits)
        spent[level + 1] = spent[level] + cost
        if spent[level + 1] + least[level + 1] < best:
            level += 1
            image[level] = -2
    return best


@compiled
def part_block(queries, gallery, costs, q0, q1, g0, g1, out):
    """Write the cost of the best place of queries q0:q1 in gallery g0:g1 into `out` (q1 - q0, g1 - g0)."""
    table = np.empty((64, len(gallery.tuples)), np.int64)
    image, best_image = np.empty(65, np.int64), np.empty(64, np.int64)
    spent, least = np.empty(65, np.int64), np.empty(65, np.int64)
    for q in range(q0, q1):
        open_substitutions(queries, q, gallery, costs, table)
        for g in range(g0, g1):
            cost = part_pair(queries, q, gallery, g, table, costs, image, best_image, spent, least)
            out[q - q0, g - g0] = cost / costs.unit
