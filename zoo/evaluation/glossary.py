"""What the labels of metrics mean, in words."""

from __future__ import annotations

import re

_WORDS = (
    (r"map", "mean average precision, divided by the number of relevant items"),
    (r"map@(\d+)", "mean average precision of the first {0}, divided by {0} or the number of relevant items, if fewer"),
    (r"map_trapezoid", "mean average precision by the trapezoid rule, as for Oxford and Paris"),
    (r"mp@(\d+)", "mean precision of the first {0}, or up to the last relevant item where that comes sooner"),
    (r"p@(\d+)", "mean precision of the first {0}"),
    (r"recall@(\d+)", "share of queries with a relevant item among the first {0}"),
    (r"recall_fraction@(\d+)", "mean share of the relevant items that is among the first {0}"),
    (r"ndcg", "normalised discounted cumulative gain"),
    (r"ndcg@(\d+)", "normalised discounted cumulative gain of the first {0}"),
    (r"ndcg_exp", "normalised discounted cumulative gain with gains 2^g - 1"),
    (r"ndcg_exp@(\d+)", "normalised discounted cumulative gain of the first {0} with gains 2^g - 1"),
    (r"gain@(\d+)", "mean gain of the first {0}, as the ground truth states gains"),
    (r"miou", "intersection over union of predicted and true pixels, mean over classes"),
    (r"class_accuracy", "share of a class's pixels that are found, mean over classes"),
    (r"spearman", "Spearman's rank correlation with the ground truth"),
)
_SETTINGS = {
    "gap": "what is lost to distractors, lower is better",
    "clean": "distractors taken out",
    "shuffled": "distractors irrelevant",
}


def lower_is_better(metric: str) -> bool:
    """Tells of a metric's label (`gap/map`) whether lower values are the better ones."""
    return "gap" in metric.split("/")


def in_words(metric: str) -> str:
    """Returns what a metric's label says (`easy/mp@5`, `spearman/soft_exact`); empty for a plugin's own metric."""
    parts = metric.split("/")
    for position, part in enumerate(parts):
        for pattern, words in _WORDS:
            match = re.fullmatch(pattern, part)
            if match:
                others = parts[:position] + parts[position + 1 :]
                settings = " ".join(_SETTINGS.get(other, other.replace("_", " ")) for other in others)
                return words.format(*match.groups()) + (f" ({settings})" if settings else "")
    return ""
