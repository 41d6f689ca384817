"""Compiled loops of the edit distance; imported only when a distance is asked for.

All costs are integers: `unit` stands for 1 (the number of attributes for soft nodes, else 1), so that no tie is decided
by rounding. An ordered pair of nodes (i, j) has a `code`: bit 2r says i→j by relation r, bit 2r + 1 says j→i. The cost
of matching two pairs is a table look-up on the exclusive or of their codes. `plain` references: `zoo.truth.reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.ops.compiling import compiled

FAR = 1 << 60


class Graphs(NamedTuple):
    """Packed graphs as the kernels read them (G graphs, T nodes, P = Σ O² ordered pairs of nodes)."""

    offsets: np.ndarray  # (G + 1,) first node of a graph
    kinds: np.ndarray  # (T,) row of `tuples`
    tuples: np.ndarray  # (V, A) distinct attribute tuples, in lexicographic order
    starts: np.ndarray  # (G + 1,) first pair of a graph
    codes: np.ndarray  # (P,) row-major codes of a graph's pairs
    degrees: np.ndarray  # (T, 2R) edges out of and into a node, per relation
    ranks: np.ndarray  # (G,) place of a graph's canonical form in an order of all forms


class Costs(NamedTuple):
    """What an edit costs."""

    part: bool  # what the gallery has beyond the query is free
    most: int  # maps that a search tries for one pair

    soft: bool  # a node substitution costs the number of attributes that differ, else 1 if any does
    unit: int  # integer that stands for a cost of 1
    relations: int
    single: np.ndarray  # (R,) True where a reversed edge is one substitution
    edge: np.ndarray  # (4**R,) edges to edit, by the exclusive or of two codes
    bits: np.ndarray  # (4**R,) number of bits that are set


@compiled
def pair_codes(offsets, starts, adjacency):
    """Codes (P,) and degrees (T, 2R) from adjacency masks (T, R)."""
    relations = adjacency.shape[1]
    codes = np.zeros(starts[-1], np.uint16)
    degrees = np.zeros((len(adjacency), 2 * relations), np.int64)
    for graph in range(len(offsets) - 1):
        first, start, size = offsets[graph], starts[graph], offsets[graph + 1] - offsets[graph]
        for pair in range(size * size):
            i, j = pair // size, pair % size
            for r in range(relations):
                edge = (adjacency[first + i, r] >> np.uint64(j)) & np.uint64(1)
                codes[start + pair] |= np.uint16(edge << np.uint64(2 * r))
                codes[start + j * size + i] |= np.uint16(edge << np.uint64(2 * r + 1))
                degrees[first + i, 2 * r] += edge
                degrees[first + j, 2 * r + 1] += edge
    return codes, degrees


@compiled
def reach_columns(row_cost, base, current, last, work):
    """Shorten the paths to the open columns by way of one row: the length of the shortest and its place."""
    column_dual, reach, parent, row_of, open_columns = work[1], work[2], work[3], work[4], work[5]
    lowest, place = FAR, 0
    for position in range(last):
        j = open_columns[position]
        length = base + row_cost[j] - column_dual[j]
        if length < reach[j]:
            reach[j] = length
            parent[j] = current
        if reach[j] < lowest or (reach[j] == lowest and row_of[j] < 0):
            lowest, place = reach[j], position
    return lowest, place


@compiled
def first_columns(row_cost, columns, work):
    """Start the paths of a row: the shortest step, and a free column that it reaches, else minus one less the last."""
    column_dual, reach, row_of = work[1], work[2], work[4]
    lowest, nearest = FAR, 0
    for j in range(columns):
        reach[j] = row_cost[j] - column_dual[j]
        lowest = min(lowest, reach[j])
    for j in range(columns):
        if reach[j] == lowest:
            if row_of[j] < 0:
                return lowest, j
            nearest = j
    return lowest, -1 - nearest


@compiled
def assign(cost, rows, columns, column_of, work):
    """Write the cheapest assignment of `rows` ≤ `columns` into `column_of`, with SciPy's ties.

    Shortest augmenting paths (Crouse 2016). Columns are scanned from the last to the first, a scanned column trades
    places with the last open one, and among equal costs a free column wins: the rules by which
    `scipy.optimize.linear_sum_assignment` decides ties. cost: (≥ rows, ≥ columns) int64. work: (6, ≥ columns) int64.
    """
    row_dual, column_dual, reach, parent, row_of, open_columns = work
    for j in range(columns):
        column_dual[j] = 0
        row_of[j] = -1
    for row in range(rows):
        lowest, sink = first_columns(cost[row], columns, work)
        row_dual[row] = lowest
        if sink >= 0:  # most rows end here, and no other row's or column's dual changes
            row_of[sink], column_of[row] = row, sink
            continue
        j, row_dual[row] = -1 - sink, 0
        for column in range(columns):
            open_columns[column] = columns - 1 - column
            parent[column] = row
        last, place = columns, columns - 1 - j
        while True:
            last -= 1
            open_columns[place] = open_columns[last]
            open_columns[last] = j
            current = row_of[j]
            if current < 0:
                sink = j
                break
            lowest, place = reach_columns(cost[current], lowest - row_dual[current], current, last, work)
            j = open_columns[place]
        row_dual[row] = lowest
        for position in range(last, columns):
            j = open_columns[position]
            if j != sink:
                row_dual[row_of[j]] += lowest - reach[j]
                column_dual[j] -= lowest - reach[j]
        while True:
            current = parent[sink]
            row_of[sink] = current
            if current == row:
                column_of[current] = sink
                break
            column_of[current], sink = sink, column_of[current]


@compiled
def substitutions(queries, query, gallery, costs, table):
    """Write the costs of a query's nodes, below 0 fits any, and the gallery's attribute tuples into `table` (O, V)."""
    first, tuples = queries.offsets[query], gallery.tuples
    for i in range(queries.offsets[query + 1] - first):
        own = queries.tuples[queries.kinds[first + i]]
        for v in range(len(tuples)):
            differing = 0
            for a in range(len(own)):
                differing += own[a] >= 0 and own[a] != tuples[v, a]
            table[i, v] = differing if costs.soft else min(differing, 1)


@compiled
def pair_costs(queries, q, gallery, g, table, turn, sub):
    """Write the substitution costs of one pair into `sub` (O, O), the query's nodes as rows unless `turn`."""
    first = gallery.offsets[g]
    for k in range(gallery.offsets[g + 1] - first):
        kind = gallery.kinds[first + k]
        for i in range(queries.offsets[q + 1] - queries.offsets[q]):
            if turn:
                sub[k, i] = table[i, kind]
            else:
                sub[i, k] = table[i, kind]


