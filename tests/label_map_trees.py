"""Makes up folders of small pictures with label maps."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)  # of the classes in pictures and label maps
NAMES = ("sky", "ground", "thing")
CLASSES = [
    {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
    for name, colour in zip(NAMES, COLOURS.tolist(), strict=True)
]
VOID = 255


def scene(number, size=(48, 64)):
    """Returns labels (H, W) uint8, sky above ground, a thing somewhere, a void frame; and the picture of them."""
    height, width = size
    rng = np.random.default_rng(number)
    labels = np.zeros(size, np.uint8)
    labels[rng.integers(height // 3, height // 2) :] = 1
    y, x = rng.integers(4, height - 20), rng.integers(4, width - 20)
    labels[y : y + 16, x : x + 16] = 2
    picture = COLOURS[labels]
    labels[[0, -1]] = labels[:, [0, -1]] = VOID
    return labels, picture


def write_tree(root, splits, write=lambda labels: Image.fromarray(labels), size=(48, 64), ending=".png"):
    """Writes images/SPLIT/N.png and labels/SPLIT/N.png for `splits`, name → number of pictures; returns `root`."""
    number = 0
    for split, count in splits.items():
        for place in range(count):
            labels, picture = scene(number, size)
            number += 1
            for folder, image, end in (("images", Image.fromarray(picture), ".png"), ("labels", write(labels), ending)):
                path = root / folder / split / f"s{place}{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    return root
