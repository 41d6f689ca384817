"""What the contract asks of models that aren't trained, seen by models that break it."""

from __future__ import annotations

import pytest

from zoo.testing import check_model

CODE = """
import torch
from torch import nn

from zoo.module import Embedder
from zoo.types import Batch, Representation


class Still(Embedder):
    trained = False
    on_reload = {{"start": None}}

    def __init__(self, *, start):
        super().__init__()
        self.layer, self.dropout, self.start = nn.Linear(3, 2), nn.Dropout(0.5), start
        if start is not None:
            nn.init.constant_(self.layer.weight, start)

    def embed(self, batch, role="gallery"):
        vector = self.layer(batch.images.mean((2, 3)))
        return Representation(vector={vector})

    {step}

    @classmethod
    def tiny_batch(cls):
        return Batch(torch.arange(2), torch.rand(2, 3, 4, 4))
"""
STEP = "def training_step(self, batch, batch_idx): return self.layer.weight.sum()"
YAML = "_target_: zoo.create\n_convert_: all\nkind: model\nname: still\nstart: 0.25  # of the weights\n"


@pytest.mark.parametrize(
    ("vector", "step", "broken"),
    [
        ("vector.detach()", "", None),
        ("vector", "", "must not keep a graph of gradients"),
        ("self.dropout(vector.detach())", "", "must stay in evaluation mode"),
        ("vector.detach()", STEP, "must have trained = True"),
        ("vector.detach() + (self.start or 0)", "", "rebuilt from its checkpoint must return the same values"),
    ],
)
def test_a_model_that_is_not_trained_is_frozen_and_its_file_complete(distribution, tmp_path, vector, step, broken):
    files = {
        "zoo_still/__init__.py": "",
        "zoo_still/module.py": CODE.format(vector=vector, step=step),
        "zoo_still/conf/model/still.yaml": YAML,
    }
    distribution("zoo-still", "1.0", {"still": "zoo_still.module:Still"}, files)
    if broken is None:
        check_model("still", tmp_path)
        return
    with pytest.raises(AssertionError, match=broken):
        check_model("still", tmp_path)


FITTED = """
import torch

from zoo.module import Embedder
from zoo.types import Batch, Representation


class Fitted(Embedder):
    trained = False
    needs_fitting = True

    def __init__(self, *, refuse, keep):
        super().__init__()
        self.refuse, self.keep = refuse, keep
        self.register_buffer("mean", torch.full((3,), float("nan")))

    def embed(self, batch, role="gallery"):
        if self.refuse and self.mean.isnan().any():
            raise RuntimeError("not fitted")
        return Representation(vector=batch.images.mean((2, 3)) - (self.mean if self.keep else self.other))

    def fit_statistics(self, batches, labels):
        self.other = sum(batch.images.mean((0, 2, 3)) for batch in batches)
        if self.keep:
            self.mean.copy_(self.other)

    @classmethod
    def tiny_batch(cls):
        return Batch(torch.arange(2), torch.rand(2, 3, 4, 4))
"""


@pytest.mark.parametrize(
    ("parameters", "broken"),
    [
        ({}, None),
        ({"refuse": False}, "must raise RuntimeError where it embeds unfitted"),
        ({"keep": False}, "fitted statistics must lie in buffers or parameters"),
    ],
)
def test_a_model_that_is_fitted_refuses_before_and_keeps_it_in_its_file(distribution, tmp_path, parameters, broken):
    yaml = "_target_: zoo.create\n_convert_: all\nkind: model\nname: fitted\nrefuse: true\nkeep: true\n"
    files = {
        "zoo_fitted/__init__.py": "",
        "zoo_fitted/module.py": FITTED,
        "zoo_fitted/conf/model/fitted.yaml": yaml,
    }
    distribution("zoo-fitted", "1.0", {"fitted": "zoo_fitted.module:Fitted"}, files)
    if broken is None:
        check_model("fitted", tmp_path)
        return
    with pytest.raises(AssertionError, match=broken):
        check_model("fitted", tmp_path, **parameters)
