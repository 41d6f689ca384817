"""Other models' rows in the table of a model, in-process and by command, on one process and two."""

from __future__ import annotations

import json

import lightning
import pytest
import torch

import zoo
from zoo.evaluation.runner import Companion, evaluate

SIZES = {"train_size": 4, "val_size": 4, "test_size": 4, "gallery_size": 21, "batch_size": 4}
NETWORK = {"g": [16, 16], "h": [16], "f": [16, 16], "question_layer": 2}
RMAC = ("beside=rmac", "+beside.rmac.parameters.backbone_weights=random")


@pytest.fixture
def evaluated(tmp_path):
    def run(label, baselines=("pixels",), **changed):
        options = {"root": str(tmp_path / "data"), **SIZES}
        data = zoo.create("data", "sort_of_clevr", **options)
        other = zoo.create("data", "sort_of_clevr", **{**options, **changed})
        torch.manual_seed(0)
        model = zoo.create_model("two_stage_rn", **NETWORK).eval()
        again = zoo.create_model("two_stage_rn", **NETWORK, aggregation="avg").eval()
        again.load_state_dict(model.state_dict())
        benchmark = zoo.create("benchmark", "relational", queries=5, baselines=baselines, cache=str(tmp_path / "truth"))
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False
        )
        evaluate(model, data, benchmark, trainer, tmp_path / "run", {}, [Companion(label, again, other)])
        return json.loads((tmp_path / "run" / "results.json").read_text())

    return run


def cells(results, label):
    return [row["metrics"] for row in results["rows"] if row["descriptor"] == label]


def test_a_companions_own_descriptor_is_a_row(evaluated):
    results = evaluated("again")
    assert cells(results, "again") == cells(results, "2S-RN avg") != []
    assert results["rows"][results["own"]]["descriptor"] == "2S-RN max"
    assert len(results["scores"]) > 1  # of the model itself alone


def test_a_label_that_the_model_uses_is_refused(evaluated):
    with pytest.raises(ValueError, match="has a row 'RN conv max' of its own"):
        evaluated("RN conv max")


def test_a_baselines_label_is_refused(evaluated):
    with pytest.raises(ValueError, match="called 'random' already"):
        evaluated("random", ["random"])


def test_a_companion_must_see_the_same_images(evaluated):
    with pytest.raises(ValueError, match="same images in the same order"):
        evaluated("again", gallery_size=20)


def test_the_command_on_one_and_two_processes(command, tmp_path):
    network = [f"model.{key}={value}".replace(" ", "") for key, value in NETWORK.items()]
    sizes = [f"data.{key}={value}" for key, value in SIZES.items()]
    words = [*network, *sizes, *RMAC, "benchmark.queries=6", "benchmark.sheet_rows=[R-MAC]"]
    rows = []
    for number, more in enumerate((["report=true"], ["trainer=ddp_cpu"])):
        command("zoo", "eval", *words, *more, f"hydra.run.dir={tmp_path / str(number)}")
        rows.append(cells(json.loads((tmp_path / str(number) / "results.json").read_text()), "R-MAC"))
    for one, two in zip(*rows, strict=True):
        for column, cell in one.items():
            assert cell["mean"] == pytest.approx(two[column]["mean"], abs=1e-6)
    assert (tmp_path / "0" / "contact_sheet.png").is_file()
    assert "Contact sheet" in (tmp_path / "0" / "report.html").read_text()
    assert not (tmp_path / "1" / "report.html").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+beside.rmac.parameters.levls=3", "Did you mean 'levels'"),
        ("+beside.rmac.data.image_sise=3", "data 'sort_of_clevr' has no parameter 'image_sise'"),
        ("beside.rmac.name=global", "'global'"),
        ("beside.rmac.label=null", "every model needs a label"),
        ("+beside.other={label: R-MAC, name: global_descriptor}", "a label of its own, got R-MAC, R-MAC"),
    ],
)
def test_what_a_companion_cant_be_ends_in_one_line(command, word, message):
    done = command("zoo", "eval", *RMAC, word, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
