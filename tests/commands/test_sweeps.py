"""Sweeps with the real `wandb sweep` and `wandb agent`, against a stand-in of the server on this machine."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml
from hydra.utils import instantiate
from places import BIN
from wandb_stand_in import ENTITY, PROJECT, StandIn, values_of

from zoo import checkpoints, config

TINY = (
    "data.root=data", "data.train_size=64", "data.val_size=16", "data.test_size=8", "data.gallery_size=40",
    "model.g=[16,16]", "model.h=[16]", "model.f=[16,16]", "model.question_layer=2", "data.warmup_epochs=0",
    "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
)  # fmt: skip
SWEEPS = config.options("sweep")


def content(name):
    return yaml.safe_load(config.config_file("sweep", name).read_text())


def words_of(sweep):
    """Returns the verb and what a sweep's command says behind it."""
    env, zoo, verb, *words, arguments = sweep["command"]
    assert (env, zoo, arguments) == ("${env}", "zoo", "${args_no_hyphens}")
    return verb, [word for word in words if not word.startswith("hydra.run.dir=")]


@pytest.fixture
def server():
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


def wandb(folder, server, *words):
    variables = {**os.environ, **server.environment, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [BIN / "wandb", *words], cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_every_trained_model_has_a_sweep_and_every_method_is_there():
    assert {"two_stage_rn", "local_similarity", "gnn_rerank", "fcn_segment"} <= set(SWEEPS)
    assert {content(name)["method"] for name in SWEEPS} == {"grid", "random", "bayes"}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_that_a_sweep_may_choose_is_in_yaml_and_builds_a_model(name):
    sweep = content(name)
    verb, words = words_of(sweep)
    before = config.compose(verb, words)
    for key, given in sweep["parameters"].items():
        node = before
        for part in key.split("."):  # no key that is made by a plus
            assert part in node, key
            node = node[part]
        for value in values_of(given):
            chosen = config.compose(verb, [*words, f"{key}={value}"])
            if "backbone_weights" in chosen.model:
                chosen.model.backbone_weights = None
            instantiate(chosen.model)
    assert sweep["metric"]["name"].startswith("val/" if verb == "train" and "test=true" not in words else "test/")


@pytest.mark.parametrize("name", [name for name in SWEEPS if words_of(content(name))[0] == "train"])
def test_what_a_training_sweep_looks_at_is_logged(name):
    from zoo import registry

    sweep = content(name)
    verb, words = words_of(sweep)
    model = registry.load("model", config.compose(verb, words).model.name)
    if "test=true" not in words:
        assert sweep["metric"]["name"] in (model.monitor, "val/spearman")
    early = sweep.get("early_terminate")
    assert early is None or early["type"] == "hyperband"


def test_wandb_takes_every_sweep(server, tmp_path):
    for name in SWEEPS:
        wandb(tmp_path, server, "sweep", "--entity", ENTITY, "--project", PROJECT, config.config_file("sweep", name))
    assert [sweep.config["parameters"] for sweep in server.sweeps.values()] == [
        sweep["parameters"] for sweep in map(content, SWEEPS)
    ]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two agents side by side: of four runs one ends, one is stopped by the server, two fail amid training."""
    folder, server = tmp_path_factory.mktemp("swept"), StandIn()
    sweep = content("two_stage_rn")
    sweep["command"][-1:-1] = TINY
    sweep["method"] = "grid"
    sweep["parameters"] = {
        "trainer.max_epochs": {"values": [2, 4000]},
        "callbacks.checkpoint.monitor": {"values": ["val/accuracy", "val/nothing"]},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    server.stop_when = lambda run: len(run.values("val/spearman")) > 3
    wandb(folder, server, "sweep", "--entity", ENTITY, "--project", PROJECT, "sweep.yaml")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: wandb(folder, server, "agent", f"{ENTITY}/{PROJECT}/sweep0"), range(2)))
    yield folder, server
    server.close()


def test_agents_run_all_and_go_on_after_failures(swept):
    _, server = swept
    assert len(server.runs) == 4
    assert {run.agent for run in server.runs.values()} == {"agent0", "agent1"}
    states = {
        (run.config["trainer.max_epochs"], run.config["callbacks.checkpoint.monitor"]): (run.state, run.exit_code)
        for run in server.runs.values()
    }
    assert states == {
        (2, "val/accuracy"): ("finished", 0), (2, "val/nothing"): ("failed", 1),
        (4000, "val/accuracy"): ("failed", 143), (4000, "val/nothing"): ("failed", 1),
    }  # fmt: skip


def test_runs_have_folders_of_their_own_and_keep_what_they_learnt(swept):
    folder, server = swept
    for run in server.runs.values():
        own = folder / "outputs" / "sweep" / "sweep0" / run.name
        assert run.config["paths"]["run_dir"] == str(own)
        if run.exit_code != 1:
            assert (own / "checkpoints" / "last.ckpt").is_file()
    stopped = next(run for run in server.runs.values() if run.exit_code == 143)
    assert 3 < len(stopped.values("val/spearman")) < 4000


def test_the_metric_of_the_sweep_arrives(swept):
    _, server = swept
    done = next(run for run in server.runs.values() if run.exit_code == 0)
    assert len(done.values("val/spearman")) == 2
    assert done.summary["val/spearman"] == done.values("val/spearman")[-1]
    assert done.config["model"]["dropout"] == 0.0


def test_a_resumed_run_goes_on_under_its_id_and_the_best_checkpoint_is_an_artifact(tmp_path, command, server):
    for folder, *words in (("a", "trainer.max_epochs=1"), ("b", "trainer.max_epochs=2", "ckpt_path=last")):
        command("zoo", "train", *TINY, "logger=wandb", f"hydra.run.dir=runs/{folder}", *words, **server.environment)
    (run,) = server.runs.values()
    assert run.state == "finished"
    assert [row["epoch"] for row in run.history if "val/spearman" in row] == [0, 1]
    assert len([name for name in run.files if name.startswith("media/images/val/ranked")]) == 2
    assert all(artifact["committed"] for artifact in server.artifacts)
    assert {artifact["name"] for artifact in server.artifacts} == {f"model-{run.name}"}
    aliases = [{alias["alias"] for alias in artifact["aliases"]} for artifact in server.artifacts]
    assert all(own == {"best", "latest"} for own in aliases)
    (tmp_path / "sent.ckpt").write_bytes(server.artifacts[0]["files"]["model.ckpt"])
    sent = checkpoints.load_model(str(tmp_path / "sent.ckpt")).state_dict()
    best = torch.load(tmp_path / "runs" / "a" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, sent[name]) for name, value in best.items())


def test_a_table_of_the_queries_is_logged(command, server):
    words = ["data.test_size=4", "benchmark.queries=4", "benchmark.cache=truth", "hydra.run.dir=run"]
    command("zoo", "eval", *TINY[:9], *words, "trainer.enable_progress_bar=false", "logger=wandb", **server.environment)
    (run,) = server.runs.values()
    (table,) = [yaml.safe_load(sent) for name, sent in run.files.items() if name.startswith("media/table/test/queries")]
    assert table["columns"][0] == "query"
    assert len(table["data"]) == 4
    assert all(isinstance(value, float) for value in table["data"][0][1:])
