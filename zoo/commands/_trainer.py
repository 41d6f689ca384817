"""Builds the Trainer of the commands that run one, and says what can't be its."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from zoo.checks import check_integers, check_not_negative
from zoo.commands import _setup
from zoo.commands._app import processes_started
from zoo.commands._ending import usage_errors
from zoo.ops.processor import cpu_computes_bf16
from zoo.registry import UsageError
from zoo.training import ConfigLogging

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.loggers import Logger
    from omegaconf import DictConfig

log = logging.getLogger("zoo")

# What Lightning takes whatever it is, and fails on in the midst of a run; -1 is its "no end".
_LEAST = {
    "max_epochs": -1, "max_steps": -1, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "num_nodes": 1,
    "num_sanity_val_steps": -1, "log_every_n_steps": 0, "reload_dataloaders_every_n_epochs": 0,
}  # fmt: skip
_STARTS_ITS_OWN = ("_fork", "_spawn", "_notebook")  # how such strategies' names end


def trainer(cfg: DictConfig, callbacks: list[lightning.Callback], logger: list[Logger]) -> lightning.Trainer:
    """Builds the Trainer, which logs the resolved config; raises UsageError for a value that it can't work with."""
    _check(cfg.trainer)
    if cfg.trainer.accelerator == "cpu" and cfg.trainer.precision == "bf16-mixed" and not cpu_computes_bf16():
        log.warning("this CPU has no bf16 instructions: trainer.precision=32-true instead of bf16-mixed")
        cfg.trainer.precision = "32-true"
    logs_config = ConfigLogging(OmegaConf.to_container(cfg, resolve=True), list(_setup.chosen_loggers(cfg)))
    try:
        return _setup.build(cfg.trainer, callbacks=[logs_config, *callbacks], logger=logger or False)
    except InstantiationException as error:
        if isinstance(error.__cause__, TypeError):  # what Lightning raises for a word in a number's place
            raise UsageError(f"{cfg.trainer._target_}: {error.__cause__}") from error
        raise


def _check(given: DictConfig) -> None:
    with usage_errors():
        for key, least in _LEAST.items():
            if given.get(key) is not None:
                check_integers(least, **{f"trainer.{key}": given[key]})
        if given.gradient_clip_val is not None:
            check_not_negative(**{"trainer.gradient_clip_val": given.gradient_clip_val})
    started = processes_started()
    if started > 1 and str(given.strategy).endswith(_STARTS_ITS_OWN):
        raise UsageError(
            f"trainer.strategy={given.strategy} starts processes of its own, and {started} were started already (by "
            "torchrun or srun): set trainer.strategy=ddp"
        )
