"""Compiled layers of the correlation network; imported only when pairs are scored on the CPU.

Five by five results of a 3x3 convolution come from seven by seven products instead of 225 (Winograd's F(5x5, 3x3), by
the points 1/2, -1/2, 1, -1, 2, -2 and infinity, whose pairs share half of the sums). What lies between two products
concerns one channel at a time, whose map stays in the nearest cache. Every number is `WIDTH` of them, one per pair.
Shapes: K and N channels in and out, H x W cells, T tiles in rows and columns of five cells; a channel's `cells
(H, W, WIDTH)`, inputs at the points `points (K / DEPTH, 49, T, DEPTH, WIDTH)`, their products with `weights
(49, N / GROUP, K / DEPTH, DEPTH, GROUP)`: `products (N / GROUP, 49, T, GROUP, WIDTH)`.
"""

from __future__ import annotations

from zoo.ops.compiling import compiled
from zoo.ops.lanes import fill, larger, load, repeat, root, store

TILE, SPAN = 5, 7  # results and inputs of a tile along each side
GROUP = 6  # channels of a product at a time: as many sums as there are registers for
DEPTH = 8  # channels that lie together in memory
POINTS = (0.5, -0.5, 1.0, -1.0, 2.0, -2.0)  # in the order of `_to_points`, where infinity comes last


@compiled
def _to_points(a, b, c, d, e, f, g):
    """Evaluate seven inputs in a row at the points: B^T of Winograd's form."""
    even, odd = (e - 5.0 * c + 4.0 * a) * 0.5, f - 5.0 * d + 4.0 * b
    even1, odd1 = e - 4.25 * c + a, f - 4.25 * d + b
    even2, odd2 = (e - 1.25 * c + 0.25 * a) * 2.0, f - 1.25 * d + 0.25 * b
    rest = g - a + (c - e) * 5.25
    return odd + even, odd - even, odd1 + even1, odd1 - even1, odd2 + even2, odd2 - even2, rest


@compiled
def _from_points(a, b, c, d, e, f, g):
    """Interpolate five results in a row: A^T of Winograd's form."""
    even, odd, even1, odd1, even2, odd2 = a + b, a - b, c + d, c - d, e + f, e - f
    return (
        even + even1 + even2,
        0.5 * odd + odd1 + 2.0 * odd2,
        0.25 * even + even1 + 4.0 * even2,
        0.125 * odd + odd1 + 8.0 * odd2,
        0.0625 * even + even1 + 16.0 * even2 + g,
    )


@compiled
def _evaluate(cells, across, k, points, spare):
    """Write the tiles of channel k's `cells`, so many `across`, to its `points`."""
    block, lane = k // DEPTH, k % DEPTH
    for tile in range(points.shape[2]):
        top, left = tile // across * TILE, tile % across * TILE
        for i in range(SPAN):
            a, b, c, d, e, f, g = _to_points(
                load(cells, (top + i, left, 0)),
                load(cells, (top + i, left + 1, 0)),
                load(cells, (top + i, left + 2, 0)),
                load(cells, (top + i, left + 3, 0)),
                load(cells, (top + i, left + 4, 0)),
                load(cells, (top + i, left + 5, 0)),
                load(cells, (top + i, left + 6, 0)),
            )
            store(spare, (i, 0, 0), a)
            store(spare, (i, 1, 0), b)
            store(spare, (i, 2, 0), c)
            store(spare, (i, 3, 0), d)
            store(spare, (i, 4, 0), e)
            store(spare, (i, 5, 0), f)
            store(spare, (i, 6, 0), g)
        for j in range(SPAN):
            a, b, c, d, e, f, g = _to_points(*_column(spare, j))
            store(points, (block, j, tile, lane, 0), a)
            store(points, (block, j + SPAN, tile, lane, 0), b)
            store(points, (block, j + 2 * SPAN, tile, lane, 0), c)
            store(points, (block, j + 3 * SPAN, tile, lane, 0), d)
            store(points, (block, j + 4 * SPAN, tile, lane, 0), e)
            store(points, (block, j + 5 * SPAN, tile, lane, 0), f)
            store(points, (block, j + 6 * SPAN, tile, lane, 0), g)


