"""What a training run needs around Lightning's Trainer: exact resumption, and finding the checkpoint to resume."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from zoo.progress import batches_done
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

log = logging.getLogger("zoo")

AUTO, LAST = "auto", "last"  # words that ckpt_path may be
INTERRUPTED = "interrupted.ckpt"
_IDS = "ids"
_PRIME = 1_000_003  # keeps the seeds of different ranks apart for any sensible number of epochs


class EpochSeed(lightning.Callback):
    """Seeds every epoch anew from (seed, epoch, rank), so that a resumed run goes on bit for bit.

    A run that is resumed within an epoch takes the random numbers up where they were, those of rank 0 that is; other
    ranks are seeded from the batch too.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._saved: dict[str, Any] | None = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Seeds Python, NumPy and torch."""
        _seed_all(self.seed + trainer.current_epoch + _PRIME * (1 + trainer.global_rank))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Takes up what a checkpoint within an epoch saved: Lightning begins no epoch then."""
        done = batches_done(trainer)
        if done and self._saved and trainer.is_global_zero:
            _set_random_states(self._saved)
        elif done:
            _seed_all(self.seed + trainer.current_epoch + _PRIME * (1 + trainer.global_rank) + done)
        self._saved = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the random numbers."""
        return _random_states()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps them until training starts."""
        self._saved = state_dict


