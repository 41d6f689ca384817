"""The CLEVR network learns four real images and their forty questions by heart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import zoo
from zoo import config

CLEVR = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "clevr_mini"

pytestmark = pytest.mark.skipif(not CLEVR.is_dir(), reason=f"needs clevr_mini, absent at {CLEVR} (ZOO_DATA)")


@pytest.fixture
def batch(tmp_path):
    data = zoo.create("data", "clevr", root=str(CLEVR), limit=4, batch_size=4, cache=str(tmp_path))
    data.prepare_data()
    data.setup()
    return next(iter(data.loader("train")))


def test_four_images_and_forty_questions_are_learnt(batch, monkeypatch):
    """The network of `experiment=two_stage_rn_clevr`; trained on random pairs, judged on all 4,096."""
    assert batch.answers.shape == (4, 10)
    recipe = config.compose("train", ["experiment=two_stage_rn_clevr"])
    names = ("g", "h", "f", "question_layer", "vocabulary", "question_dim", "answers", "pair_scale", "optimizer")
    network = {name: recipe.model[name] for name in names} | {"question_groups": None, "chunk": 2}
    torch.manual_seed(0)
    model = zoo.create_model(
        "two_stage_rn", **network, weight_decay=1e-4, dropout=0.0, learning_rate=5e-4, schedule="constant",
        warmup_steps=0, pair_shifts=2,
    )  # fmt: skip
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    optimizer = model.configure_optimizers()["optimizer"]
    for _ in range(20):
        for _ in range(20):
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            optimizer.step()
        right, asked = _evaluate(model, batch)
        if right == asked:
            break
    assert (right, asked) == (40, 40)


def _evaluate(model, batch):
    model.eval()
    with torch.no_grad():
        scores = model.task_scores(batch)["accuracy"].tolist()
    model.train()
    return scores
