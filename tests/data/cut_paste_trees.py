"""Small photos with instance masks, and a shortcut to the module."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zoo.config import create

SMALL = {
    **{"min_area": 100, "one_per_image": False, "canvas": 96, "gallery_side": 96, "query_side": 64, "copies": 2},
    **{"val_share": 0.2, "test_share": 0.2, "batch_size": 4},
}


def photos(root, count, seed=0):
    """Writes `count` photos of 80 × 60 px with two instances, 1 and 2, and VOC's border of 255; returns the source."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        mask = np.zeros((60, 80), np.uint8)
        mask[10:40, 5:30] = 255
        mask[12:38, 7:28] = 1
        mask[20:55, 45:75] = 2
        Image.fromarray(pixels).save(root / "images" / f"p{seed}_{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"p{seed}_{number}.png")
    return {"kind": "masks", "images": str(root / "images"), "masks": str(root / "masks")}


def module(**parameters):
    """Returns the module, set up."""
    data = create("data", "cut_paste", **{**SMALL, **parameters})
    data.setup()
    return data


def drawn(count, **more):
    """Returns a procedural source."""
    return {"kind": "procedural", "count": count, **more}
