from __future__ import annotations

import pytest

import zoo
from zoo.testing import check_model


def test_contract(tmp_path):
    check_model("acme_rank", tmp_path)


def test_channels_are_refused_when_empty():
    with pytest.raises(ValueError, match="channels must name at least one width"):
        zoo.create_model("acme_rank", channels=[])
