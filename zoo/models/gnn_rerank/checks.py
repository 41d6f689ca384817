"""What the parameters of the network must keep to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.checks import check_flags, check_integers, check_not_negative, check_positive, check_words, is_number
from zoo.models.gnn_rerank.losses import CONVENTIONS, LOSSES
from zoo.models.gnn_rerank.net import NORMS

if TYPE_CHECKING:
    from collections.abc import Mapping

INPUTS = ("raw", "projected")
_LEAST = {
    "dimension": 1, "anchors": 1, "hits": 1, "projection_hits": 1, "width": 1, "layers": 0, "heads": 1, "expansion": 1,
    "projection_epochs": 0, "bins": 2,
}  # fmt: skip
_POSITIVE = ("learning_rate", "decay", "temperature")
_WORDS = {"norm": NORMS, "phase2_input": INPUTS, "loss": LOSSES, "convention": CONVENTIONS}


def check_parameters(given: Mapping[str, Any]) -> None:
    """Raises ValueError for a number out of range, an unknown word, or parameters that don't fit together."""
    least = {**_LEAST, **({} if given["projection"] is None else {"projection": 1})}
    for name, low in least.items():
        check_integers(low, **{name: given[name]})
    check_positive(**{name: given[name] for name in _POSITIVE})
    check_not_negative(mse_weight=given["mse_weight"])
    if not is_number(given["dropout"]) or not 0 <= given["dropout"] < 1:
        raise ValueError(f"dropout must lie in 0 … 1, 1 itself left out, got {given['dropout']!r}")
    check_words(**{name: (given[name], words) for name, words in _WORDS.items()})
    check_flags(lock=given["lock"], centre=given["centre"])
    _check_together(given)


def _check_together(given: Mapping[str, Any]) -> None:
    if given["width"] % given["heads"]:
        raise ValueError(f"heads must divide width = {given['width']}, got {given['heads']}")
    if not isinstance(given["affinities"], (list, tuple)):
        raise ValueError(f"affinities must be a list such as [field_of_view], got {given['affinities']!r}")
    if given["projection"] is None and not given["layers"]:
        raise ValueError("layers must be at least 1 where projection is null: otherwise there is nothing to train")
    if given["projection"] is not None and not given["lock"] and given["phase2_input"] == "projected":
        raise ValueError(
            "phase2_input must be raw where lock is false: what is projected once can't train the projection"
        )
