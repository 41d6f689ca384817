from __future__ import annotations

import csv

import pytest

import zoo


def columns(run):
    """Returns the names of what a run logged."""
    (path,) = run.rglob("metrics.csv")
    return next(csv.reader(path.open()))


def test_multirun_writes_a_folder_for_every_job(command, tiny, tmp_path):
    command("python", "-m", "zoo.commands.train", "-m", "model.aggregation=max,avg", *tiny)
    (sweep,) = (tmp_path / "outputs" / "train_multirun" / "two_stage_rn").iterdir()
    for job, aggregation in enumerate(("max", "avg")):
        run = sweep / str(job)
        assert {"val/spearman", "val/accuracy", "train/loss"} <= set(columns(run))
        model = zoo.load_model(str(run / "checkpoints" / "best.ckpt"))
        assert model.aggregation == aggregation
        assert model.registered["parameters"]["g"] == [16, 16]


def test_a_plugins_experiment_trains_beside_a_broken_plugin(command, plugins, tmp_path):
    done = command("zoo-train", "experiment=acme_demo", "hydra.run.dir=run", PYTHONPATH=plugins)
    assert "acme_demo" not in done.stderr
    assert {"val/spearman", "val/accuracy"} <= set(columns(tmp_path / "run"))
    model = zoo.load_model(str(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert type(model).__name__ == "AcmeRank"
    assert model.registered["name"] == "acme_rank"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (
            "acme_broken",
            "importing 'zoo_broken.raises' raised RuntimeError: the licence server of Acme does not answer",
        ),
        ("acme_absent", "it names the module 'zoo_broken.absent', which doesn't exist"),
    ],
)
def test_a_broken_plugin_answers_in_one_line(command, plugin_site, name, cause):
    done = command("zoo", "train", f"model={name}", code=2, PYTHONPATH=plugin_site)
    assert done.stderr == f"zoo: model '{name}' of zoo-broken 0.0.7 can't be loaded: {cause}\n"


def test_a_wrong_value_is_told_in_one_line(command):
    done = command("zoo", "train", "model.aggregation=median", code=2)
    assert done.stderr == "zoo: model 'two_stage_rn': aggregation must be one of max, avg, learned, got 'median'\n"


def test_an_error_inside_a_job_keeps_its_traceback(command, tiny):
    done = command("zoo", "train", "data.root=/proc/nowhere", *tiny, code=1)
    assert "Traceback (most recent call last)" in done.stderr
    assert "in prepare_data" in done.stderr
    assert "/proc/nowhere" in done.stderr.splitlines()[-1]