@compiled
def pad_square(cost, n, m, unit):
    """Put the deletion, insertion and empty blocks around the substitution costs (n, m): forbidden cells cost 5."""
    for i in range(n):
        for k in range(n):
            cost[i, m + k] = unit if k == i else 5 * unit
    for i in range(m):
        for k in range(m):
            cost[n + i, k] = unit if k == i else 5 * unit
        for k in range(n):
            cost[n + i, m + k] = 0


@compiled
def authors_block(queries, gallery, costs, q0, q1, g0, g1, out):
    """Write the authors' distance of queries q0:q1 and gallery g0:g1 into `out` (q1 - q0, g1 - g0)."""
    table = np.empty((64, len(gallery.tuples)), np.int64)
    squares, padded = np.empty((65, 128, 128), np.int64), np.empty(65, np.int64)
    work = np.empty((6, 128), np.int64)
    column_of = np.empty(128, np.int64)
    for q in range(q0, q1):
        substitutions(queries, q, gallery, costs, table)
        n = queries.offsets[q + 1] - queries.offsets[q]
        padded[:] = 0
        for g in range(g0, g1):
            m = gallery.offsets[g + 1] - gallery.offsets[g]
            cost = squares[m]  # one for each size, whose padding serves all graphs of it
            if not padded[m]:
                pad_square(cost, n, m, costs.unit)
                padded[m] = 1
            pair_costs(queries, q, gallery, g, table, False, cost)
            assign(cost, n + m, n + m, column_of, work)
            node = 0
            for i in range(n + m):
                node += cost[i, column_of[i]]
            turned = inverted_edges(queries, q, gallery, g, column_of, costs.bits)
            out[q - q0, g - g0] = (costs.relations * node + costs.unit * turned) / costs.unit


