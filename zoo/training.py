"""What a training run needs around Lightning's Trainer: exact resumption, and finding the checkpoint to resume."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from zoo.registry import UsageError

log = logging.getLogger("zoo")

_PRIME = 1_000_003  # keeps the seeds of different ranks apart for any sensible number of epochs


class EpochSeed(lightning.Callback):
    """Seeds every epoch anew from (seed, epoch, rank), so that a resumed run goes on bit for bit."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Seeds Python, NumPy and torch."""
        value = (self.seed + trainer.current_epoch + _PRIME * (1 + trainer.global_rank)) % 2**32
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)


class InterruptedCheckpoint(lightning.Callback):
    """Keeps what an epoch has learnt when it is stopped (Ctrl-C) or fails; last.ckpt stays as the epoch before left it.

    Going on from it repeats the order of images from the epoch's beginning, so that it is not exact. Lightning's own
    OnExceptionCheckpoint would also resume a run that nobody asked to resume. With several processes nothing is kept: a
    rank that fails alone would wait for the others for ever.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "interrupted.ckpt"

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Writes interrupted.ckpt and says so."""
        if trainer.world_size == 1 and trainer.training and trainer.global_step:
            trainer.save_checkpoint(self.path)
            log.info("stopped within an epoch; go on from its end with ckpt_path=last, or from here: %s", self.path)


class ConfigLogging(lightning.Callback):
    """Logs the resolved config where the loggers live, and closes them in a process that Lightning forked.

    A forked rank ends without running exit handlers, so that a logger left open there (wandb) would lose its run.
    """

    def __init__(self, resolved: dict[str, Any]) -> None:
        self.resolved = resolved
        self._process = os.getpid()
        self._logged = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Logs the config once."""
        for logger in trainer.loggers if not self._logged else ():
            logger.log_hyperparams(self.resolved)
        self._logged = True

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Closes the loggers if this process will not come back to the command."""
        if os.getpid() != self._process:
            finish_loggers(trainer)


def finish_loggers(trainer: Any) -> None:
    """Ends every logger's run, so that the next job of a multirun begins one of its own."""
    for logger in trainer.loggers:
        run = getattr(logger, "_experiment", None)
        if hasattr(run, "finish"):
            run.finish()


def best_score(path: str) -> float | None:
    """Returns the score that made a checkpoint the best, from the file: other processes may have written it."""
    states = torch.load(path, map_location="cpu", weights_only=True).get("callbacks", {}).values()
    scores = [state["best_model_score"] for state in states if state.get("best_model_score") is not None]
    return float(scores[0]) if scores else None


def resume_path(ckpt_path: str | None, run_dir: Path, beside: bool) -> str | None:
    """Returns the checkpoint to resume, or None.

    "last" is `checkpoints/last.ckpt` of this run's folder, else of the newest folder `beside` it. Raises UsageError if
    there is none, or if a named file is missing.
    """
    if ckpt_path is None:
        return None
    if ckpt_path != "last":
        if not Path(ckpt_path).is_file():
            raise UsageError(f"ckpt_path '{ckpt_path}': no such file")
        return ckpt_path
    siblings = run_dir.parent.glob("*/checkpoints/last.ckpt") if beside else ()
    candidates = [run_dir / "checkpoints" / "last.ckpt", *siblings]
    existing = [path for path in candidates if path.is_file()]
    if not existing:
        raise UsageError(f"ckpt_path=last: no checkpoints/last.ckpt in {run_dir} or a folder beside it")
    return str(existing[0] if existing[0] == candidates[0] else max(existing, key=lambda path: path.stat().st_mtime))
