from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.testing import check_benchmark, check_data


@pytest.fixture
def root(tmp_path):
    for shelf in "ab":
        for number in range(3):
            pixels = np.random.default_rng(10 * ord(shelf) + number).integers(0, 255, (40, 60, 3), np.uint8)
            (tmp_path / "photos" / shelf).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "photos" / shelf / f"{shelf}-{number}.png")
    return tmp_path / "photos"


def test_contract(root, tmp_path):
    check_data("acme_photos", tmp_path, root=str(root), batch_size=4)


def test_the_benchmark_judges_them(root, tmp_path):
    check_benchmark("acme_shelves", tmp_path, data=zoo.create("data", "acme_photos", root=str(root), batch_size=4))


def test_names_tell_the_shelf(root):
    data = zoo.create("data", "acme_photos", root=str(root))
    data.setup()
    assert data.labels("gallery") == ["a", "a", "a", "b", "b", "b"]
    assert data.ground_truth().groups["relevant"][0] == ("a-1", "a-2")


def test_an_empty_separator_is_refused(root):
    with pytest.raises(ValueError, match="separator must be a text that isn't empty, got ''"):
        zoo.create("data", "acme_photos", root=str(root), separator="")
