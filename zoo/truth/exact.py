"""Compiled search for the cheapest node map, depth-first branch and bound; imported with the kernels.

It serves "exact", where every difference costs, and "part", where what the gallery graph has beyond the query is free.
Substituting a node never costs more than deleting it and inserting another, edges included, so some cheapest edit
matches every node of the smaller graph: the search runs over injections of the smaller graph into the larger one, the
larger graph's left-over nodes being matched to one kind of absent node. Costs are doubled, because the bound gives
half of an edge to each of its ends. Plain reference of "exact": `zoo.truth.reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.truth.kernels import assign, compiled, pair_costs, star, substitutions


class Rules(NamedTuple):
    """What is free; the smaller graph's nodes are rows, the larger one's are columns."""

    rows: np.uint16  # all ones where an edge that only the smaller graph has costs, 0 where it is free
    columns: np.uint16  # likewise the larger graph's
    absent: np.int64  # cost, in units, of a node of the larger graph without a partner


class Search(NamedTuple):
    """Work space of one search (L levels = nodes matched so far, O nodes, row O of `cost` is the absent node)."""

    cost: np.ndarray  # (L, O + 1, O) doubled cost of a match, edges to the nodes matched before included
    bound: np.ndarray  # (L, O + 1, O) the same plus a share of the edges among unmatched nodes
    own: np.ndarray  # (L, O, 2R) degrees among the unmatched nodes of the smaller graph
    their: np.ndarray  # (L, O, 2R) likewise in the larger graph
    open_rows: np.ndarray  # (L, O) unmatched nodes of the smaller graph
    open_columns: np.ndarray  # (L, O) unmatched nodes of the larger graph
    base: np.ndarray  # (L,) doubled cost of what is matched
    row: np.ndarray  # (L,) place in open_rows of the node that is matched at this level
    child: np.ndarray  # (L,) number of its images tried
    images: np.ndarray  # (L, O) places in open_columns, most promising first
    slack: np.ndarray  # (L,) bound of this level without the row's own minimum


@compiled
def open_search(nodes, relations):
    """Work space for graphs of up to `nodes` nodes."""
    integer, levels = np.int64, nodes + 1
    return Search(
        np.empty((levels, nodes + 1, nodes), integer),
        np.empty((levels, nodes + 1, nodes), integer),
        np.empty((levels, nodes, 2 * relations), integer),
        np.empty((levels, nodes, 2 * relations), integer),
        np.empty((levels, nodes), integer),
        np.empty((levels, nodes), integer),
        np.empty(levels, integer),
        np.empty(levels, integer),
        np.empty(levels, integer),
        np.empty((levels, nodes), integer),
        np.empty(levels, integer),
    )


@compiled
def rules_of(costs, turn):
    """Rules of a pair; `turn` where the query is the larger graph."""
    every, none = np.uint16(0xFFFF), np.uint16(0)
    if not costs.part:
        return Rules(every, every, costs.unit)
    if turn:
        return Rules(none, every, costs.unit)
    return Rules(every, none, 0)


@compiled
def edits(row, column, edge, rules):
    """Edges to edit where one pair of nodes, by its code, becomes another."""
    return edge[(row ^ column) & (row | rules.columns) & (column | rules.rows)]


@compiled
def lost_at(row, column, rules):
    """Fewest edges lost at a node of degrees `row` matched to one of degrees `column`, one side being free."""
    total = 0
    for field in range(len(row)):
        total += max(row[field] - column[field] if rules.rows else column[field] - row[field], 0)
    return total


@compiled
def fill_bound(search, level, n, m, costs, rules, none):
    """Fill the level's `bound` for its open rows and columns and the absent node (last row, n - level)."""
    rows, columns = n - level, m - level
    for place in range(columns):
        k = search.open_columns[level, place]
        theirs = search.their[level, k]
        for line in range(rows):
            i = search.open_rows[level, line]
            own = search.own[level, i]
            share = lost_at(own, theirs, rules) if costs.part else star(own, theirs, costs)
            search.bound[level, line, place] = search.cost[level, i, k] + costs.unit * share
        share = lost_at(none, theirs, rules) if costs.part else star(none, theirs, costs)
        search.bound[level, rows, place] = search.cost[level, n, k] + costs.unit * share


