"""Stopping and going on gives the run that was never stopped, to the last bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch

from zoo import checkpoints

TINY = (
    "data.train_size=48", "data.val_size=8", "data.test_size=4", "data.gallery_size=8", "data.batch_size=16",
    "model.g=[16,16]", "model.h=[16]", "model.f=[16,16]", "model.question_layer=2", "model.schedule=constant",
    "model.pair_shifts=2", "model.dropout=0.5", "data.warmup_epochs=3",
    "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, command_in):
    root = tmp_path_factory.mktemp("runs")
    for folder, *more in (("whole", 4), ("parts/first", 2), ("parts/second", 4, "ckpt_path=last")):
        words = [f"hydra.run.dir={folder}", "data.root=data", f"trainer.max_epochs={more[0]}", *more[1:]]
        command_in(root, "zoo", "train", *TINY, *words)
    return root


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_four_epochs_are_two_and_two(runs):
    whole, parts = last(runs / "whole"), last(runs / "parts" / "second")
    assert whole["global_step"] == parts["global_step"] == 12
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name
    for number, state in whole["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, parts["optimizer_states"][0]["state"][number][name]), (number, name)


def test_the_first_part_is_not_the_whole(runs):
    first, whole = last(runs / "parts" / "first"), last(runs / "whole")
    assert any(not torch.equal(value, whole["state_dict"][name]) for name, value in first["state_dict"].items())


def test_best_and_last_are_kept_and_describe_themselves(runs):
    for name in ("best", "last"):
        model = checkpoints.load_model(str(runs / "whole" / "checkpoints" / f"{name}.ckpt"))
        assert model.registered["name"] == "two_stage_rn"
        assert model.registered["parameters"]["g"] == [16, 16]


def test_an_average_of_the_weights_is_what_is_kept_and_goes_on_too(tmp_path, command):
    average = ["callbacks=[checkpoint,last,weight_average]", "callbacks.weight_average.decay=0.5", "data.root=data"]
    for folder, *more in (("whole", 2), ("parts/first", 1), ("parts/second", 2, "ckpt_path=last")):
        words = [f"hydra.run.dir={folder}", f"trainer.max_epochs={more[0]}", *more[1:]]
        command("zoo", "train", *TINY, *average, *words)
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts" / "second")
    for state in ("state_dict", "current_model_state"):
        for name, value in whole[state].items():
            assert torch.equal(value, parts[state][name]), (state, name)
    assert any(
        not torch.equal(value, whole["current_model_state"][name]) for name, value in whole["state_dict"].items()
    )
    kept = checkpoints.load_model(str(tmp_path / "whole" / "checkpoints" / "last.ckpt")).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in whole["state_dict"].items())


def stopped(folder, *words, after, signum=signal.SIGTERM):
    """Runs a training, sends it a signal once `after` returns true, and returns its exit code and what it said."""
    words = [*TINY, f"hydra.run.dir={folder / 'run'}", f"data.root={folder / 'data'}", *words]
    child = subprocess.Popen([sys.executable, "-m", "zoo.commands.train", *words], stdout=-1, stderr=-2, text=True)
    try:
        deadline = time.monotonic() + 90
        while not after() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signum)
        said = child.communicate(timeout=60)[0]
    finally:
        child.kill()
    return child.returncode, said


LONG = ("data.train_size=1600", "data.warmup_epochs=0", "data.batch_size=16", "trainer.max_epochs=2")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_within_its_epoch(tmp_path, command, signum):
    csv, rates = f"logger.csv.save_dir={tmp_path}/logs", "callbacks=[checkpoint,last,learning_rate]"
    log = tmp_path / "logs" / "csv" / "version_0" / "metrics.csv"
    code, said = stopped(
        tmp_path, *LONG, csv, rates, "trainer.log_every_n_steps=1", "+logger.csv.flush_logs_every_n_steps=5",
        after=lambda: log.is_file() and log.read_text().count("\n") > 15, signum=signum,
    )  # fmt: skip
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}[signum], said
    interrupted = torch.load(tmp_path / "run" / "checkpoints" / "interrupted.ckpt", weights_only=True)
    assert 0 < interrupted["global_step"] < 100
    assert "ckpt_path=last" in said
    where = [f"data.root={tmp_path / 'data'}", "hydra.run.dir=run"]
    answer = command("zoo", "train", *TINY, *LONG, *where, "ckpt_path=auto")
    assert "interrupted.ckpt" in answer.stdout
    if signum == signal.SIGINT:  # amid a batch
        return
    command("zoo", "train", *TINY, *LONG, where[0], "hydra.run.dir=whole", "ckpt_path=auto")
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "run")
    assert whole["global_step"] == parts["global_step"] == 200
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name


def test_nothing_to_resume_is_said(command):
    answer = command("zoo", "train", *TINY, "hydra.run.dir=a/b", "data.root=.", "ckpt_path=last", code=2)
    assert "ckpt_path=last: no checkpoints/last.ckpt" in answer.stderr
    assert "Traceback" not in answer.stderr
