"""The corridor of vpr_bench: real images, re-ranked by networks that simulated cities have taught."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gnn_rerank_study import METRICS, Study, expanded, judged, none, refined
from scipy import stats
from study import DATA
from torch import Tensor

import zoo
from zoo.evaluation.tables import Table, mean_and_interval

HITS, ANCHORS = 110, 63
STEP = 1.0  # m that the oracle takes the camera to move from frame to frame
ANY = {"projection": None, "phase2_input": "raw", "anchors": ANCHORS}


@cache
def place() -> tuple[Any, Tensor]:
    """Returns the corridor as a city of descriptors (GeM of MobileNetV2), and what is relevant (Q, N)."""
    model = zoo.create_model("global_descriptor", pooling="gem").eval()
    root = DATA / "vpr_bench" / "corridor"
    data = zoo.create("data", "folder", root=str(root / "ref"), longest_side=160)
    found = {}
    for side, folder in (("database", "ref"), ("query", "query")):
        files = sorted((root / folder).glob("*.jpg"))
        with torch.no_grad():
            rows = [model.represent(data.prepare_picture(file)).vector for file in files]
        found[side] = torch.cat(rows)
    frames = np.arange(len(found["database"])) * STEP
    columns = {"easting": frames, "northing": 0 * frames, "heading": np.full(len(frames), 90.0)}
    truth = torch.zeros(len(found["query"]), len(frames), dtype=torch.bool)
    for query, matches in json.loads((DATA / "vpr_bench" / "ground_truth" / "corridor.json").read_text()):
        truth[query, matches] = True
    return SimpleNamespace(descriptors=found, images={"database": SimpleNamespace(columns=columns)}), truth


def centred(city: Any) -> Any:
    """Returns the corridor with descriptors that lack the mean of their set.

    Behind a ReLU all cosines are near 1; those that the networks have learnt from lie around 0.
    """
    found = {side: rows - rows.mean(0) for side, rows in city.descriptors.items()}
    return SimpleNamespace(descriptors=found, images=city.images)


def corridor(studies: Sequence[Study]) -> Table:
    """Returns the table: baselines with the thesis' settings, and the networks without projection, over the seeds."""
    city, truth = place()
    rows = _rows(studies, city, truth, "") | _rows(studies, centred(city), truth, ", centred")
    lines = []
    for name, every in rows.items():
        values = np.mean(every, axis=0)  # over seeds; the interval is over queries
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        lines.append([name, *(mean_and_interval(m, h) for m, h in zip(values.mean(0), half, strict=True))])
    title = f"Corridor (vpr_bench, {len(truth)} queries, {truth.shape[1]} references), real images"
    notes = [
        "Networks learnt from simulated cities alone, means over their seeds. The oracle knows where references stand.",
        "Centred: queries and references without the mean of their set; lists centred: the network takes it out.",
    ]
    return Table(title, ["", *METRICS], lines, names=1, notes=notes)


def _rows(studies: Sequence[Study], city: Any, truth: Tensor, suffix: str) -> dict[str, list[np.ndarray]]:
    rows: dict[str, list[np.ndarray]] = {}
    fixed: dict[str, Callable[[Any], Tensor]] = {
        "none": none,
        "AQE, K = 1": expanded(1, 0.0),
        "αQE, K = 1, α = 1": expanded(1, 1.0),
        "SuperGlobal, K = 110, P = 1, β = .6": refined(HITS, 1, 0.6),
    }
    for name, rank in fixed.items():
        rows[name + suffix] = [judged(rank(city), truth)]
    networks = {
        "GNN without FC": {"affinities": []},
        "GNN without FC, lists centred": {"affinities": [], "centre": True},
        "oracle: the same + PA of frame numbers": {"affinities": ["field_of_view"], "centre": True},
    }
    for study in studies:
        for name, changed in networks.items():
            values = judged(study.reranked(study.trained(**ANY, **changed), HITS)(city), truth)
            rows.setdefault(name + suffix, []).append(values)
    return rows