@compiled
def lower_bound(search, level, n, m):
    """Doubled lower bound of all completions of a level; chooses the row to match next and sorts its images."""
    rows, columns, absent = n - level, m - level, m - n
    bound = search.bound[level]
    by_row, widest, chosen, least = 0, -1, 0, 0
    for line in range(rows + (absent > 0)):
        low, second = np.int64(1) << 60, np.int64(1) << 60
        for place in range(columns):
            value = bound[line, place]
            if value < low:
                low, second = value, low
            elif value < second:
                second = value
        by_row += low if line < rows else absent * low
        if line < rows and second - low > widest:
            widest, chosen, least = second - low, line, low
    by_column = 0
    for place in range(columns):
        low = bound[0, place]
        for line in range(1, rows + (absent > 0)):
            low = min(low, bound[line, place])
        by_column += low
    search.row[level], search.child[level] = chosen, 0
    search.slack[level] = search.base[level] + by_row - least
    for place in range(columns):
        spot = place
        while spot > 0 and bound[chosen, search.images[level, spot - 1]] > bound[chosen, place]:
            search.images[level, spot] = search.images[level, spot - 1]
            spot -= 1
        search.images[level, spot] = place
    return search.base[level] + max(by_row, by_column)


@compiled
def match(small, s, large, t, search, level, place, n, m, costs, rules):
    """Match the level's chosen row with the open column at `place` and set up the next level."""
    line, below = search.row[level], level + 1
    i, k = search.open_rows[level, line], search.open_columns[level, place]
    a, b = small.starts[s] + i * n, large.starts[t] + k * m
    search.base[below] = search.base[level] + search.cost[level, i, k]
    fields = 2 * costs.relations
    for spot in range(n - below):
        i2 = search.open_rows[level, spot + (spot >= line)]
        search.open_rows[below, spot] = i2
        code = small.codes[small.starts[s] + i2 * n + i]
        for field in range(fields):
            search.own[below, i2, field] = search.own[level, i2, field] - ((code >> field) & 1)
    for spot in range(m - below):
        k2 = search.open_columns[level, spot + (spot >= place)]
        search.open_columns[below, spot] = k2
        code = large.codes[large.starts[t] + k2 * m + k]
        for field in range(fields):
            search.their[below, k2, field] = search.their[level, k2, field] - ((code >> field) & 1)
        forth = large.codes[b + k2]
        for other in range(n - below):
            i2 = search.open_rows[below, other]
            changed = edits(small.codes[a + i2], forth, costs.edge, rules)
            search.cost[below, i2, k2] = search.cost[level, i2, k2] + 2 * costs.unit * changed
        inserted = edits(np.uint16(0), forth, costs.edge, rules)
        search.cost[below, n, k2] = search.cost[level, n, k2] + 2 * costs.unit * inserted


@compiled
def complete(large, t, search, n, m, costs, rules):
    """Doubled cost once every node of the smaller graph is matched: the rest of the larger graph is inserted."""
    total = search.base[n]
    for spot in range(m - n):
        k = search.open_columns[n, spot]
        total += search.cost[n, n, k]
        for other in range(spot):
            code = large.codes[large.starts[t] + k * m + search.open_columns[n, other]]
            total += 2 * costs.unit * edits(np.uint16(0), code, costs.edge, rules)
    return total


@compiled
def record(search, n, image):
    """Write the map that the search stands at into `image` (n,)."""
    for level in range(n):
        line, place = search.row[level], search.images[level, search.child[level] - 1]
        image[search.open_rows[level, line]] = search.open_columns[level, place]


@compiled
def induced_cost(small, s, large, t, image, node, costs, rules):
    """Cost of all edits when node i of the smaller graph becomes image[i]; `node` is the substitutions' cost."""
    n, m = small.offsets[s + 1] - small.offsets[s], large.offsets[t + 1] - large.offsets[t]
    a, b = small.starts[s], large.starts[t]
    edges, nothing = 0, np.uint16(0)
    for k in range(m):
        for j in range(k):
            edges += edits(nothing, large.codes[b + k * m + j], costs.edge, rules)
    for i in range(n):
        for j in range(i):
            target = large.codes[b + image[i] * m + image[j]]
            edges += edits(small.codes[a + i * n + j], target, costs.edge, rules)
            edges -= edits(nothing, target, costs.edge, rules)
    return node + rules.absent * (m - n) + costs.unit * edges


