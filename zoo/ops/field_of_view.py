"""Overlap of the fields of view of cameras, for single pairs and as a table of all pairs of a set.

A pose is easting (m), northing (m) and compass heading (degrees clockwise from north). A field of view is a circular
sector around the heading with its apex at the position.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo.ops.field_of_view_kernels import Sector

Mode = Literal["area", "iou"]

_BLOCK = 1 << 16  # pairs whose places are held at a time


def field_of_view_overlap(
    a: Tensor | np.ndarray, b: Tensor | np.ndarray, radius: float = 50.0, angle: float = 90.0, mode: Mode = "area"
) -> Tensor:
    """Returns (...): how much of their fields of view poses `a (..., 3)` and `b (..., 3)` share, in [0, 1].

    The area itself is exact: a closed form, computed in float64.

    Args:
        a: easting in m, northing in m, compass heading in degrees.
        b: likewise; `a` and `b` broadcast.
        radius: of the sector, in m.
        angle: that the sector opens in total, in degrees, up to 360 (a disc).
        mode: ``area``: area of the intersection / area of a sector; ``iou``: / area of the union.

    Returns:
        On the device of `a`; float64 if `a` or `b` is, else float32. Sectors that at most touch have 0.

    Raises:
        ValueError: ``a`` or ``b`` is not (..., 3) or not finite, or they don't broadcast; ``radius`` is not above 0;
            ``angle`` is not in (0, 360]; ``mode`` is unknown.

    Source: Hanning 2024, Sec. 3.1 and Fig. 3.2, after Leyva-Vallina et al. 2021.
    """
    from zoo.ops import field_of_view_kernels as kernels

    sector = _sector(radius, angle, mode)
    precise = any(_is_double(poses) for poses in (a, b))
    first, second = _poses(a, "a"), _poses(b, "b")
    try:
        shape = np.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    except ValueError:
        raise ValueError(f"a and b must broadcast, got shapes {first.shape} and {second.shape}") from None
    result = np.empty(shape, np.float64 if precise else np.float32)
    first_table, second_table = (kernels.directed(poses.reshape(-1, 3)) for poses in (first, second))
    shares, places = np.empty(_BLOCK), np.empty((2, _BLOCK), np.int64)
    for rows, columns, block in _blocks(_places(first), _places(second), result):
        size = len(block)
        places[0, :size], places[1, :size] = rows, columns  # of one memory layout: others are compiled anew
        kernels.overlaps(first_table, places[0, :size], second_table, places[1, :size], sector, shares)
        block[...] = shares[:size]
    return torch.from_numpy(result).to(a.device if isinstance(a, Tensor) else "cpu")


def overlapping_pairs(
    poses: Tensor | np.ndarray, radius: float, angle: float, mode: Mode
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns all pairs of `poses (N, 3)` whose overlap is not zero, as the rows of a sparse symmetric (N, N) matrix.

    Row i has its columns, ascending and with i itself, at ``columns[starts[i] : starts[i + 1]]``, and their overlaps at
    the same places of ``values``. Memory in use peaks at two and a half times the result's. Poses, parameters and
    errors as `field_of_view_overlap`.

    Returns:
        starts (N + 1,) int64; columns (P,) int32; values (P,) float32.
    """
    from zoo.ops import field_of_view_kernels as kernels

    sector, given = _sector(radius, angle, mode), _poses(poses, "poses")
    if given.ndim != 2:
        raise ValueError(f"poses must be (N, 3), got shape {given.shape}")
    size, pairs = len(given), _half_pairs(given, sector)
    counts, highs = np.zeros((2, size), np.int64)
    for low, high, _ in pairs:
        counts += np.bincount(low, minlength=size)
        highs += np.bincount(high, minlength=size)
    bounds, starts = _bounds(counts), _bounds(counts + highs + 1)
    partners, shares = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.float32)
    ends = bounds[:-1].copy()
    while pairs:
        kernels.place(*pairs.pop(), ends, partners, shares)
    columns, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    kernels.mirror(bounds, partners, shares, starts, columns, values)
    return torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values)


