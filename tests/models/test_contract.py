from __future__ import annotations

import pytest

import zoo
from zoo.testing import check_model


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_registered_model_keeps_the_contract(name, tmp_path):
    check_model(name, tmp_path)
