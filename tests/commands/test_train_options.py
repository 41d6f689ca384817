"""Options of `zoo train` and `zoo eval` in whole runs: weights, mixed precision, clipping, test, RN, CLEVR."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from zoo import checkpoints
from zoo.models.two_stage_rn.module import TwoStageRN
from zoo.training import best_score

CLEVR = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "clevr_real267"


def test_training_from_weights_in_mixed_precision_and_testing_the_best(command, tiny, tmp_path):
    torch.manual_seed(3)
    start = zoo.create_model("two_stage_rn", **{**TwoStageRN.tiny, "chunk": 40})
    checkpoints.save_weights(start, tmp_path / "start.safetensors")
    words = ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0", "weights=start.safetensors", "test=true"]
    done = command(
        "zoo",
        "train",
        *tiny,
        *words,
        "model.learning_rate=0",
        "benchmark.queries=9",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert "Questions answered rightly" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["fingerprint"]["queries"] == 9
    trained = checkpoints.load_model(str(tmp_path / "run" / "checkpoints" / "best.ckpt"))
    for name, value in start.named_parameters():  # a rate of zero leaves the weights that it started from
        assert torch.equal(value, trained.state_dict()[name]), name
    assert results["model"]["weights_hash"] == checkpoints.weights_hash(trained)
    score = best_score(str(tmp_path / "run" / "checkpoints" / "best.ckpt"))
    assert 0 <= score <= 1
    assert f"({trained.monitor} {score:.4f})" in done.stdout + done.stderr
    assert Image.open(tmp_path / "run" / "contact_sheet.png").width > 1000


def test_the_plain_rn_trains(command, tiny, tmp_path):
    words = ["model.question_layer=0", "model.feature=conv", f"hydra.run.dir={tmp_path / 'rn'}"]
    command("zoo", "train", *[word for word in tiny if "question_layer" not in word], *words)
    model = checkpoints.load_model(str(tmp_path / "rn" / "checkpoints" / "last.ckpt"))
    assert len(model.net.g) == 0
    assert model.descriptor_name == "RN conv max"


@pytest.mark.skipif(not CLEVR.is_dir(), reason=f"needs the CLEVR renders in {CLEVR} (ZOO_DATA names another place)")
def test_the_same_evaluation_runs_on_clevr_renders(command, tiny, tmp_path):
    network = [word for word in tiny if word.startswith("model.")]
    words = ["data=clevr", "benchmark.queries=20", "benchmark.sheet_queries=1", f"hydra.run.dir={tmp_path}"]
    files = [f"data.root={CLEVR}", "data.images=images", "data.scenes=scenes/CLEVR_train_scenes_1000.json"]
    command("zoo", "eval", *network, *words, *files, "data.questions=null")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["fingerprint"]["gallery"] == 267
    rows = {row["descriptor"]: row["metrics"] for row in results["rows"] if not row["l2_normalised"]}
    assert {"pixels", "random", "RN conv avg", "2S-RN max"} <= set(rows)
    assert results["agreement"] == {}  # graphs of up to ten nodes: the exact distance is out of reach
    assert results["scores"] == {}
    # Which objects there are says much of the distance, whatever the model; a broken truth would not show it.
    assert rows["composition"]["spearman/bipartite_soft"]["mean"] > 0.4
    assert abs(rows["random"]["spearman/bipartite_soft"]["mean"]) < 0.1


def test_clevr_that_is_not_there_is_told_in_one_line(command, tiny, tmp_path):
    network = [word for word in tiny if word.startswith("model.")]
    done = command("zoo", "eval", *network, "data=clevr", f"hydra.run.dir={tmp_path}", code=2, ZOO_DATA="/nowhere")
    assert "Traceback" not in done.stderr
    assert "data.root" in done.stderr