@compiled
def _interpolate(products, n, across, cells, spare):
    """Write to `cells` what the `products` of channel n stand for."""
    block, lane = n // GROUP, n % GROUP
    for tile in range(products.shape[2]):
        top, left = tile // across * TILE, tile % across * TILE
        for i in range(SPAN):
            point = i * SPAN
            a, b, c, d, e = _from_points(
                load(products, (block, point, tile, lane, 0)),
                load(products, (block, point + 1, tile, lane, 0)),
                load(products, (block, point + 2, tile, lane, 0)),
                load(products, (block, point + 3, tile, lane, 0)),
                load(products, (block, point + 4, tile, lane, 0)),
                load(products, (block, point + 5, tile, lane, 0)),
                load(products, (block, point + 6, tile, lane, 0)),
            )
            store(spare, (i, 0, 0), a)
            store(spare, (i, 1, 0), b)
            store(spare, (i, 2, 0), c)
            store(spare, (i, 3, 0), d)
            store(spare, (i, 4, 0), e)
        for j in range(TILE):
            a, b, c, d, e = _from_points(*_column(spare, j))
            store(cells, (top, left + j, 0), a)
            store(cells, (top + 1, left + j, 0), b)
            store(cells, (top + 2, left + j, 0), c)
            store(cells, (top + 3, left + j, 0), d)
            store(cells, (top + 4, left + j, 0), e)


@compiled
def _column(spare, j):
    return (
        load(spare, (0, j, 0)),
        load(spare, (1, j, 0)),
        load(spare, (2, j, 0)),
        load(spare, (3, j, 0)),
        load(spare, (4, j, 0)),
        load(spare, (5, j, 0)),
        load(spare, (6, j, 0)),
    )


@compiled
def _normalise(cells, size, eps, pool, out, border):
    """Normalise the first size x size `cells`, take the largest of each pool x pool, and of it what is above zero."""
    total, squares, share = fill(0.0), fill(0.0), 1.0 / (size * size)
    for y in range(size):
        for x in range(size):
            total = total + load(cells, (y, x, 0))
    mean = total * share
    for y in range(size):  # a second pass: the mean of squares less the square of the mean would lose digits
        for x in range(size):
            off = load(cells, (y, x, 0)) - mean
            squares = squares + off * off
    deviation = root(squares * share + fill(eps))
    for y in range(size // pool):
        for x in range(size // pool):
            largest = load(cells, (y * pool, x * pool, 0))
            for cell in range(1, pool * pool):
                largest = larger(largest, load(cells, (y * pool + cell // pool, x * pool + cell % pool, 0)))
            store(out, (y + border, x + border, 0), larger((largest - mean) / deviation, fill(0.0)))


@compiled
def enter(volumes, across, points, cells, spare):
    """Write `volumes (B, K, H, W)` of up to WIDTH pairs to `points`; `cells` has to have a border of zeros."""
    pairs, channels, height, width = volumes.shape
    for k in range(channels):
        for pair in range(pairs):
            for y in range(height):
                for x in range(width):
                    cells[y + 1, x + 1, pair] = volumes[pair, k, y, x]
        _evaluate(cells, across, k, points, spare)


@compiled
def multiply(points, weights, products):
    """Multiply `points` by `weights` at each point."""
    for point in range(len(weights)):
        for tile in range(points.shape[2]):
            for group in range(weights.shape[1]):
                s0 = s1 = s2 = s3 = s4 = s5 = fill(0.0)
                for block in range(weights.shape[2]):
                    for k in range(DEPTH):
                        value = load(points, (block, point, tile, k, 0))
                        s0 = s0 + repeat(weights, (point, group, block, k, 0)) * value
                        s1 = s1 + repeat(weights, (point, group, block, k, 1)) * value
                        s2 = s2 + repeat(weights, (point, group, block, k, 2)) * value
                        s3 = s3 + repeat(weights, (point, group, block, k, 3)) * value
                        s4 = s4 + repeat(weights, (point, group, block, k, 4)) * value
                        s5 = s5 + repeat(weights, (point, group, block, k, 5)) * value
                store(products, (group, point, tile, 0, 0), s0)
                store(products, (group, point, tile, 1, 0), s1)
                store(products, (group, point, tile, 2, 0), s2)
                store(products, (group, point, tile, 3, 0), s3)
                store(products, (group, point, tile, 4, 0), s4)
                store(products, (group, point, tile, 5, 0), s5)


@compiled
def step(products, across, size, eps, pool, raw, channels, cells, next_across, points, spare):
    """Finish a layer of size x size cells and write it to the next one's `points`; `cells` has a border of zeros."""
    for n in range(channels):
        _interpolate(products, n, across, raw, spare)
        _normalise(raw, size, eps, pool, cells, 1)
        _evaluate(cells, next_across, n, points, spare)


@compiled
def leave(products, across, size, eps, pool, raw, features, spare):
    """Finish the last layer of size x size cells: `features (N, H, W, WIDTH)`."""
    for n in range(len(features)):
        _interpolate(products, n, across, raw, spare)
        _normalise(raw, size, eps, pool, features[n], 0)
