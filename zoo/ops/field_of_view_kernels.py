"""Compiled loops of the overlap of fields of view; imported only when one is asked for.

Lengths are in radii. A pair's frame is the first pose's: its apex is the origin, it looks along x, and the second apex
is at (x, y). Where two discs overlap, the line midway between their centres parts them: on either side only the disc of
the farther centre bounds. So the overlap is a convex polygon, parted by that line, inside one disc per part, which is
closed-form. Every step is continuous, so edges, arcs and apexes that coincide need no rules of their own.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from zoo.ops.compiling import compiled

CORNERS = 16  # room for a polygon; five corners become at most seven
BATCH = 1 << 20  # pairs collected at a time
NOTHING = 1e-14  # squared radii: rounding leaves less than this of sectors that only touch, and it shall be zero
# Fused products may round a corner's side of a line in two ways, so what decides on sides does without.
_FUSED = {"contract", "nsz"}


class Sector(NamedTuple):
    """Shape of all fields of view; one wider than half a turn is the disc without a convex wedge behind its apex."""

    radius: float  # m
    half: float  # half of the opening angle in radians: the sector's area in squared radii
    wide: bool  # whether the convex wedge is left out
    cosine: float  # of half of the convex wedge's angle
    sine: float
    union: bool  # whether the share is one of the union


@compiled
def directed(poses):
    """Return (N, 4) easting, northing, sine and cosine of the heading of poses (N, 3)."""
    result = np.empty((len(poses), 4))
    for i in range(len(poses)):
        heading = math.radians(poses[i, 2] % 360.0)
        result[i, 0], result[i, 1] = poses[i, 0], poses[i, 1]
        result[i, 2], result[i, 3] = math.sin(heading), math.cos(heading)
    return result


@compiled
def cut(polygons, source, size, x, y, across, up, target):
    """Write what polygon `source` has where (across, up) · (p - (x, y)) >= 0 to `target`; return its corners' number.

    polygons: (3, CORNERS, 2). Corners that aren't kept are overwritten by the next: a branch would cost more.
    """
    if size == 0:
        return 0
    kept = 0
    u, v = polygons[source, size - 1, 0], polygons[source, size - 1, 1]
    before = (u - x) * across + (v - y) * up
    for i in range(size):
        s, t = polygons[source, i, 0], polygons[source, i, 1]
        after = (s - x) * across + (t - y) * up
        share = abs(before) / (abs(before) + abs(after) + 1e-300)  # both may be zero
        polygons[target, kept, 0] = u + share * (s - u)
        polygons[target, kept, 1] = v + share * (t - v)
        kept += (before < 0.0) != (after < 0.0)
        polygons[target, kept, 0] = s
        polygons[target, kept, 1] = t
        kept += after >= 0.0
        before, u, v = after, s, t
    return kept


@partial(compiled, fastmath=_FUSED)
def turn(total, x, y, u, v):
    """Return `total` with the rotation from direction (x, y) to (u, v), times their lengths, multiplied in."""
    double, along, across = total
    dot, cross = x * u + y * v, x * v - y * u
    return double, along * dot - across * cross, along * cross + across * dot


@partial(compiled, fastmath=_FUSED)
def follow(total, x, y, u, v):
    """Return `total` after the edge from (x, y) to (u, v) of a polygon inside the unit disc around the origin.

    total: twice the area, and the turns along the arc as one complex number, so that one arc tangent does for all.
    """
    double, along, across = total
    cross = x * v - y * u
    if x * x + y * y <= 1.0 and u * u + v * v <= 1.0:
        return double + cross, along, across
    dx, dy = u - x, v - y
    squared = dx * dx + dy * dy
    root = squared - cross * cross
    if root <= 0.0:
        return turn(total, x, y, u, v)
    root, middle = math.sqrt(root), -(x * dx + y * dy)
    first, last = max((middle - root) / squared, 0.0), min((middle + root) / squared, 1.0)
    if first >= last:
        return turn(total, x, y, u, v)
    total = double + cross * (last - first), along, across
    if first > 0.0:
        total = turn(total, x, y, x + first * dx, y + first * dy)
    if last < 1.0:
        total = turn(total, x + last * dx, y + last * dy, u, v)
    return total


@compiled
def area_in_discs(polygons, source, size, x, y):
    """Return the area of a convex polygon inside the unit discs around the origin and (x, y)."""
    across, up = (x, y) if x * x + y * y > 0.0 else (1.0, 0.0)
    level = 0.5 * (x * across + y * up)
    total, crossed, own = (0.0, 1.0, 0.0), False, 0.0
    first_u = first_v = last_u = last_v = first_own = 0.0
    u, v = polygons[source, size - 1, 0], polygons[source, size - 1, 1]
    before = u * across + v * up - level
    for i in range(size):
        s, t = polygons[source, i, 0], polygons[source, i, 1]
        after = s * across + t * up - level
        own = 1.0 if after < 0.0 else 0.0  # nearer to the origin, so the other disc bounds
        if (before < 0.0) != (after < 0.0):
            share, left = before / (before - after), 1.0 - own
            p, q = u + share * (s - u), v + share * (t - v)
            total = follow(total, u - left * x, v - left * y, p - left * x, q - left * y)
            if crossed:  # the part that is entered goes on where it was left
                total = follow(total, last_u - own * x, last_v - own * y, p - own * x, q - own * y)
            else:
                first_u, first_v, first_own, crossed = p, q, own, True
            u, v, last_u, last_v = p, q, p, q
        total = follow(total, u - own * x, v - own * y, s - own * x, t - own * y)
        before, u, v = after, s, t
    if crossed:
        own = first_own
        total = follow(total, last_u - own * x, last_v - own * y, first_u - own * x, first_v - own * y)
    # The arcs of an overlap of convex sectors add up to 240 degrees at most, so only rounding is below zero.
    angle = math.atan2(total[2], total[1])
    return 0.5 * (total[0] + (angle if angle > -1.0 else angle + 2.0 * math.pi))


@partial(compiled, fastmath=_FUSED)
def reach(along, across, cosine, sine):
    """Return how far a convex sector reaches, from its apex, in the direction that it sees as (along, across)."""
    return 1.0 if along >= cosine else max(along * cosine + abs(across) * sine, 0.0)


@partial(compiled, fastmath=_FUSED)
def beyond(x, y, c, s, cosine, sine):
    """Return whether a sector at (x, y) with heading (c, s) lies outside one of the two edges of the frame's wedge."""
    along, across = x * sine, y * cosine
    left = along - across + reach(c * sine - s * cosine, s * sine + c * cosine, cosine, sine)
    right = along + across + reach(c * sine + s * cosine, s * sine - c * cosine, cosine, sine)
    return min(left, right) <= 0.0


