"""What the contract test of data asks of what a module says of its images: labels, payloads, truths, label maps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from zoo.testing.models import _require


def check_knowledge(data: Any) -> None:
    """Checks what a data module knows of its gallery, as far as it has the methods for it."""
    split = data.gallery_split
    ids = data.ids(split)
    if hasattr(data, "labels"):
        _check_labels(data, split, ids)
    if hasattr(data, "payloads"):
        _check_payloads(data, split, ids)
    if hasattr(data, "ground_truth"):
        _check_truth(data)
    if hasattr(data, "scene_graphs") and (not hasattr(data, "has_scene_graphs") or data.has_scene_graphs(split)):
        graphs, parts = data.scene_graphs(split), data.compositions(split)
        _require(len(graphs) == len(ids), f"scene_graphs() must hold one graph an image, got {len(graphs)}")
        numbers = parts.ndim == 2 and len(parts) == len(ids)
        _require(numbers, f"compositions() must be (N, F), a row an image, got the shape {parts.shape}")
    if hasattr(data, "label_map"):
        _check_label_map(data, split, ids)


def _check_labels(data: Any, split: str, ids: list[str]) -> None:
    try:
        labels = data.labels(split)
    except (ValueError, NotImplementedError):  # nobody says any
        return
    texts = len(labels) == len(ids) and all(isinstance(label, str) for label in labels)
    _require(texts, f"labels() must be one text an image, got {len(labels)} for {len(ids)} images")


def _check_payloads(data: Any, split: str, ids: list[str]) -> None:
    names = ids[:3][::-1]
    payloads = data.payloads(split, names)
    _require(len(payloads) == len(names), f"payloads() must be one mapping a name, got {len(payloads)}")
    try:
        plain = json.loads(json.dumps(payloads)) == payloads
    except TypeError:
        plain = False
    _require(plain, "payloads() must be small mappings of plain values, as JSON has them")
    single = [data.payloads(split, [name])[0] for name in names]
    _require(single == payloads, "payloads() must be in the order of the names")


def _check_truth(data: Any) -> None:
    truth = data.ground_truth()
    if truth is None:
        return
    made = hasattr(truth, "query_images") and hasattr(truth, "groups")
    _require(made, f"ground_truth() must return RelevanceLists of zoo.truth or None, got {type(truth).__name__}")
    known = set(data.ids(data.query_split))
    _require(bool(known & set(truth.query_images)), "ground_truth() must ask with images of the query split")
    again = data.ground_truth().fingerprint()
    _require(truth.fingerprint() == again, "ground_truth() must be the same whenever it is asked for")


def _check_label_map(data: Any, split: str, ids: list[str]) -> None:
    labels = data.label_map(split, 0)
    made = isinstance(labels, np.ndarray) and labels.dtype == np.int64 and labels.ndim == 2
    _require(made, "label_map() must be (H, W) int64")
    within = bool(((labels >= -1) & (labels < len(data.classes))).all())
    _require(within, f"label_map() must hold -1 … {len(data.classes) - 1}, the positions in classes")
    side = data.picture(split, 0).shape[:2]
    _require(labels.shape == side, f"label_map() must be as large as its picture, {side}, got {labels.shape}")
