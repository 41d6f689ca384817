"""What parameters of `fcn_segment` may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.checks import is_integer, is_number

HEADS = ("deeplab_v2", "light", "own")
OPTIMIZERS = ("sgd", "adamw")
WEIGHTINGS = ("none", "log")
STRIDES = (8, 16, 32)
SMALLEST, LARGEST = 0.25, 4  # scales; beyond, nothing is left of an image, or nothing of the memory


def check_head(
    head: str, dilations: Sequence[int], image_pooling: bool, output_stride: int | None, options: Mapping[str, Any]
) -> None:
    """Raises ValueError where a head can't be built of these."""
    if not isinstance(dilations, (list, tuple)) or not all(is_integer(rate) and rate >= 0 for rate in dilations):
        raise ValueError(f"dilations must be a list of integers of at least 0, got {dilations!r}")
    if head == "deeplab_v2" and not (dilations and all(dilations)):
        raise ValueError(f"dilations must be at least 1 each, and one at least, where head is deeplab_v2: {dilations}")
    if head == "light" and not (dilations or image_pooling):
        raise ValueError("dilations must name a branch where image_pooling is false, got []")
    if output_stride is not None and output_stride not in STRIDES:
        raise ValueError(f"output_stride must be one of {', '.join(map(str, STRIDES))} or null, got {output_stride!r}")
    if not isinstance(options, Mapping) or "output_stride" in options or "num_classes" in options:
        raise ValueError(f"backbone_options must be a mapping, without output_stride and num_classes, got {options!r}")
    if head == "own" and options:
        raise ValueError(f"backbone_options must be empty where head is own, got {options!r}")


def check_correction(share: Any, weighting: str) -> None:
    """Raises ValueError unless `share` of the class weights can be taken back."""
    if not is_number(share) or not 0 <= share <= 1:
        raise ValueError(f"prior_correction must be a number in 0 … 1, got {share!r}")
    if share and weighting == "none":
        raise ValueError(f"prior_correction must be 0 where class_weighting is none, got {share!r}")


def check_scales(scales: Sequence[float]) -> None:
    """Raises ValueError unless images can be looked at in these sizes."""
    if not isinstance(scales, (list, tuple)) or not scales:
        raise ValueError(f"scales must be a list of numbers, one at least, got {scales!r}")
    wrong = [scale for scale in scales if not is_number(scale) or not SMALLEST <= scale <= LARGEST]
    if wrong:
        raise ValueError(f"scales must be numbers in {SMALLEST} … {LARGEST}, got {wrong[0]!r}")


def check_finish(share: Any) -> None:
    """Raises ValueError unless `share` can be that of a training's steps."""
    if not is_number(share) or not 0 <= share <= 1:
        raise ValueError(f"finish must be a number in 0 … 1, got {share!r}")


def check_shares(shares: Sequence[float] | None, weighting: str, classes: int) -> None:
    """Raises ValueError unless `shares` are those of the classes, or None."""
    if shares is None:
        return
    if weighting == "none":
        raise ValueError("class_shares are of no use where class_weighting is none: set it to log, or them to null")
    if not isinstance(shares, (list, tuple)) or len(shares) != classes or not all(map(is_number, shares)):
        raise ValueError(f"class_shares must be {classes} numbers, one a class, got {shares!r}")
    if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=0.01):
        raise ValueError(f"class_shares must be at least 0 and add up to 1, got {shares!r}")