class Interruption(lightning.Callback):
    """Keeps what an epoch has learnt when the run is stopped (SIGTERM, Ctrl-C) or fails.

    SIGTERM, by which clusters and agents take a machine back, ends the run after the batch at hand, on all processes
    after the same one: Lightning's own handler would begin a collective call amid another. It writes interrupted.ckpt,
    from which one process goes on bit for bit. Anything else does so with one process only, since a rank that fails
    alone would wait for the others for ever; last.ckpt stays as the epoch before left it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / INTERRUPTED
        self._told = False
        self._within = False  # a batch of this epoch has been learnt from

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Takes SIGTERM over, until Lightning gives its handlers back at the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Stops a run that was told so while it validated, if last.ckpt holds what it has learnt."""
        self._within = False
        if (self.path.parent / "last.ckpt").is_file():
            self._stop_if_told(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops a run that was told so; the last batch of an epoch is followed by what ends the epoch."""
        self._within = True
        if batch_idx + 1 < trainer.num_training_batches:
            self._stop_if_told(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Writes interrupted.ckpt and says so."""
        together = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        # Lightning would take a checkpoint from between two epochs for one from the end of the second.
        if together and trainer.training and self._within:
            trainer.save_checkpoint(self.path)
            log.info("stopped within an epoch; go on from there with ckpt_path=last, or %s", self.path)

    def _note(self, signum: int, frame: Any) -> None:
        self._told = True

    def _stop_if_told(self, trainer: Any) -> None:
        told = (
            self._told if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(self._told, all=False)
        )
        if told:
            raise SIGTERMException


class ConfigLogging(lightning.Callback):
    """Logs the resolved config where the loggers live, and closes them in a process that Lightning forked.

    A forked rank ends without running exit handlers, so that a logger left open there (wandb) would lose its run.
    Checkpoints keep under which id each of the loggers, called `names`, has its run.
    """

    def __init__(self, resolved: dict[str, Any], names: Sequence[str] = ()) -> None:
        self.resolved, self.names = resolved, names
        self._process = os.getpid()
        self._ids: dict[str, Any] = {}
        self._logged = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Logs the config once."""
        for logger in trainer.loggers if not self._logged else ():
            logger.log_hyperparams(self.resolved)
        self._ids = {name: logger.version for name, logger in zip(self.names, trainer.loggers, strict=False)}
        self._logged = True

    def state_dict(self) -> dict[str, Any]:
        """Returns the runs' ids, by the loggers' names."""
        return {_IDS: {name: value for name, value in self._ids.items() if isinstance(value, (str, int))}}

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Closes the loggers of a forked process, as failed."""
        if os.getpid() != self._process:
            _finish(trainer, 143 if isinstance(exception, SIGTERMException) else 1)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Closes the loggers if this process will not come back to the command."""
        if os.getpid() != self._process:
            _finish(trainer, 0)


def take_the_best(logger: Any) -> Any:
    """Lets a logger that keeps checkpoints have those that a metric chose: it would call last.ckpt the best."""
    logger.after_save_checkpoint = partial(_take_if_chosen, logger.after_save_checkpoint)
    return logger


def _take_if_chosen(take: Callable[[Any], None], callback: Any) -> None:
    if callback.monitor:
        take(callback)


@contextmanager
def finished_loggers(trainer: Any) -> Iterator[None]:
    """Ends every logger's run with what happens inside, so that the next job of a multirun begins one of its own.

    An error makes it a failed run; SIGTERM ends the command with 143, where Lightning's exception would with 0, as if
    all had been done, and Ctrl-C with 130.
    """
    code = 1
    try:
        yield
        code = 0
    except SIGTERMException:
        code = 143
        sys.exit(code)
    except SystemExit as error:
        if trainer.interrupted and error.code == 1:  # how Lightning ends on Ctrl-C
            code = 130
            sys.exit(code)
        raise
    finally:
        _finish(trainer, code)


def _finish(trainer: Any, code: int) -> None:
    for logger in trainer.loggers:
        run = getattr(logger, "_experiment", None)
        if hasattr(run, "finish"):
            run.finish(exit_code=code)


def best_score(path: str) -> float | None:
    """Returns the score that made a checkpoint the best, from the file: other processes may have written it."""
    states = torch.load(path, map_location="cpu", weights_only=True).get("callbacks", {}).values()
    scores = [state["best_model_score"] for state in states if state.get("best_model_score") is not None]
    return float(scores[0]) if scores else None


def logger_ids(path: Path) -> dict[str, Any]:
    """Returns under which id each logger had its run when a checkpoint was written, by the loggers' names."""
    states = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get("callbacks", {})
    return states.get(ConfigLogging.__name__, {}).get(_IDS, {})


def resume_path(ckpt_path: str | None, run_dir: Path, beside: bool) -> str | None:
    """Returns the checkpoint to resume, or None.

    "last" is what was written last in `checkpoints/` of this run's folder (last.ckpt after an epoch, interrupted.ckpt
    within one), else in the newest folder `beside` it; UsageError if there is none, or if a named file is missing.
    "auto" is that of this run's folder, None if there is none: a command that does the right thing however often it is
    started.
    """
    if ckpt_path is None:
        return None
    if ckpt_path not in (LAST, AUTO):
        if not Path(ckpt_path).is_file():
            raise UsageError(f"ckpt_path '{ckpt_path}': no such file")
        return ckpt_path
    own = _newest([run_dir])
    if own or ckpt_path == AUTO:
        return own
    found = _newest(run_dir.parent.glob("*") if beside else ())
    if found is None:
        raise UsageError(f"ckpt_path=last: no checkpoints/last.ckpt in {run_dir} or a folder beside it")
    return found


def _newest(folders: Iterable[Path]) -> str | None:
    files = [folder / "checkpoints" / name for folder in folders for name in ("last.ckpt", INTERRUPTED)]
    existing = [path for path in files if path.is_file()]
    return str(max(existing, key=lambda path: path.stat().st_mtime)) if existing else None


def _seed_all(value: int) -> None:
    value %= 2**32
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def _random_states() -> dict[str, Any]:
    """Returns the states as what a checkpoint may hold: numbers, strings and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    numpy = {"name": name, "keys": keys.tolist(), "rest": [position, has_gauss, gauss]}
    states = {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    numpy = states["numpy"]
    np.random.set_state((numpy["name"], np.array(numpy["keys"], np.uint32), *numpy["rest"]))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
