"""Indexes to serve: of drawn maps without a model, of photos with one, and of vectors with re-rankers."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastapi.testclient import TestClient
from PIL import Image
from served_command import NETWORK, Server

import zoo
from zoo.serve.app import create_app
from zoo.serve.settings import Settings
from zoo.types import Representation

sys.path.insert(0, str(Path(__file__).parents[1] / "commands"))
from photo_runs import photos, run

COLOURS = np.array([[120, 170, 230], [120, 90, 60], [200, 40, 40]], np.uint8)
COUNT, GRID = 60, (12, 16)


def scene(number):
    """Returns labels (H, W): sky over ground, and a thing somewhere."""
    random = np.random.default_rng(number)
    labels = np.zeros(GRID, np.int64)
    labels[random.integers(4, 9) :] = 1
    top, left = random.integers(0, GRID[0] - 4), random.integers(0, GRID[1] - 4)
    labels[top : top + 4, left : left + 4] = 2
    return labels


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """An index of 60 scenes with pictures, labels and captions, that brings no model; its folder."""
    root = tmp_path_factory.mktemp("drawn")
    labels = np.stack([scene(number) for number in range(COUNT)])
    maps = F.one_hot(torch.from_numpy(labels), 3).permute(0, 3, 1, 2).float()
    payloads = []
    for number, each in enumerate(labels):
        file = root / f"{number}.png"
        Image.fromarray(COLOURS[each].repeat(8, 0).repeat(8, 1)).save(file)
        words = "a red thing" if number % 3 == 0 else "something" if number % 3 == 1 else "a thing"
        payloads.append({"path": str(file), "label": "ab"[number % 2], "captions": [words]})
    index = zoo.create("index", "probability_maps", centroids=32)
    index.add([f"scenes/{number}" for number in range(COUNT)], Representation(probability_map=maps), payloads)
    classes = [
        {"name": name, "colour": f"#{colour.tobytes().hex()}"} for name, colour in zip("xyz", COLOURS, strict=True)
    ]
    for each, name in zip(classes, ("sky", "ground", "thing"), strict=True):
        each["name"] = name
    index.save(root / "index", {"model": {"name": "fcn_segment", "parameters": {"classes": classes}}})
    return root / "index"


@pytest.fixture(scope="session")
def described(tmp_path_factory):
    """An index of photos that brings the model which described them; its folder."""
    root = tmp_path_factory.mktemp("described")
    run("index", root, f"data.root={photos(root / 'photos', 8)}", *NETWORK, f"out={root / 'index'}")
    return root / "index"


@pytest.fixture
def client(tmp_path):
    """Serves an index in this process; further settings as in `Settings`."""
    opened = []

    def serve(index, **settings):
        (tmp_path / "photos").mkdir(exist_ok=True)
        app = create_app(Settings(index=str(index), photos=str(tmp_path / "photos"), **settings))
        opened.append(TestClient(app).__enter__())
        return opened[-1]

    yield serve
    for each in opened:
        each.__exit__(None, None, None)


@pytest.fixture(scope="session")
def served(drawn, tmp_path_factory):
    """The address at which `drawn` is served."""
    server = Server(tmp_path_factory.mktemp("served"), f"index_path={drawn}", "k=12")
    yield server.url
    server.stop(signal.SIGTERM)
