"""How far long work is: the bar that it shows, and where a training goes on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")


@contextmanager
def progress_bar(title: str, total: int, unit: str = "", shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Gives a function that counts so many more as done, and shows on standard error how many are and the time left.

    It is gone afterwards, and isn't drawn where standard error is a file or another program.
    """
    if not shown:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    disable = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=disable) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def tracked(items: Sequence[Item], title: str) -> Iterator[Item]:
    """Yields the items behind a progress bar."""
    with progress_bar(title, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


def batches_done(trainer: Any) -> int:
    """Returns how many batches of its epoch a training that was resumed within one has behind it, 0 for any other."""
    loop = getattr(trainer, "fit_loop", None)
    if loop is None or not loop.restarting:
        return 0
    epochs = loop.epoch_progress.total
    within = epochs.started == epochs.ready == epochs.processed + 1
    # A callback that stops the run at a batch's end does so before Lightning counts the batch as completed.
    return loop.epoch_loop.batch_progress.current.processed if within else 0
