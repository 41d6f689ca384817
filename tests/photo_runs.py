"""Folders of small photos, and the commands on them in this process."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zoo import config
from zoo.commands._app import quoted

MODEL = ["model.backbone=test_resnet", "model.backbone_weights=random"]


def photos(folder, count, size=(48, 40)):
    """Writes `count` different pictures into two classes below a folder, and returns it."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
        Image.fromarray(pixels).resize(size).save(path)
    return folder


def run(verb, folder, *overrides):
    """Runs a command on composed overrides, writing to folder/outputs and, what belongs to this run, folder/run."""
    module = __import__(f"zoo.commands.{verb}", fromlist=[verb])
    own = [f"paths.output_dir={folder / 'outputs'}", f"paths.run_dir={folder / 'run'}"]
    return getattr(module, verb)(config.compose(verb, [*own, *overrides]))


def embed(folder, root, *overrides):
    """Runs `zoo embed` with a tiny network."""
    quiet = ["trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]
    run("embed", folder, f"data.root={quoted(str(root))}", *MODEL, *quiet, *overrides)