@partial(compiled, fastmath=_FUSED)
def convex_area(x, y, c, s, cosine, sine, polygons):
    """Return the area shared by a convex sector and the one at (x, y) with heading (c, s)."""
    if beyond(x, y, c, s, cosine, sine) or beyond(-x * c - y * s, x * s - y * c, c, -s, cosine, sine):
        return 0.0
    size = cut(polygons, 0, 5, x, y, c * sine - s * cosine, c * cosine + s * sine, 1)
    size = cut(polygons, 1, size, x, y, c * sine + s * cosine, s * sine - c * cosine, 2)
    return area_in_discs(polygons, 2, size, x, y) if size > 2 else 0.0


@partial(compiled, fastmath=_FUSED)
def overlap(a, i, b, j, sector, polygons):
    """Return the overlap of pose `a[i]` with `b[j]`, both as `directed` returns them."""
    east, north = (b[j, 0] - a[i, 0]) / sector.radius, (b[j, 1] - a[i, 1]) / sector.radius
    squared = east * east + north * north
    if not squared < 4.0:
        return 0.0
    sine, cosine = a[i, 2], a[i, 3]
    if squared == 0.0 and sine == b[j, 2] and cosine == b[j, 3]:
        return 1.0
    x, y = east * sine + north * cosine, north * sine - east * cosine
    c, s = b[j, 2] * sine + b[j, 3] * cosine, b[j, 3] * sine - b[j, 2] * cosine
    if sector.wide:
        x, y = -x, -y
    area = convex_area(x, y, c, s, sector.cosine, sector.sine, polygons)
    if sector.wide:
        distance, chord = math.sqrt(squared), math.sqrt(4.0 - squared)
        area += 2.0 * math.atan2(chord, distance) - 0.5 * distance * chord
        area -= area_in_discs(polygons, 0, 5, x, y)
        area -= area_in_discs(polygons, 0, 5, -x * c - y * s, x * s - y * c)
    if area <= NOTHING:
        return 0.0
    share = min(area / sector.half, 1.0)
    return share / (2.0 - share) if sector.union else share


