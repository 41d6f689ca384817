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