@compiled
def first_map(small, s, large, t, sub, search, costs, rules, square, image, work):
    """Doubled lower and upper bound from the optimal assignment of the root's bound."""
    n, m = small.offsets[s + 1] - small.offsets[s], large.offsets[t + 1] - large.offsets[t]
    for i in range(m):
        for k in range(m):
            square[i, k] = search.bound[0, min(i, n), k]
    assign(square, m, m, image, work)
    low, node = 0, 0
    for i in range(m):
        low += square[i, image[i]]
        if i < n:
            node += sub[i, image[i]]
    return low, 2 * induced_cost(small, s, large, t, image, node, costs, rules)


@compiled
def open_root(small, s, large, t, sub, search, rules, fields):
    """Set up level 0, where nothing is matched."""
    n, m = small.offsets[s + 1] - small.offsets[s], large.offsets[t + 1] - large.offsets[t]
    search.base[0] = 0
    for i in range(n):
        search.open_rows[0, i] = i
        for field in range(fields):
            search.own[0, i, field] = small.degrees[small.offsets[s] + i, field]
        for k in range(m):
            search.cost[0, i, k] = 2 * sub[i, k]
    for k in range(m):
        search.open_columns[0, k] = k
        for field in range(fields):
            search.their[0, k, field] = large.degrees[large.offsets[t] + k, field]
        search.cost[0, n, k] = 2 * rules.absent


@compiled
def exact_pair(small, s, large, t, sub, costs, rules, search, none, square, image, work, stop):
    """Least cost, in units, of a graph and one of at least its size, and in `image` a map of that cost.

    sub: substitution costs (O, O). Returns -1 where `stop` (1,) is set meanwhile or costs.most maps were no end.
    """
    n, m = small.offsets[s + 1] - small.offsets[s], large.offsets[t + 1] - large.offsets[t]
    open_root(small, s, large, t, sub, search, rules, 2 * costs.relations)
    level, tries = 0, 0
    fill_bound(search, level, n, m, costs, rules, none)
    low, best = first_map(small, s, large, t, sub, search, costs, rules, square, image, work)
    if low > best - 2 or n == 0:
        return best // 2
    lower_bound(search, level, n, m)
    while level >= 0:
        tried = search.child[level]
        place = search.images[level, min(tried, m - level - 1)]
        promise = search.slack[level] + search.bound[level, search.row[level], place]
        if tried == m - level or promise > best - 2:
            level -= 1
            continue
        tries += 1
        if stop[0] or tries > costs.most:
            return -1
        search.child[level] += 1
        match(small, s, large, t, search, level, place, n, m, costs, rules)
        if level + 1 == n:
            total = complete(large, t, search, n, m, costs, rules)
            if total < best:
                best = total
                record(search, n, image)
            continue
        fill_bound(search, level + 1, n, m, costs, rules, none)
        if lower_bound(search, level + 1, n, m) <= best - 2:
            level += 1
    return best // 2


@compiled
def exact_block(queries, gallery, costs, q0, q1, g0, g1, out, stop):
    """Write the least cost of queries q0:q1 and gallery g0:g1 into `out` (q1 - q0, g1 - g0).

    Returns query and gallery graph of a pair that `exact_pair` gave up, after which nothing is written, else -1, -1.
    """
    nodes = 1
    for q in range(q0, q1):
        nodes = max(nodes, queries.offsets[q + 1] - queries.offsets[q])
    for g in range(g0, g1):
        nodes = max(nodes, gallery.offsets[g + 1] - gallery.offsets[g])
    search, none = open_search(nodes, costs.relations), np.zeros(2 * costs.relations, np.int64)
    table = np.empty((nodes, len(gallery.tuples)), np.int64)
    sub, square = np.empty((nodes, nodes), np.int64), np.empty((nodes, nodes), np.int64)
    work, image = np.empty((6, nodes), np.int64), np.empty(nodes, np.int64)
    for q in range(q0, q1):
        substitutions(queries, q, gallery, costs, table)
        for g in range(g0, g1):
            turn = queries.offsets[q + 1] - queries.offsets[q] > gallery.offsets[g + 1] - gallery.offsets[g]
            pair_costs(queries, q, gallery, g, table, turn, sub)
            small, s, large, t = (gallery, g, queries, q) if turn else (queries, q, gallery, g)
            rules = rules_of(costs, turn)
            total = exact_pair(small, s, large, t, sub, costs, rules, search, none, square, image, work, stop)
            if total < 0:
                return q, g
            out[q - q0, g - g0] = total / costs.unit
    return -1, -1