@compiled
def open_polygons(sector):
    """Work space for polygons, of which the first is the convex sector with its arc replaced by a rectangle's end."""
    polygons = np.zeros((3, CORNERS, 2))
    polygons[0, 1, 0] = polygons[0, 4, 0] = sector.cosine
    polygons[0, 2, 0] = polygons[0, 3, 0] = 1.0
    polygons[0, 1, 1] = polygons[0, 2, 1] = -sector.sine
    polygons[0, 3, 1] = polygons[0, 4, 1] = sector.sine
    return polygons


@compiled
def overlaps(a, rows, b, columns, sector, out):
    """Write the overlap of `a[rows[i]]` with `b[columns[i]]` to `out[i]`."""
    polygons = open_polygons(sector)
    for i in range(len(rows)):
        out[i] = overlap(a, rows[i], b, columns[i], sector, polygons)


@compiled
def collect(poses, strips, first, sector, rows, columns, values):
    """Write pairs that overlap from pose `first` on until BATCH are there; return the next pose and the pairs' number.

    poses: `directed`, (N, 4), by strip, then easting. strips: (N,) number of the strip, as high as two radii, that
    holds a pose. Every pair is found once, by its pose that comes first. rows, columns, values: (BATCH + N,).
    """
    polygons, width, filled = open_polygons(sector), 2.0 * sector.radius, 0
    ahead = 0
    for i in range(first, len(poses)):
        if filled >= BATCH:
            return i, filled
        if i == first or strips[i] != strips[i - 1]:
            ahead = np.searchsorted(strips, strips[i] + 1.0)
        while ahead < len(poses) and strips[ahead] == strips[i] + 1.0 and poses[ahead, 0] < poses[i, 0] - width:
            ahead += 1
        for start, strip in ((i + 1, strips[i]), (ahead, strips[i] + 1.0)):
            j = start
            while j < len(poses) and strips[j] == strip and poses[j, 0] <= poses[i, 0] + width:
                value = overlap(poses, i, poses, j, sector, polygons)
                if value > 0.0:
                    rows[filled], columns[filled], values[filled] = i, j, value
                    filled += 1
                j += 1
    return len(poses), filled


@compiled
def place(rows, columns, values, ends, partners, shares):
    """Append pairs to their rows' lists, the columns to `partners`; `ends` (N,) is where each list ends so far."""
    for pair in range(len(rows)):
        end = ends[rows[pair]]
        partners[end], shares[end] = columns[pair], values[pair]
        ends[rows[pair]] = end + 1


@compiled
def mirror(bounds, partners, shares, starts, columns, values):
    """Fill a table whose rows begin at `starts` (N + 1,), columns ascending, from lists of the pairs (low, high).

    bounds: (N + 1,) begins of the lists of `partners`, the high ones, and `shares` of each low one. Rows taken in
    ascending order append themselves to their partners' rows, which thus come out sorted, first below the diagonal.
    """
    size = len(starts) - 1
    ends = starts[:-1].copy()
    for low in range(size):
        for pair in range(bounds[low], bounds[low + 1]):
            end = ends[partners[pair]]
            columns[end], values[end] = low, shares[pair]
            ends[partners[pair]] = end + 1
    diagonal = ends.copy()
    for row in range(size):
        columns[diagonal[row]], values[diagonal[row]] = row, 1.0
        ends[row] += 1
    for high in range(size):
        for pair in range(starts[high], diagonal[high]):
            end = ends[columns[pair]]
            columns[end], values[end] = high, values[pair]
            ends[columns[pair]] = end + 1


@compiled
def affinities(starts, columns, values, rows, anchors, out):
    """Write the table's entries at rows (B, K) and anchors (B, L), -1 = none, to `out` (B, K, L), which holds zeros.

    The table is symmetric, so the anchors' rows serve, which are fewer.
    """
    places = np.full(len(starts) - 1, -1, np.int32)  # the last place of an image in the list of rows at hand
    earlier = np.empty(rows.shape[1], np.int32)  # the place before it
    for item in range(len(rows)):
        for k, row in enumerate(rows[item]):
            if row >= 0:
                earlier[k], places[row] = places[row], k
        for slot, anchor in enumerate(anchors[item]):
            if anchor < 0:
                continue
            for entry in range(starts[anchor], starts[anchor + 1]):
                k = places[columns[entry]]
                while k >= 0:
                    out[item, k, slot] = values[entry]
                    k = earlier[k]
        for row in rows[item]:
            if row >= 0:
                places[row] = -1
