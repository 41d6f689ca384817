"""The examples run as they stand."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import zoo
from zoo.checkpoints import save_weights

EXAMPLES = Path(__file__).resolve().parent.parent / "tools" / "examples"


@pytest.fixture(autouse=True)
def milvus():
    for package in ("pymilvus", "milvus_lite"):
        pytest.importorskip(package, reason="needs the extra 'milvus'")


def orders(shown):
    """Returns the ids by Milvus and the re-ranked ones."""
    rows = re.findall(r"^ *\d+ +(\d+) +[+-]\d+ m +(\d+) +[+-]\d+ m +(-?[\d.]+)$", shown, re.MULTILINE)
    assert [float(score) for *_, score in rows] == sorted((float(score) for *_, score in rows), reverse=True)
    return [row[0] for row in rows], [row[1] for row in rows]


def test_hits_of_milvus_are_re_ranked(command, tmp_path):
    torch.manual_seed(0)
    sizes = {"dimension": 32, "projection": 16, "anchors": 9, "width": 24, "heads": 2}
    save_weights(zoo.create_model("gnn_rerank", **sizes, affinities=["heading", "time"]), tmp_path / "one.safetensors")
    done = command("python", EXAMPLES / "rerank_milvus_hits.py", "one.safetensors")
    old, new = orders(done.stdout)
    assert len(old) == 30
    assert sorted(old) == sorted(new)
    assert old != new
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_without_weights_it_says_that_the_order_means_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rerank_milvus_hits.py"])
    runpy.run_path(str(EXAMPLES / "rerank_milvus_hits.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert shown.startswith("no weights are given: a tiny model with random ones, whose order means nothing\n")
    old, new = orders(shown)
    assert sorted(old) == sorted(new)
