"""Trainings of two processes: they start from a process of their own, since one that used autograd can't be forked."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import lightning
import torch


def apart(function, folder, *words):
    """Calls a function of a test module with `folder` and texts, in a process of its own that runs in `folder`."""
    code = f"import {function.__module__} as own; own.{function.__name__}(*{[str(folder), *map(str, words)]!r})"
    places = Path(inspect.getfile(function)).parent, Path(__file__).parent
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, check=True, timeout=300)


class Saving(lightning.Callback):
    """Writes what every rank ends with: weights, and the metrics of its last validation."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        ended = {"weights": pl_module.state_dict(), "metrics": metrics}
        torch.save(ended, f"{self.folder}/rank{trainer.global_rank}")


def saved(folder):
    """Returns what `Saving` wrote for either rank."""
    return [torch.load(folder / f"rank{rank}", weights_only=True) for rank in (0, 1)]
