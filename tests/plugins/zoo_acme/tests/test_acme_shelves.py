from __future__ import annotations

import numpy as np
import pytest

import zoo
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.source import Source
from zoo.testing import check_metric


def test_contract_of_the_metric():
    check_metric("acme_mrr")


def test_shelves_are_judged_with_the_reciprocal_rank_beside():
    names = ("a-1", "a-2", "b-1", "b-2", "c-1")
    scores = np.array([[9, 3, 2, 1, 0], [1, 9, 3, 2, 0], [0, 0, 9, 5, 0], [4, 3, 2, 9, 1], [0, 0, 0, 0, 9.0]])
    predictions = Predictions(names, names, scores=scores)
    benchmark = zoo.create("benchmark", "acme_shelves")
    benchmark.add_metrics([zoo.create("metrics", "acme_mrr")])
    benchmark.open_source(Source.of_predictions(predictions, None, "acme_shelves"))
    cells = benchmark.score_predictions(predictions).own.cells
    wanted = [1, 1 / 3, 1, 1 / 3, np.nan]  # c-1 stands alone
    assert list(cells["mrr"].per_query) == pytest.approx(wanted, nan_ok=True)
    assert list(cells["map"].per_query) == pytest.approx(wanted, nan_ok=True)
    assert cells["mrr"].mean == pytest.approx(2 / 3)
