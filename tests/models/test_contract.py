from __future__ import annotations

import pytest

import zoo
from zoo.testing import check_model


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_registered_model_keeps_the_contract(name, tmp_path):
    check_model(name, tmp_path)


@pytest.mark.parametrize(
    "parameters",
    [
        {"pooling": "netvlad", "clusters": 3, "whitening": "pca_whiten", "dimension": 2},
        {"pooling": "neural_codes", "layer": "fc", "whitening": "pca", "dimension": 2},
        {"whitening": "learned", "dimension": 2, "scales": [1.0, 0.5]},
    ],
)
def test_a_fitted_model_keeps_the_contract(parameters, tmp_path):
    check_model("global_descriptor", tmp_path, **parameters)