@compiled
def inverted_edges(queries, q, gallery, g, image, bits):
    """Count the query's edges whose image is there in reverse and not forwards."""
    n, m = queries.offsets[q + 1] - queries.offsets[q], gallery.offsets[g + 1] - gallery.offsets[g]
    total = 0
    for i in range(n):
        if image[i] >= m:
            continue
        for j in range(i + 1, n):
            if image[j] < m:
                own = queries.codes[queries.starts[q] + i * n + j]
                forward = gallery.codes[gallery.starts[g] + image[i] * m + image[j]]
                reverse = gallery.codes[gallery.starts[g] + image[j] * m + image[i]]
                total += bits[own & reverse & ~forward]
    return total


@compiled
def star(a, b, costs):
    """Fewest edge edits at a node of degrees `a` matched to one of degrees `b`, all its pairs considered, (2R,)."""
    total = 0
    for r in range(costs.relations):
        out, into = a[2 * r] - b[2 * r], a[2 * r + 1] - b[2 * r + 1]
        total += max(abs(out), abs(into), abs(out + into)) if costs.single[r] else abs(out) + abs(into)
    return total


class Matching(NamedTuple):
    """Work space of the bipartite method; the smaller graph is padded with absent nodes to the larger one's O."""

    cost: np.ndarray  # (O, O)
    image: np.ndarray  # (O,) node of the larger graph that a node is matched to
    work: np.ndarray  # (6, O)
    own: np.ndarray  # (O, O) codes of the smaller graph's pairs, 0 where a node is absent
    theirs: np.ndarray  # (O, O) codes of their images
    edits: np.ndarray  # (O,) edges at a node to edit


@compiled
def open_matching():
    """Work space for graphs of up to 64 nodes."""
    return Matching(
        np.empty((64, 64), np.int64),
        np.empty(64, np.int64),
        np.empty((6, 64), np.int64),
        np.empty((64, 64), np.uint16),
        np.empty((64, 64), np.uint16),
        np.empty(64, np.int64),
    )


@compiled
def align(small, s, large, t, matching, edge):
    """Send absent nodes to what is left of the larger graph and fill `own`, `theirs` and `edits`."""
    n, m = small.offsets[s + 1] - small.offsets[s], large.offsets[t + 1] - large.offsets[t]
    image, spare = matching.image, n
    for k in range(m):
        if matching.work[4, k] < 0:  # the assignment gave this column no row
            image[spare] = k
            spare += 1
    for i in range(m):
        edits = 0
        for j in range(m):
            own = small.codes[small.starts[s] + i * n + j] if i < n and j < n else np.uint16(0)
            theirs = large.codes[large.starts[t] + image[i] * m + image[j]]
            matching.own[i, j], matching.theirs[i, j] = own, theirs
            edits += edge[own ^ theirs]
        matching.edits[i] = edits


@compiled
def exchange_gain(matching, m, i, j, edge):
    """Edges whose edit is saved when nodes i and j exchange their images."""
    own, theirs = matching.own, matching.theirs
    exchanged = 0
    for other in range(m):
        exchanged += edge[own[i, other] ^ theirs[j, other]] + edge[own[j, other] ^ theirs[i, other]]
    exchanged -= 2 * (edge[own[i, j]] + edge[theirs[i, j]])  # the places i and j of the sum hold no pair
    kept = edge[own[i, j] ^ theirs[i, j]]
    return matching.edits[i] + matching.edits[j] - kept - exchanged - edge[own[i, j] ^ theirs[j, i]]


