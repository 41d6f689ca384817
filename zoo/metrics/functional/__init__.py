"""Retrieval metrics as pure functions: one value per query, NaN where it is undefined."""

from zoo.metrics.functional.correlation import spearman
from zoo.metrics.functional.graded import ndcg
from zoo.metrics.functional.relevance import average_precision, precision_at_k, recall_at_k
from zoo.metrics.functional.shuffle import shuffle_gap

__all__ = ["average_precision", "ndcg", "precision_at_k", "recall_at_k", "shuffle_gap", "spearman"]
