"""Compiled loops of the ranking metrics; imported only when a metric is computed on the CPU.

They work row by row on integers in the order of the scores, of 32 or 64 bits: a float read as an integer is in its
order already, up to the sign. The nearest item has the highest key, and of equal keys the one that comes first wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.ops.compiling import compiled

# Measured at 5,000 items: what costs as much as sorting the row.
SCAN = 64  # items kept in order while the row is scanned; more would pay for random rows, not for ascending ones
FEW = 128  # relevant items of which each is compared with the whole row
DIGIT = 11  # bits that one pass of the sort looks at


class Work(NamedTuple):
    """Work space of one row of N items."""

    keys: np.ndarray  # (N,) the row, int32 or int64
    places: np.ndarray  # (N,) column of each key, to begin with 0, 1, …
    order: np.ndarray  # (N,) positions in `keys`, nearest first
    spare: np.ndarray  # (N,)
    ranks: np.ndarray  # (N,) ranks of the relevant items that are found, from 0, ascending
    counts: np.ndarray  # (2**DIGIT,)


@compiled
def order_keys(bits, floating, keys):
    """Write integers in the order of the scores whose bits are given; what stands for NaN is arbitrary."""
    lowest = -1 << (8 * bits.itemsize - 1)
    for i in range(len(bits)):
        # A float is a sign and a magnitude: of two negative ones, the one with more bits is lower. -0 becomes 0.
        keys[i] = lowest - bits[i] if floating and bits[i] < 0 else bits[i]


@compiled
def drop(ignore, keys, places):
    """Close the gaps that ignored items leave and return how many items stay."""
    kept = 0
    for i in range(len(keys)):
        keys[kept] = keys[i]
        places[kept] = i
        kept += not ignore[i]
    return kept


@compiled
def take(bits, floating, ignore, q, work):
    """Load row q and return how many items it has; `ignore` is empty where nothing is ignored."""
    order_keys(bits[q], floating, work.keys)
    return drop(ignore[q], work.keys, work.places) if len(ignore) else len(work.keys)


# Loops of their own, without other arrays, are what LLVM turns into vector instructions.


@compiled
def count_from(keys, key):
    """Count the keys that are not below `key`."""
    count = 0
    for i in range(len(keys)):
        count += keys[i] >= key
    return count


@compiled
def count_above(keys, key):
    """Count the keys above `key`."""
    count = 0
    for i in range(len(keys)):
        count += keys[i] > key
    return count


@compiled
def scan(keys, k, order):
    """Write the positions of the k nearest items into `order`, which is kept sorted on the way."""
    if len(keys) == 0:
        return
    filled, threshold = 0, keys[0]
    for position in range(len(keys)):
        key = keys[position]
        if filled == k:
            if key <= threshold:
                continue
            filled -= 1
        place = filled
        while place > 0 and keys[order[place - 1]] < key:
            order[place] = order[place - 1]
            place -= 1
        order[place] = position
        filled += 1
        threshold = keys[order[filled - 1]]


@compiled
def sort(keys, work):
    """Return the positions of all items, nearest first: a radix sort from the lowest digit on, which is stable."""
    size, mask, width = len(keys), (1 << DIGIT) - 1, 8 * keys.itemsize
    order, spare, counts = work.order, work.spare, work.counts
    for i in range(size):
        order[i] = i
    for shift in range(0, width, DIGIT):
        # Inverting a digit sorts it downwards; the last one has the sign for its highest bit, which is upside down.
        flip = mask if shift + DIGIT < width else mask >> 1
        counts[:] = 0
        for i in range(size):
            counts[((keys[i] >> shift) & mask) ^ flip] += 1
        if counts[((keys[0] >> shift) & mask) ^ flip] == size:
            continue
        total = 0
        for bucket in range(len(counts)):
            counts[bucket], total = total, total + counts[bucket]
        for i in range(size):
            bucket = ((keys[order[i]] >> shift) & mask) ^ flip
            spare[counts[bucket]] = order[i]
            counts[bucket] += 1
        order, spare = spare, order
    return order


@compiled
def nearest(keys, k, work):
    """Return the positions of at least the k nearest items, nearest first."""
    if k > SCAN:
        return sort(keys, work)
    scan(keys, k, work.order)
    return work.order


@compiled
def compare(keys, relevant, k, ranks):
    """Write the ranks below k of the items at the positions `relevant`, ascending, and return their number."""
    found = 0
    for position in relevant:
        key = keys[position]
        rank = count_from(keys[:position], key) + count_above(keys[position + 1 :], key)
        if rank < k:
            place = found
            while place > 0 and ranks[place - 1] > rank:
                ranks[place] = ranks[place - 1]
                place -= 1
            ranks[place] = rank
            found += 1
    return found


@compiled
def count_listed(relevant, ignore):
    """Count a row's relevant items that are not ignored; both (N,), `ignore` empty where nothing is."""
    count = 0
    if len(ignore):
        for i in range(len(relevant)):
            count += relevant[i] and not ignore[i]
    else:
        for i in range(len(relevant)):
            count += relevant[i]
    return count


@compiled
def relevant_ranks(keys, relevant, listed, last, work):
    """Write the ranks below `last` of a row's `listed` relevant items into `work.ranks`; return how many there are.

    relevant: (N,) bool, by column.
    """
    if last > SCAN and listed <= FEW:
        filled = 0
        for position in range(len(keys)):
            work.spare[filled] = position
            filled += relevant[work.places[position]]
        return compare(keys, work.spare[:listed], last, work.ranks)
    order, found = nearest(keys, last, work), 0
    for rank in range(last):
        work.ranks[found] = rank
        found += relevant[work.places[order[rank]]]
    return found


@compiled
def retrieve(bits, floating, relevant, ignore, k, trapezoid, work, out):
    """Write listed, found, the last one's rank from 1 and the area under the precision of each query into `out`.

    bits: (Q, N) of the scores, int32 or int64. relevant: (Q, N) bool. ignore: (Q, N) bool or empty.
    """
    listed, found, last, area = out
    nothing = np.empty(0, np.bool_)
    for q in range(len(bits)):
        found[q], last[q], area[q] = 0, 0, 0.0
        listed[q] = count_listed(relevant[q], ignore[q] if len(ignore) else nothing)
        if listed[q] == 0:
            continue
        keys = work.keys[: take(bits, floating, ignore, q, work)]
        found[q] = relevant_ranks(keys, relevant[q], listed[q], min(k, len(keys)), work)
        for hit in range(found[q]):
            rank = work.ranks[hit]
            precision = (hit + 1) / (rank + 1)
            if trapezoid:
                precision = (precision + (hit / rank if rank else 1.0)) / 2
            area[q] += precision
            last[q] = rank + 1


@compiled
def discount(bits, floating, gains, ignore, exponential, weights, work, out):
    """Write each query's sum of the gains of the nearest items, times the weights (K,) of the ranks, into `out` (Q,).

    bits: (Q, N) of the scores, int32 or int64. gains: (Q, N) of any type. ignore: (Q, N) bool or empty.
    """
    for q in range(len(bits)):
        keys = work.keys[: take(bits, floating, ignore, q, work)]
        last = min(len(weights), len(keys))
        order = nearest(keys, last, work)
        out[q] = 0.0
        for rank in range(last):
            gain = np.float64(gains[q, work.places[order[rank]]])
            out[q] += (2.0**gain - 1.0 if exponential else gain) * weights[rank]
