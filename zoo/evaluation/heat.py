"""Pictures with colours laid over them that tell where something was seen."""

from __future__ import annotations

import numpy as np
from PIL import Image

_STOPS = np.linspace(0, 1, 5)
_COLOURS = np.array([(20, 20, 160), (0, 150, 220), (40, 190, 90), (250, 210, 40), (220, 30, 30)], float)  # cold to hot
_LEAST, _MOST = 0.25, 0.75  # opacity where nothing, and where most, was seen


def overlaid(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns `picture (H, W, 3)` uint8 under the colours of `heat (h, w)` in [0, 1]: blue is 0, red is 1.

    The coarser map is interpolated to the picture, its borders being the picture's.
    """
    size = picture.shape[1::-1]
    fine = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    colours = np.stack([np.interp(fine, _STOPS, channel) for channel in _COLOURS.T], axis=2)
    opacity = (_LEAST + (_MOST - _LEAST) * fine)[..., None]
    return (picture * (1 - opacity) + colours * opacity).round().astype(np.uint8)
