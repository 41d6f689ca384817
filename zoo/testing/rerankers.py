"""The contract test of re-rankers."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch

from zoo import config, registry
from zoo.testing.models import _require, check_signature
from zoo.types import Ranking, Representation

if TYPE_CHECKING:
    from torch import Tensor

HITS, DIMENSION = 7, 8
KEYPOINTS = 12


def check_reranker(name: str) -> None:
    """Checks that the registered re-ranker `name` keeps the contract; raises AssertionError saying which clause breaks.

    In order: signature equals YAML; it builds from its `tiny` overrides and names known fields in `needs`; it returns
    each of some made-up hits once, by their ids or their positions, with finite scores that don't rise and evidence for
    each or none; equal hits keep their order; one hit and none are fine; the same call gives the same answer; NumPy
    arrays do as well as tensors, and nothing that was passed is changed; a missing field is refused, naming both lists.
    An `expand` returns one image's worth of finite fields, with the query's fingerprint.
    """
    check_signature("reranker", name)
    cls = registry.load("reranker", name)
    reranker = config.create("reranker", name, **getattr(cls, "tiny", {}))
    known = {f.name for f in fields(Representation)} - {"fingerprint"}
    _require(set(reranker.needs) <= known, f"needs {list(reranker.needs)} must be among {sorted(known)}")
    query, hits = made_up(1, 0), made_up(HITS, 1)
    metadata = [{"id": f"item {place}", "score": 1.0 - 0.1 * place} for place in range(HITS)]
    _check_answers(reranker, query, hits, metadata)
    _check_equal_hits(reranker, query, hits, metadata)
    _check_numbers(reranker, query, hits, metadata)
    _check_arrays(reranker, query, hits, metadata)
    _check_missing_field(reranker, query, hits, metadata)
    if hasattr(reranker, "expand"):
        _check_expansion(reranker, query, hits, metadata)


def made_up(count: int, seed: int) -> Representation:
    """Returns `count` made-up images with every field that a re-ranker may need; similarities are of either sign."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    # Keypoints of all images are those of one scene, seen under different shifts.
    scene = torch.Generator().manual_seed(-1)
    places = 100 * torch.rand(KEYPOINTS, 2, generator=scene)
    looks = torch.randn(KEYPOINTS, DIMENSION, generator=scene)
    corners = 100 * torch.rand(count, 3, 4, 2, generator=generator)
    return Representation(
        vector=noise(DIMENSION),
        local_map=noise(DIMENSION, 15, 15),
        regions=noise(3, DIMENSION),
        region_mask=torch.ones(count, 3, dtype=torch.bool),
        region_boxes=torch.cat([corners.amin(2), corners.amax(2)], dim=2),
        region_hulls=corners,
        keypoints=places + 5 * noise(1, 2),
        keypoint_descriptors=looks + 0.01 * noise(KEYPOINTS, DIMENSION),
        keypoint_mask=torch.ones(count, KEYPOINTS, dtype=torch.bool),
        fingerprint="0123456789abcdef",
    )


def _check_answers(reranker: Any, query: Representation, hits: Representation, metadata: list[dict]) -> None:
    before = _copied(query), _copied(hits)
    found = reranker(query, hits, {}, metadata)
    _require(isinstance(found, Ranking), f"a call must return a Ranking, got {type(found).__name__}")
    named = sorted(found.ids) == sorted(mapping["id"] for mapping in metadata)
    _require(named, f"the ranking must hold the id of each hit once, got {list(found.ids)}")
    scores = torch.as_tensor(found.scores)
    _require(bool(scores.isfinite().all()), "scores must be finite")
    _require(bool((scores.diff() <= 0).all()), "scores must not rise along the ranking")
    again = reranker(query, hits, {}, metadata)
    _require(list(again.ids) == list(found.ids), "the same call must give the same ranking")
    _require(_same(before[0], query) and _same(before[1], hits), "query and hits must not be changed")


def _check_equal_hits(reranker: Any, query: Representation, hits: Representation, metadata: list[dict]) -> None:
    same = hits.rows(torch.zeros(HITS, dtype=torch.int64))
    level = [{**mapping, "score": 1.0} for mapping in metadata]
    ids = list(reranker(query, same, None, level).ids)
    _require(ids == [mapping["id"] for mapping in level], f"equal hits must keep their order, got {ids}")


def _check_numbers(reranker: Any, query: Representation, hits: Representation, metadata: list[dict]) -> None:
    plain = [{"score": mapping["score"]} for mapping in metadata]
    positions = list(reranker(query, hits, None, plain).ids)
    _require(sorted(positions) == list(range(HITS)), f"hits without ids must be called by position, got {positions}")
    one = list(reranker(query, hits.rows(slice(0, 1)), None, metadata[:1]).ids)
    _require(one == ["item 0"], f"one hit must be returned, got {one}")
    none = reranker(query, hits.rows(slice(0, 0)), None, [])
    _require(len(none) == 0, f"no hits must give an empty ranking, got {len(none)} items")


def _check_arrays(reranker: Any, query: Representation, hits: Representation, metadata: list[dict]) -> None:
    arrays = [
        replace(items, **{name: value.numpy() for name, value in items.filled().items()}) for items in (query, hits)
    ]
    try:
        ids = list(reranker(*arrays, {}, metadata).ids)
    except (TypeError, AttributeError) as error:
        raise AssertionError(f"NumPy arrays must do as well as tensors: {error}") from error
    expected = list(reranker(query, hits, {}, metadata).ids)
    _require(ids == expected, f"NumPy arrays must give the ranking of tensors, {expected}, got {ids}")


def _check_missing_field(reranker: Any, query: Representation, hits: Representation, metadata: list[dict]) -> None:
    for field in reranker.needs:
        try:
            reranker(query, replace(hits, **{field: None}), {}, metadata)
        except ValueError as error:
            named = field in str(error) and "local_map" in str(error)  # what it needs, and what is there
            _require(named, f"the error for hits without {field} must name what is needed and what is there: {error}")
        else:
            _require(False, f"hits without {field} must raise ValueError")


def _check_expansion(reranker: Any, query: Representation, hits: Representation, metadata: list[dict]) -> None:
    expanded = reranker.expand(query, hits, {}, metadata)
    _require(bool(expanded.filled()), "expand must fill at least one field")
    for name, value in expanded.filled().items():
        _require(len(value) == 1, f"expand: {name} must have the leading dimension 1, got {len(value)}")
        _require(bool(value.isfinite().all()), f"expand: {name} must be finite")
    same = expanded.fingerprint == query.fingerprint
    _require(same, f"expand must keep the query's fingerprint, got {expanded.fingerprint}")


def _copied(items: Representation) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in items.filled().items()}


def _same(before: dict[str, Tensor], items: Representation) -> bool:
    return all(torch.equal(value, getattr(items, name)) for name, value in before.items())
