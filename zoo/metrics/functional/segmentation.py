"""How well predicted label maps fit true ones, from their confusion matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from zoo.ops.label_maps import VOID


def label_confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Returns (C, C) int64: how many pixels of a row's class were taken for a column's.

    `predicted` and `truth` are label maps of one shape, any; where the truth is -1 (void), nothing counts. Matrices of
    images add up.
    """
    return multiclass_confusion_matrix(predicted, truth, classes, ignore_index=VOID, validate_args=False)


def intersection_over_union(confusion: Tensor) -> Tensor:
    """Returns (C,) float64 in [0, 1]: pixels of a class that were found, over those that it has or was given.

    NaN where it has none and was given none. `nanmean` gives the mean IoU of Everingham et al. 2010.
    """
    found = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return torch.where(union > 0, found / union, torch.nan)


def class_accuracy(confusion: Tensor) -> Tensor:
    """Returns (C,) float64: which share of a class's pixels was found; NaN where it has none."""
    total = confusion.sum(1)
    return torch.where(total > 0, confusion.diagonal().double() / total, torch.nan)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Returns a float64 scalar: the share of pixels with the right class, NaN without any."""
    return confusion.diagonal().sum().double() / confusion.sum()
