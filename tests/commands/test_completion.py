"""Presses the tab key in a real interactive bash."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from zoo import config
from zoo.commands._completing import candidates
from zoo.commands.completion import HYDRA_VERBS

BIN = Path(sys.executable).parent
DONE = "complete>"


class Shell:
    """A bash with the zoo's completion, on a terminal of its own."""

    def __init__(self, cwd, plugin_site):
        self.terminal, inside = pty.openpty()
        environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PS1": DONE,
            "TERM": "dumb",
            "COLUMNS": "400",
            "PYTHONPATH": str(plugin_site),
        }
        words = ["bash", "--norc", "--noprofile", "-i"]
        self.process = subprocess.Popen(
            words, cwd=cwd, env=environment, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)
        self.read_until(DONE)
        for line in ("bind 'set bell-style none'", 'eval "$(zoo completion bash)"'):
            self.type(f"{line}\n")
            self.read_until(DONE)

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read_until(self, end, seconds=30):
        shown, deadline = "", time.monotonic() + seconds
        while not shown.endswith(end):
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"expected {end!r} at the end of {shown!r}"
            shown += os.read(self.terminal, 4096).decode(errors="replace")
        return shown

    def complete(self, typed, expected):
        """Types a beginning and the tab key, waits for the expected line, and empties it again."""
        self.type(f"{typed}\t")
        self.read_until(expected)
        self.type("\x15\n")  # control-U
        self.read_until(DONE)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, plugin_site):
    folder = tmp_path_factory.mktemp("shell")
    (folder / "runs/a").mkdir(parents=True)
    (folder / "runs/a/best.ckpt").touch()
    opened = Shell(folder, plugin_site)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("zoo tra", "zoo train"),
        ("zoo list ben", "zoo list benchmark"),
        ("zoo train model=two", "zoo train model=two_stage_rn"),
        ("zoo train model=acme_r", "zoo train model=acme_rank"),
        ("zoo train model.aggr", "zoo train model.aggregation="),
        ("zoo train seed=3 data=sort", "zoo train seed=3 data=sort_of_clevr"),
        ("zoo train model=acme_rank model.hid", "zoo train model=acme_rank model.hidden="),
        ("zoo eval benchmark=rel", "zoo eval benchmark=relational"),
        ("zoo index index=fl", "zoo index index=flat"),
        ("zoo score benchmark=rev", "zoo score benchmark=revisited"),
        ("zoo train experiment=oxford_s", "zoo train experiment=oxford_shuffled"),
        (
            "zoo train experiment=fcn_segment_camvid model.prior",
            "zoo train experiment=fcn_segment_camvid model.prior_correction=",
        ),
        ("zoo train callbacks=[checkpoint,la", "zoo train callbacks=[checkpoint,last"),
        (
            "zoo train callbacks=[early_stopping] callbacks.early_stopping.pat",
            "zoo train callbacks=[early_stopping] callbacks.early_stopping.patience=",
        ),
        ("zoo search reranker=super", "zoo search reranker=superglobal"),
        ("zoo train --multi", "zoo train --multirun"),
        ("zoo train data=images data.longest", "zoo train data=images data.longest_side="),
        ("zoo train ckpt_path=runs/a/b", "zoo train ckpt_path=runs/a/best.ckpt"),
        ("zoo copy experi", "zoo copy experiment"),
        ("zoo copy experiment/oxford", "zoo copy experiment/oxford_shuffled"),
        ("zoo info two", "zoo info two_stage_rn"),
        ("zoo info acme_m", "zoo info acme_mrr"),
    ],
)
def test_tab_completes(shell, typed, expected):
    shell.complete(typed, expected)


@pytest.mark.parametrize("verb", HYDRA_VERBS)
def test_every_key_that_a_command_has_is_offered(verb):
    """Walks down all levels and compares with what Hydra composes."""
    composed = OmegaConf.to_container(config.compose(verb, []), resolve=False)
    unset = ("_target_", "_convert_", "kind", "name", "none")  # what nobody sets
    wanted = {f"{key}=" for key in flat(composed) if key.split(".")[-1] not in unset}
    found, todo = set(), [""]
    while todo:
        for each in candidates(verb, [], todo.pop()):
            if each.endswith("."):
                todo.append(each)
            else:
                found.add(each)
    assert wanted <= found


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
