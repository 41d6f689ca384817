"""Compiled canonical order of a graph's nodes: isomorphic graphs get equal arrays; imported with the kernels."""

from __future__ import annotations

import numpy as np

from zoo.truth.kernels import compiled


@compiled
def compare(a, b, length):
    """-1, 0 or 1 as `a` comes before, with or after `b` in lexicographic order."""
    for place in range(length):
        if a[place] != b[place]:
            return -1 if a[place] < b[place] else 1
    return 0


@compiled
def neighbourhood(codes, first, n, colours, i, key):
    """Write node i's colour and the sorted (code, colour) of all pairs it belongs to into `key` (n + 1,)."""
    key[0] = colours[i]
    for j in range(n):
        value = -1 if i == j else codes[first + i * n + j] * 64 + colours[j]
        place = j
        while place > 0 and key[place] > value:
            key[place + 1] = key[place]
            place -= 1
        key[place + 1] = value


@compiled
def refine(codes, first, n, colours, keys, order):
    """Split colour classes by their neighbourhoods until stable and return their number (Weisfeiler and Leman 1968).

    A colour is the number of nodes in the classes before it, so it is a place in the order once all are single.
    """
    cells = -1
    while True:
        for i in range(n):
            neighbourhood(codes, first, n, colours, i, keys[i])
            place = i
            while place > 0 and compare(keys[order[place - 1]], keys[i], n + 1) > 0:
                order[place] = order[place - 1]
                place -= 1
            order[place] = i
        found, name = 0, 0
        for place in range(n):
            if place == 0 or compare(keys[order[place - 1]], keys[order[place]], n + 1) != 0:
                found, name = found + 1, place
            colours[order[place]] = name
        if found in (cells, n):
            return found
        cells = found


@compiled
def next_member(colours, n, last):
    """Next node after `last` in the first colour class of several nodes, -1 after the last one."""
    target = n
    for i in range(n):
        for j in range(i):
            if colours[i] == colours[j] and colours[i] < target:
                target = colours[i]
    for i in range(last + 1, n):
        if colours[i] == target:
            return i
    return -1


@compiled
def single_out(colours, n, chosen, out):
    """Copy `colours` into `out` with the chosen node in a class of its own, before its former class."""
    for i in range(n):
        out[i] = colours[i] + (1 if i != chosen and colours[i] == colours[chosen] else 0)


@compiled
def visit_leaf(form, path, level, leaves, forms, paths):
    """Compare a leaf with the first and the best one so far: the level to go on from, and whether it is the best now.

    forms, paths: row 0 is the first leaf, row 1 the best. A leaf equal to an earlier one shows an automorphism that
    maps the earlier branch onto this one from where their paths part, so nothing new is to be found in it.
    """
    resume = level - 1
    for known in range(2 if leaves else 0):
        if compare(form, forms[known], len(form)) == 0:
            parting = 0
            while path[parting] == paths[known, parting]:
                parting += 1
            resume = min(resume, parting)
    better = leaves == 0 or compare(form, forms[1], len(form)) < 0
    for known in range(0 if leaves == 0 else 1, 2 if better else 0):
        for place in range(len(form)):
            forms[known, place] = form[place]
        for place in range(level):
            paths[known, place] = path[place]
    return resume, better


@compiled
def label(codes, first, n, colours, keys, order, best):
    """Write the canonical order of one graph into `best`; row 0 of `colours` holds the initial classes."""
    path, paths = np.empty(65, np.int64), np.empty((2, 65), np.int64)
    form, forms = np.empty(n * n, np.int64), np.empty((2, n * n), np.int64)
    level, leaves, path[0] = 0, 0, -1
    cells = refine(codes, first, n, colours[0], keys, order)
    while level >= 0:
        if cells == n:
            for i in range(n):
                order[colours[level, i]] = i
            for p in range(n):
                for q in range(n):
                    form[p * n + q] = codes[first + order[p] * n + order[q]]
            level, better = visit_leaf(form, path, level, leaves, forms, paths)
            for place in range(n if better else 0):
                best[place] = order[place]
            leaves += 1
            cells = -1
            continue
        chosen = next_member(colours[level], n, path[level])
        if chosen < 0:
            level -= 1
            continue
        path[level] = chosen
        level += 1
        path[level] = -1
        single_out(colours[level - 1], n, chosen, colours[level])
        cells = refine(codes, first, n, colours[level], keys, order)


@compiled
def canonical_order(graphs):
    """Node of its graph that takes each place in canonical order, (T,).

    Colour refinement from the attributes; where a class of several nodes remains, each is singled out in turn and
    the least code matrix wins, automorphic branches being skipped (McKay 1981).
    """
    result = np.empty(len(graphs.kinds), np.int64)
    keys, order = np.empty((64, 65), np.int64), np.empty(64, np.int64)
    colours = np.empty((65, 64), np.int64)
    for graph in range(len(graphs.offsets) - 1):
        first = graphs.offsets[graph]
        n = graphs.offsets[graph + 1] - first
        for i in range(n):
            colours[0, i] = 0
            for j in range(n):
                colours[0, i] += graphs.kinds[first + j] < graphs.kinds[first + i]
        label(graphs.codes, graphs.starts[graph], n, colours, keys, order, result[first : first + n])
    return result


@compiled
def reorder(graphs, order):
    """Kinds (T,), codes (P,) and degrees (T, 2R) with every graph's nodes put in the given order (T,)."""
    kinds, codes = np.empty_like(graphs.kinds), np.empty_like(graphs.codes)
    degrees = np.empty_like(graphs.degrees)
    for graph in range(len(graphs.offsets) - 1):
        first, start = graphs.offsets[graph], graphs.starts[graph]
        n = graphs.offsets[graph + 1] - first
        for p in range(n):
            kinds[first + p] = graphs.kinds[first + order[first + p]]
            for field in range(degrees.shape[1]):
                degrees[first + p, field] = graphs.degrees[first + order[first + p], field]
            for q in range(n):
                codes[start + p * n + q] = graphs.codes[start + order[first + p] * n + order[first + q]]
    return kinds, codes, degrees
