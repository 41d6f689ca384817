"""Two gloo processes give the metrics of one, on a number of queries that doesn't divide, by command and in-process."""

from __future__ import annotations

import json

import lightning
import numpy as np
import pytest
import torch

import zoo
from zoo.evaluation.runner import evaluate
from zoo.evaluation.validation import RankingValidation

SIZES = {"train_size": 48, "val_size": 25, "test_size": 4, "gallery_size": 33, "batch_size": 4}
TINY = (
    *(f"data.{key}={value}" for key, value in SIZES.items()), "trainer.max_epochs=1", "benchmark.queries=21",
    "model.g=[16,16]", "model.h=[16]", "model.f=[16,16]", "model.question_layer=2", "trainer.enable_progress_bar=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def common(root):
    return f"data.root={root / 'data'}", f"benchmark.cache={root / 'truth'}"


@pytest.fixture(scope="module")
def run(command_in, root):
    """Runs a verb on the tiny model and data."""
    return lambda verb, folder, *words: command_in(root, "zoo", verb, *TINY, f"hydra.run.dir={folder}", *words)


@pytest.fixture(scope="module")
def trained(root, common, run):
    """A model trained by two processes, of which the second holds one validation image less."""
    run("train", root / "train", common[0], "trainer=ddp_cpu")
    return root / "train"


def spearman_cells(folder):
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {
        (row["descriptor"], row["l2_normalised"], column): cell
        for row in rows
        for column, cell in row["metrics"].items()
    }


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key, cell in one.items():
        # Sums are added in another order.
        assert cell["mean"] == pytest.approx(two[key]["mean"], abs=1e-6, nan_ok=True), key
        assert cell["half_width"] == pytest.approx(two[key]["half_width"], abs=1e-6, nan_ok=True), key
        assert cell["per_query"] == pytest.approx(two[key]["per_query"], abs=1e-6)
        assert len(cell["per_query"]) == 21


def test_eval_command_on_two_processes_equals_one(root, common, trained, run):
    checkpoint = f"ckpt_path={trained / 'checkpoints' / 'best.ckpt'}"
    run("eval", root / "one", *common, checkpoint)
    run("eval", root / "two", *common, checkpoint, "trainer=ddp_cpu")
    assert_same(spearman_cells(root / "one"), spearman_cells(root / "two"))
    one, two = (json.loads((root / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["scores"] == two["scores"]
    assert one["fingerprint"] == two["fingerprint"]
    assert one["model"]["weights_hash"] == two["model"]["weights_hash"]


def trainer(folder, devices):
    return lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=folder,
        callbacks=[RankingValidation()],
    )  # fmt: skip


def test_evaluation_in_process_equals_the_command(root, common, trained):
    data = zoo.create("data", "sort_of_clevr", root=str(root / "data"), **SIZES)
    benchmark = zoo.create("benchmark", "relational", queries=21, cache=str(root / "truth"))
    model = zoo.load_model(str(trained / "checkpoints" / "best.ckpt"))
    metrics = [
        evaluate(model, data, benchmark, trainer(root, devices), root / f"in_process_{devices}", {})
        for devices in (1, 2)
    ]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-6)
    assert_same(spearman_cells(root / "in_process_1"), spearman_cells(root / "in_process_2"))


def test_metrics_logged_by_training_on_two_processes_equal_one(root, common, trained):
    logged = np.genfromtxt(trained / "csv" / "version_0" / "metrics.csv", delimiter=",", names=True, deletechars="")
    data = zoo.create("data", "sort_of_clevr", root=str(root / "data"), **SIZES)
    model = zoo.load_model(str(trained / "checkpoints" / "last.ckpt"))
    alone = trainer(root, 1).validate(model, datamodule=data, verbose=False)[0]
    assert set(alone) >= {"val/spearman", "val/accuracy", "val/accuracy/relational/count"}
    for name, value in alone.items():
        column = logged[name]
        assert column[~np.isnan(column)].tolist() == [pytest.approx(value, abs=1e-5)], name


def test_multirun_with_ddp_runs_two_jobs_in_a_row(root, common, run):
    folder = root / "multirun"
    overrides = (common[0], "trainer=ddp_cpu", "trainer.strategy=ddp", "seed=0,1", f"hydra.sweep.dir={folder}")
    run("train", folder, "--multirun", *overrides)
    states = [torch.load(folder / job / "checkpoints" / "last.ckpt", weights_only=True) for job in ("0", "1")]
    assert [state["global_step"] for state in states] == [6, 6]
    assert any(not torch.equal(value, states[1]["state_dict"][name]) for name, value in states[0]["state_dict"].items())
