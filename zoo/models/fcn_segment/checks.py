"""What parameters of `fcn_segment` may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

HEADS = ("deeplab_v2", "light", "own")
OPTIMIZERS = ("sgd", "adamw")
WEIGHTINGS = ("none", "log")
STRIDES = (8, 16, 32)


def check_words(**chosen: tuple[Any, Sequence[str]]) -> None:
    """Raises ValueError for a word that isn't among those known."""
    for name, (word, known) in chosen.items():
        if word not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")


def check_flags(**values: Any) -> None:
    """Raises ValueError unless every value is true or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def check_counts(**values: Any) -> None:
    """Raises ValueError unless every value is a whole number of at least 1."""
    for name, value in values.items():
        if not _is_whole(value) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_head(
    head: str, dilations: Sequence[int], image_pooling: bool, output_stride: int | None, options: Mapping[str, Any]
) -> None:
    """Raises ValueError where a head can't be built of these."""
    if not isinstance(dilations, (list, tuple)) or not all(_is_whole(rate) and rate >= 0 for rate in dilations):
        raise ValueError(f"dilations must be a list of whole numbers of at least 0, got {dilations!r}")
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


def check_numbers(positive: Mapping[str, Any], natural: Mapping[str, Any]) -> None:
    """Raises ValueError unless values are finite numbers above 0, or of at least 0."""
    for rule, values in (("above 0", positive), ("of at least 0", natural)):
        for name, value in values.items():
            if not _is_number(value) or value < 0 or (value == 0 and values is positive):
                raise ValueError(f"{name} must be a finite number {rule}, got {value!r}")


def check_correction(share: Any, weighting: str) -> None:
    """Raises ValueError unless `share` of the class weights can be taken back."""
    if not _is_number(share) or not 0 <= share <= 1:
        raise ValueError(f"prior_correction must be a number in 0 … 1, got {share!r}")
    if share and weighting == "none":
        raise ValueError(f"prior_correction must be 0 where class_weighting is none, got {share!r}")


def check_shares(shares: Sequence[float] | None, weighting: str, classes: int) -> None:
    """Raises ValueError unless `shares` are those of the classes, or None."""
    if shares is None:
        return
    if weighting == "none":
        raise ValueError("class_shares are of no use where class_weighting is none: set it to log, or them to null")
    if not isinstance(shares, (list, tuple)) or len(shares) != classes or not all(map(_is_number, shares)):
        raise ValueError(f"class_shares must be {classes} numbers, one a class, got {shares!r}")
    if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=0.01):
        raise ValueError(f"class_shares must be at least 0 and add up to 1, got {shares!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
