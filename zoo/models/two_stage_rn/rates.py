"""How the learning rate goes."""

from __future__ import annotations

import math

from zoo.checks import check_integers

SCHEDULES = ("constant", "cosine", "stepped")


def learning_rate_factor(step: int, warmup: int, total: float | None) -> float:
    """Returns the multiple of the base rate at a step: linear up over `warmup`, then 1, or half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    if total is None:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


class SteppedRate:
    """A rate of `start` doubled every `step_epochs` epochs while it is below `limit`.

    The last doubling may pass the limit: 5e-6 with a limit of 5e-4 ends at 6.4e-4, as in the authors' code.

    Raises ValueError unless `step_epochs` is an integer of at least 1.
    """

    def __init__(self, start: float, step_epochs: int, limit: float) -> None:
        check_integers(1, step_epochs=step_epochs)
        self.start, self.step_epochs, self.limit = start, step_epochs, limit

    def __call__(self, epoch: int) -> float:
        """Returns the multiple of `start` in an epoch."""
        factor = 1.0
        for _ in range(epoch // self.step_epochs):
            if self.start * factor >= self.limit:
                break
            factor *= 2
        return factor