def affinity_block(
    starts: Tensor | np.ndarray,
    columns: Tensor | np.ndarray,
    values: Tensor | np.ndarray,
    rows: Tensor | np.ndarray,
    anchors: Tensor | np.ndarray,
) -> Tensor:
    """Returns (B, K, L) float32: the overlaps of images `rows (B, K)` with images `anchors (B, L)`, from a table.

    `starts`, `columns` and `values` are those of `overlapping_pairs`, on the CPU. Rows and anchors are int64; -1 stands
    for no image and has overlap 0, and an image may occur more than once. The time is that of looking at all entries of
    the anchors. Raises ValueError for other shapes, and for images that the table hasn't.
    """
    from zoo.ops import field_of_view_kernels as kernels

    table = (_array(starts, np.int64), _array(columns, np.int32), _array(values, np.float32))
    chosen = {"rows": _array(rows, np.int64), "anchors": _array(anchors, np.int64)}
    shapes = [images.shape for images in chosen.values()]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][0] != shapes[1][0]:
        raise ValueError(f"rows (B, K) and anchors (B, L) must have the same B, got shapes {shapes[0]} and {shapes[1]}")
    last = len(table[0]) - 2
    for name, images in chosen.items():
        if images.size and not -1 <= images.min() <= images.max() <= last:
            raise ValueError(f"{name} must be from -1 to {last}, got {images.min()} to {images.max()}")
    result = np.zeros((*shapes[0], shapes[1][1]), np.float32)
    kernels.affinities(*table, chosen["rows"], chosen["anchors"], result)
    return torch.from_numpy(result)


def _half_pairs(poses: np.ndarray, sector: Sector) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns in batches the lower and the higher number of two poses (N, 3) that overlap, and how much they do."""
    from zoo.ops import field_of_view_kernels as kernels

    strips = np.floor((poses[:, 1] - poses[:, 1].min(initial=0.0)) / (2 * sector.radius))
    order = np.lexsort((poses[:, 0], strips)).astype(np.int32)
    strips, table = strips[order], kernels.directed(poses[order])
    room = kernels.BATCH + len(poses)
    rows, columns, values = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32)
    batches, pose = [], 0
    while pose < len(poses):
        pose, found = kernels.collect(table, strips, pose, sector, rows, columns, values)
        one, other = order[rows[:found]], order[columns[:found]]
        batches.append((np.minimum(one, other), np.maximum(one, other), values[:found].copy()))
    return batches


def _bounds(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def _blocks(rows: np.ndarray, columns: np.ndarray, result: np.ndarray) -> Any:
    """Returns an iterator over flat blocks of three arrays that broadcast; what is written to the last one is kept."""
    return np.nditer(
        [rows, columns, result],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["readonly"], ["writeonly"]],
        buffersize=_BLOCK,
    )


def _places(poses: np.ndarray) -> np.ndarray:
    return np.arange(math.prod(poses.shape[:-1])).reshape(poses.shape[:-1])


def _poses(value: Tensor | np.ndarray, name: str) -> np.ndarray:
    tensor = isinstance(value, Tensor)
    poses = np.ascontiguousarray(value.detach().to("cpu", torch.float64).numpy() if tensor else value, np.float64)
    if poses.ndim < 1 or poses.shape[-1] != 3:
        raise ValueError(f"{name} must be (..., 3), got shape {poses.shape}")
    if not np.isfinite(poses).all():
        wrong = poses[~np.isfinite(poses).all(axis=-1)]
        raise ValueError(f"{name} must be finite, got {wrong[0].tolist()}")
    return poses


def _is_double(poses: Tensor | np.ndarray) -> bool:
    return poses.dtype == (torch.float64 if isinstance(poses, Tensor) else np.float64)


def _array(value: Tensor | np.ndarray, dtype: type) -> np.ndarray:
    return np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value, dtype)


def check_sector(radius: float, angle: float, mode: str) -> None:
    """Raises ValueError for a radius that isn't positive, an angle outside (0, 360], or an unknown mode."""
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be above 0 and finite, got {radius}")
    if not 0 < angle <= 360:
        raise ValueError(f"angle must be above 0 and at most 360 degrees, got {angle}")
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")


def _sector(radius: float, angle: float, mode: str) -> Sector:
    from zoo.ops.field_of_view_kernels import Sector

    check_sector(radius, angle, mode)
    half, wide = math.radians(angle / 2), angle > 180
    wedge = math.pi - half if wide else half
    return Sector(float(radius), half, wide, math.cos(wedge), math.sin(wedge), mode == "iou")