@compiled
def exchange(matching, m, i, j, edge):
    """Exchange the images of nodes i and j."""
    image, own, theirs, edits = matching.image, matching.own, matching.theirs, matching.edits
    image[i], image[j] = image[j], image[i]
    for other in range(m):
        theirs[i, other], theirs[j, other] = theirs[j, other], theirs[i, other]
    edits[i] = edits[j] = 0
    for other in range(m):
        before = edge[own[other, i] ^ theirs[other, i]] + edge[own[other, j] ^ theirs[other, j]]
        theirs[other, i], theirs[other, j] = theirs[other, j], theirs[other, i]
        for node in (i, j):
            now = edge[own[other, node] ^ theirs[other, node]]
            edits[node] += now
            if other != i and other != j:
                edits[other] += now
        if other != i and other != j:
            edits[other] -= before


@compiled
def exchange_ties(n, m, sub, matching, edge):
    """Exchange the images of two nodes while node costs stay equal and fewer edges need an edit."""
    image = matching.image
    improved = True
    while improved:
        improved = False
        for i in range(n):
            for j in range(i + 1, m):
                change = sub[i, image[j]] - sub[i, image[i]]
                if j < n:
                    change += sub[j, image[i]] - sub[j, image[j]]
                if change == 0 and exchange_gain(matching, m, i, j, edge) > 0:
                    exchange(matching, m, i, j, edge)
                    improved = True


@compiled
def bipartite_pair(small, s, large, t, sub, costs, matching):
    """Bipartite distance, in units, from substitution costs (O, O), with the smaller canonical form first.

    Substituting never costs more than deleting and inserting, so the cheapest node edit matches every node of the
    smaller graph and the square (O + O) assignment shrinks to a rectangular one. Equal node costs are told apart by
    the edges that a node's degrees force to be edited, then by exchanges, what remains equal by the canonical order.
    """
    n, m = small.offsets[s + 1] - small.offsets[s], large.offsets[t + 1] - large.offsets[t]
    outweigh = np.int64(1) << 24  # above any sum of star costs: 64 nodes × 63 partners × 16 bits × 2
    none = np.zeros(2 * costs.relations, np.int64)
    for k in range(m):
        degrees = large.degrees[large.offsets[t] + k]
        unmatched = star(none, degrees, costs)
        for i in range(n):
            context = star(small.degrees[small.offsets[s] + i], degrees, costs) - unmatched
            matching.cost[i, k] = sub[i, k] * outweigh + context
    assign(matching.cost, n, m, matching.image, matching.work)
    align(small, s, large, t, matching, costs.edge)
    exchange_ties(n, m, sub, matching, costs.edge)
    node, ends = 0, 0
    for i in range(m):
        node += sub[i, matching.image[i]] if i < n else costs.unit
        ends += matching.edits[i]
    return node + costs.unit * (ends // 2)


@compiled
def bipartite_block(queries, gallery, costs, q0, q1, g0, g1, out):
    """Write the bipartite distance of queries q0:q1 and gallery g0:g1, both in canonical order, into `out`."""
    table = np.empty((64, len(gallery.tuples)), np.int64)
    sub = np.empty((64, 64), np.int64)
    matching = open_matching()
    for q in range(q0, q1):
        substitutions(queries, q, gallery, costs, table)
        for g in range(g0, g1):
            if queries.ranks[q] == gallery.ranks[g]:
                out[q - q0, g - g0] = 0
                continue
            turn = queries.ranks[q] > gallery.ranks[g]
            pair_costs(queries, q, gallery, g, table, turn, sub)
            small, s, large, t = (gallery, g, queries, q) if turn else (queries, q, gallery, g)
            out[q - q0, g - g0] = bipartite_pair(small, s, large, t, sub, costs, matching) / costs.unit
