"""What the metric functions refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zoo.checks import check_integers
from zoo.metrics.functional.rows import blocks

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_rows(name: str, values: Tensor) -> None:
    """Raises ValueError unless `values` is a table (Q, N), TypeError unless it holds real numbers."""
    if values.ndim != 2:
        raise ValueError(f"{name} must have the shape (Q, N), got {tuple(values.shape)}")
    if values.dtype not in FLOATS + INTEGERS:
        raise TypeError(f"{name} must hold real numbers that torch can sort, got {values.dtype}")


def check_like(name: str, values: Tensor | None, other_name: str, other: Tensor) -> None:
    """Raises ValueError when `values` is given and has not the shape and device of `other`."""
    if values is None:
        return
    if values.shape != other.shape:
        raise ValueError(f"{name} must have the shape of {other_name}, {tuple(other.shape)}, got {tuple(values.shape)}")
    _check_device(name, values, other_name, other)


def check_mask(name: str, values: Tensor | None, other_name: str, other: Tensor) -> None:
    """Raises as `check_like`, and TypeError unless `values` is bool."""
    check_like(name, values, other_name, other)
    if values is not None and values.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, got {values.dtype}")


def check_cutoff(k: int) -> None:
    """Raises ValueError unless the cut-off is an integer of at least 1."""
    check_integers(1, k=k)


def check_counts(n_relevant: Tensor | None, scores: Tensor) -> None:
    """Raises unless `n_relevant` is None or one integer per query of `scores`, on its device."""
    if n_relevant is None:
        return
    if n_relevant.dtype not in INTEGERS or n_relevant.shape != scores.shape[:1]:
        raise ValueError(
            f"n_relevant must hold integers of shape ({len(scores)},), one per query, "
            f"got {n_relevant.dtype} of shape {tuple(n_relevant.shape)}"
        )
    _check_device("n_relevant", n_relevant, "scores", scores)


def check_ideal(ideal: Tensor | None, scores: Tensor) -> None:
    """Raises unless `ideal` is None or a table with one row per query of `scores`, on its device."""
    if ideal is None:
        return
    check_rows("ideal", ideal)
    if len(ideal) != len(scores):
        raise ValueError(f"ideal must have one row per query, {len(scores)}, got {len(ideal)}")
    _check_device("ideal", ideal, "scores", scores)
    refuse_unfit_gains("ideal", ideal, None)


def _check_device(name: str, values: Tensor, other_name: str, other: Tensor) -> None:
    if values.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name}, {other.device}, got {values.device}")


def refuse_nan(name: str, values: Tensor, ignore: Tensor | None) -> None:
    """Raises ValueError, naming the query, for NaN that is not ignored."""
    if not values.is_floating_point() or values.numel() == 0:
        return
    for rows in blocks(values):
        # NaN passes through a maximum, which is much cheaper than a mask.
        if values[rows].amax().isnan():
            bad = _outside(values[rows].isnan(), ignore, rows)
            _raise_for(bad, rows, f"{name} must not hold NaN outside ignore")


def refuse_unfit_gains(name: str, gains: Tensor, ignore: Tensor | None) -> None:
    """Raises ValueError, naming the query, for gains below 0, infinite or NaN that are not ignored."""
    if gains.numel() == 0:
        return
    for rows in blocks(gains):
        block = gains[rows]
        low, high = block.aminmax()
        if not (low >= 0 and high < torch.inf):
            bad = _outside(~((block >= 0) & (block < torch.inf)), ignore, rows)
            _raise_for(bad, rows, f"{name} must be finite and not negative")


def _outside(bad: Tensor, ignore: Tensor | None, rows: slice) -> Tensor:
    return bad if ignore is None else bad & ~ignore[rows]


def _raise_for(bad: Tensor, rows: slice, rule: str) -> None:
    if bad.any():
        query = int(bad.any(dim=1).nonzero()[0])
        raise ValueError(f"{rule}, got {int(bad[query].sum())} such values in query {rows.start + query}")
