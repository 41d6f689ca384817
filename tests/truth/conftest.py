from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from zoo.truth import PackedGraphs, SceneGraph, clevr_graph, iter_scenes

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def example():
    """The paper's worked example: two of four attributes of one node, and one "behind" turned "in front of"."""
    attributes = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 1, 0]])
    right = [(0, 1, 0), (0, 2, 0), (1, 2, 0)]
    before = SceneGraph(attributes, [*right, (0, 1, 1), (2, 0, 1), (2, 1, 1)], (0, 1))
    changed = attributes.copy()
    changed[0, 2:] = 1
    after = SceneGraph(changed, [*right, (1, 0, 1), (2, 0, 1), (2, 1, 1)], (0, 1))
    return before, after


def clevr_scene_files():
    """The files of the 1,500 original CLEVR scenes; skips the test where they are absent."""
    folder = DATA / "clevr_real267" / "scenes"
    files = sorted(folder.glob("*.json"))
    if not files:
        pytest.skip(f"no CLEVR scene files in {folder}; set ZOO_DATA to the data folder")
    return files


@pytest.fixture(scope="session")
def clevr_scenes():
    return json.loads(clevr_scene_files()[-1].read_text())["scenes"]


@pytest.fixture(scope="session")
def clevr_graphs(clevr_scenes):
    return [clevr_graph(scene) for scene in clevr_scenes]


@pytest.fixture(scope="session")
def all_clevr_graphs():
    """The graphs of all 1,500 original CLEVR scenes, packed."""
    files = clevr_scene_files()
    return PackedGraphs.from_graphs([clevr_graph(scene) for file in files for scene in iter_scenes(file)])
