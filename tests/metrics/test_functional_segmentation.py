from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from zoo.metrics.functional.segmentation import (
    class_accuracy,
    intersection_over_union,
    label_confusion,
    pixel_accuracy,
)


@pytest.mark.parametrize("seed", range(5))
def test_overlap_and_accuracy_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(-1, 5, (3, 11, 13)), rng.integers(0, 6, (3, 11, 13))
    confusion = label_confusion(torch.from_numpy(predicted), torch.from_numpy(truth), 6)
    seen = truth >= 0
    pair, every = (truth[seen], predicted[seen]), {"labels": range(6), "average": None}
    assert np.array_equal(confusion.numpy(), confusion_matrix(*pair, labels=range(6)))
    assert intersection_over_union(confusion).numpy() == pytest.approx(jaccard_score(*pair, **every))
    # Class 5 is predicted where it never is: its IoU is 0, its accuracy undefined.
    assert class_accuracy(confusion)[:5].numpy() == pytest.approx(recall_score(*pair, **every, zero_division=0)[:5])
    assert class_accuracy(confusion)[5].isnan()
    assert pixel_accuracy(confusion).item() == pytest.approx(accuracy_score(*pair))


def test_matrices_of_images_add_up_and_absent_classes_are_undefined():
    truth = torch.tensor([[[0, 0, 1]], [[-1, 1, 1]]])
    predicted = torch.tensor([[[0, 1, 1]], [[2, 1, 1]]])
    parts = [label_confusion(*each, 3) for each in zip(predicted, truth, strict=True)]
    whole = label_confusion(predicted, truth, 3)
    assert torch.equal(sum(parts), whole)
    overlap = intersection_over_union(whole)
    assert overlap[:2].tolist() == [pytest.approx(1 / 2), pytest.approx(3 / 4)]
    assert overlap[2].isnan()
    assert pixel_accuracy(whole).item() == pytest.approx(4 / 5)
    nothing = label_confusion(predicted, torch.full_like(truth, -1), 3)
    assert pixel_accuracy(nothing).isnan()
    assert intersection_over_union(nothing).isnan().all()
