"""Where the dots of per-query plots stand, for inline SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

SIZE, LEFT, RIGHT, TOP, BOTTOM = 440, 52, 14, 14, 48  # pixels of the drawing and its margins
_RADIUS, _LARGEST = 4.0, 18.0
_CROWD = 150  # dots of full size; more are smaller, so that they don't hide one another
_NAMED = 8  # queries that the tooltip of a shared dot names


def paired_plot(
    names: Sequence[str], x: np.ndarray, y: np.ndarray, shown: Collection[int], name: str
) -> dict[str, Any]:
    """Returns a plot of two runs' values (Q,) of every query, `y` over `x`, on one scale with the diagonal.

    Queries at the same spot share a dot whose area grows with their number. A dot of a query in `shown` links there.
    """
    both = np.flatnonzero(~np.isnan(x) & ~np.isnan(y))
    low, high, ticks = _scale(np.concatenate((x[both], y[both])))
    unit = (SIZE - LEFT - RIGHT) / (high - low)
    spots: dict[tuple[float, float], list[int]] = {}
    for query in both.tolist():
        at = (round(LEFT + (x[query] - low) * unit, 1), round(_flip((y[query] - low) * unit), 1))
        spots.setdefault(at, []).append(query)
    dots = [
        _dot(at, queries, names, shown, f"{x[queries[0]]:.3f} and {y[queries[0]]:.3f}") for at, queries in spots.items()
    ]
    return {
        "name": name,
        "dots": _arranged(dots),
        "x_ticks": [(round(LEFT + (tick - low) * unit, 1), _label(tick)) for tick in ticks],
        "y_ticks": [(round(_flip((tick - low) * unit), 1), _label(tick)) for tick in ticks],
        "better": int((y[both] > x[both]).sum()),
        "worse": int((y[both] < x[both]).sum()),
        "equal": int((y[both] == x[both]).sum()),
        "left_out": len(x) - len(both),
        **_frame(),
    }


def sorted_plot(names: Sequence[str], values: np.ndarray, shown: Collection[int]) -> dict[str, Any]:
    """Returns a plot of one run's values (Q,), lowest first; a dot of a query in `shown` links there."""
    order = [query for query in np.argsort(values, kind="stable").tolist() if not np.isnan(values[query])]
    low, high, ticks = _scale(values[order])
    inside = SIZE - LEFT - RIGHT
    dots = []
    for place, query in enumerate(order):
        at = (
            round(LEFT + inside * (place + 0.5) / len(order), 1),
            round(_flip((values[query] - low) * inside / (high - low)), 1),
        )
        dots.append(_dot(at, [query], names, shown, f"{values[query]:.3f}"))
    return {
        "name": None,
        "dots": _arranged(dots),
        "x_ticks": [],
        "y_ticks": [(round(_flip((tick - low) * inside / (high - low)), 1), _label(tick)) for tick in ticks],
        "left_out": len(values) - len(order),
        **_frame(),
    }


def _frame() -> dict[str, float]:
    return {
        "width": SIZE,
        "height": SIZE - LEFT - RIGHT + TOP + BOTTOM,
        "left": LEFT,
        "right": SIZE - RIGHT,
        "top": TOP,
        "bottom": SIZE - LEFT - RIGHT + TOP,
    }


def _flip(height: float) -> float:
    """Turns a height above the axis into SVG's y, which grows downwards."""
    return SIZE - LEFT - RIGHT + TOP - height


def _dot(
    at: tuple[float, float], queries: Sequence[int], names: Sequence[str], shown: Collection[int], values: str
) -> dict[str, Any]:
    target = next((query for query in queries if query in shown), None)
    ordered = [query for query in queries if query in shown] + [query for query in queries if query not in shown]
    words = ", ".join(names[query] for query in ordered[:_NAMED]) + (", …" if len(queries) > _NAMED else "")
    count = f"{len(queries):,} queries: " if len(queries) > 1 else ""
    radius = min(_LARGEST, _RADIUS * math.sqrt(len(queries)))
    return {"x": at[0], "y": at[1], "r": round(radius, 1), "target": target, "title": f"{count}{words}: {values}"}


def _arranged(dots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shrinks the dots of a crowd, and orders all so that small ones lie above large ones, and linked ones on top."""
    shrink = min(1.0, max(0.35, (_CROWD / max(1, len(dots))) ** 0.5))
    for dot in dots:
        if dot["target"] is None:
            dot["r"] = round(dot["r"] * shrink, 1)
    return sorted(dots, key=lambda dot: (dot["target"] is not None, -dot["r"]))


def _scale(values: np.ndarray) -> tuple[float, float, list[float]]:
    """Returns ends and ticks (steps of 1, 2 or 5 times a power of ten) that hold all values."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 6 >= high - low)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [number * step for number in range(first, last + 1)]


def _label(tick: float) -> str:
    return f"{round(tick, 6) + 0.0:g}"
