"""`zoo eval` with an index and re-rankers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

MODEL = ("model=global_descriptor", "model.backbone=test_resnet", "model.backbone_weights=random")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for label in "abc":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{label}{number}.png")
    return f"data.root={tmp_path / 'photos'}"


def test_the_chain_is_a_row_of_the_table(command, tmp_path, photos):
    words = ["zoo", "eval", *MODEL, "data=folder", photos, "benchmark=instances", "trainer.enable_progress_bar=false"]
    chain = ["index=ivf_pq", "index.lists=2", "index.subquantizers=4", "index.bits=3", "index.probes=2"]
    done = command(*words, *chain, "reranker=[superglobal,aqe]", "shortlist=5", f"paths.run_dir={tmp_path / 'run'}")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    labels = [row["descriptor"] for row in results["rows"]]
    assert labels == ["GeM", "GeM > ivf_pq > superglobal > aqe"]
    assert results["own"] == 1
    assert labels[1] in done.stdout
    assert results["search"]["shortlist"] == 5
    assert results["search"]["index"]["parameters"]["lists"] == 2
    assert list(results["search"]["rerankers"]) == ["superglobal", "aqe"]
    assert json.loads((tmp_path / "run" / "rankings.json").read_text())["descriptor"] == labels[1]
    assert (tmp_path / "run" / "contact_sheet.png").is_file()


def test_a_search_that_does_not_fit_is_refused_before_anything_is_run(command, photos):
    words = ["zoo", "eval", *MODEL, "data=folder", photos, "benchmark=instances", "index=regions"]
    assert (
        "regions need the representation fields ['regions'], the model fills ['vector']"
        in command(*words, code=2).stderr
    )
