"""How the learning rate goes."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "stepped")


def learning_rate_factor(step: int, warmup: int, total: float | None) -> float:
    """Returns the multiple of the base rate at a step: linear up over `warmup`, then 1, or half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    if total is None:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def stepped_factor(epoch: int, start: float, step_epochs: int, limit: float) -> float:
    """Returns the multiple of the rate `start` in an epoch: doubled every `step_epochs` while the rate is below limit.

    The last doubling may pass the limit: 5e-6 with a limit of 5e-4 ends at 6.4e-4, as in the authors' code.
    """
    factor = 1.0
    for _ in range(epoch // step_epochs):
        if start * factor >= limit:
            break
        factor *= 2
    return factor
