"""Several jobs side by side, several nodes, and jobs that a cluster stops and starts again: on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from places import BIN

TINY = (
    "data.root=data", "data.train_size=64", "data.val_size=16", "data.test_size=8", "data.gallery_size=40",
    "model.g=[16,16]", "model.h=[16]", "model.f=[16,16]", "model.question_layer=2", "data.warmup_epochs=0",
    "data.batch_size=16", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
)  # fmt: skip
NODES = ("trainer=ddp_cpu", "trainer.strategy=ddp", "trainer.devices=1", "trainer.num_nodes=2")


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def waited(condition, child):
    deadline = time.monotonic() + 120
    while not condition() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def begun(folder, *words):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [BIN / words[0], *words[1:]], cwd=folder, env={**os.environ, "PATH": path}, stdout=-1, stderr=-2, text=True
    )


def ended(child, code=0):
    said = child.communicate(timeout=120)[0]
    assert child.returncode == code, said
    return said


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_joblib_runs_jobs_side_by_side(tmp_path):
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=runs", "trainer.max_epochs=1"]
    ended(begun(tmp_path, "zoo", "train", "-m", *words, "seed=0,1", *TINY))
    one, two = (last(tmp_path / "runs" / name)["state_dict"] for name in "01")
    assert any(not torch.equal(value, two[name]) for name, value in one.items())


def test_a_wrong_job_of_joblib_is_told_in_a_line(tmp_path):
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=runs", "trainer.max_epochs=1"]
    said = ended(begun(tmp_path, "zoo", "train", "-m", *words, "model.dropout=0,3", *TINY), code=2)
    assert "dropout probability has to be between 0 and 1, but got 3" in said
    assert "Traceback" not in said


def test_an_unknown_launcher_and_an_unknown_key_of_one_are_named(command):
    assert "known: basic, joblib, submitit_local" in command("zoo", "train", "hydra/launcher=foo", code=2).stderr
    answer = command("zoo", "train", "hydra/launcher=joblib", "hydra.launcher.n_job=2", code=2)
    assert "Key 'n_job' not in 'JobLibLauncherConf'" in answer.stderr


def test_a_job_of_submitit_that_is_preempted_is_queued_again_and_goes_on(tmp_path):
    words = ["hydra/launcher=submitit_local", "hydra.sweep.dir=runs", "ckpt_path=auto", "trainer.max_epochs=60"]
    child = begun(tmp_path, "zoo", "train", "-m", *words, "seed=0", *TINY)
    folder = tmp_path / "runs" / "0"
    waited((folder / "checkpoints" / "last.ckpt").is_file, child)
    os.kill(_worker(tmp_path), signal.SIGUSR2)
    ended(child)
    assert last(folder)["epoch"] == 59
    said = "".join(path.read_text() for path in (tmp_path / "runs" / ".submitit").glob("*/*_log.out"))
    assert "resuming" in said


def _worker(folder):
    """Returns the process that submitit trains in, among those of this folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"submitit.core._submit" in words and any(os.fsencode(folder) in word for word in words):
            return int(process.name)
    raise AssertionError("no process of submitit")


def test_a_wrong_job_of_submitit_is_told_without_a_traceback(tmp_path):
    words = ["hydra/launcher=submitit_local", "hydra.sweep.dir=runs", "model.dropout=3", *TINY]
    said = ended(begun(tmp_path, "zoo", "train", "-m", *words), code=2)
    assert "dropout probability has to be between 0 and 1, but got 3" in said
    assert "Traceback" not in said


def test_two_nodes_train_together(tmp_path, port):
    words = ["--no-python", "zoo", "train", *TINY, *NODES, "trainer.max_epochs=2", "hydra.run.dir=runs/two"]
    where = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    nodes = [begun(tmp_path, "torchrun", f"--node-rank={node}", *where, *words) for node in range(2)]
    for node in nodes:
        ended(node)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two"]
    assert last(tmp_path / "runs" / "two")["global_step"] == 4  # of 64 images in batches of 16, half to each node


def test_two_nodes_without_torchrun(tmp_path, port, command_in):
    words = [*TINY, *NODES, "trainer.max_epochs=1", "hydra.run.dir=runs/two"]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    zoo = [sys.executable, "-m", "zoo.commands.train", *words]
    nodes = [
        subprocess.Popen(
            zoo, cwd=tmp_path, env={**os.environ, **shared, "NODE_RANK": str(n)}, stdout=-1, stderr=-2, text=True
        )
        for n in range(2)
    ]
    for node in nodes:
        ended(node)
    assert last(tmp_path / "runs" / "two")["global_step"] == 2


def test_processes_that_would_have_folders_of_their_own_are_refused(command):
    answer = command("zoo", "train", *TINY, WORLD_SIZE="2", code=2)
    assert "name it, hydra.run.dir=" in answer.stderr


def test_processes_that_are_terminated_stop_together_and_go_on(tmp_path):
    words = ["--nproc-per-node=2", "--no-python", "zoo", "train", *TINY, "trainer=ddp_cpu", "trainer.strategy=ddp"]
    folder = tmp_path / "run"
    child = begun(tmp_path, "torchrun", *words, "hydra.run.dir=run", "ckpt_path=auto", "trainer.max_epochs=100000")
    waited((folder / "checkpoints" / "last.ckpt").is_file, child)
    child.send_signal(signal.SIGTERM)
    ended(child, code=1)  # torchrun's own
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    steps = max(torch.load(folder / "checkpoints" / name, weights_only=True)["global_step"] for name in kept)
    epochs = steps // 2 + 2
    ended(begun(tmp_path, "torchrun", *words, "hydra.run.dir=run", "ckpt_path=auto", f"trainer.max_epochs={epochs}"))
    assert last(folder)["global_step"] == 2 * epochs
