"""Re-ranking by a head of random weights, against scores, boxes and explanations computed without the re-ranker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import roi_pool

import zoo
from zoo import checkpoints
from zoo.models.local_similarity.module import LocalSimilarity
from zoo.models.local_similarity.reranker import LocalSimilarityReranker
from zoo.registry import UsageError
from zoo.search.local_maps import encoded, map_of
from zoo.search.quantizer import ProductQuantizer
from zoo.testing import check_reranker
from zoo.types import Representation

GRID, QUERY, D, HITS = 8, 3, 12, 9
CLOSE = {"rtol": 0, "atol": 2e-3}  # the fast scorer may be off by 1e-3
METADATA = [{"id": f"item {k}", "width": 100 + k, "height": 60} for k in range(HITS)]


def made(seed=0, **changed):
    """Returns a model whose head is not as undecided as a new one."""
    torch.manual_seed(seed)
    tiny = {**LocalSimilarity.tiny, "gallery_grid": GRID, "query_grid": QUERY}
    model = zoo.create_model("local_similarity", **{**tiny, **changed}).eval()
    with torch.no_grad():
        model.head.exists.weight.mul_(20)
        model.head.location.weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "head.safetensors"
    checkpoints.save_weights(model, path)
    return str(path)


def reranker(weights, **changed):
    return zoo.create("reranker", "local_similarity", weights=weights, **changed)


def items(count, grid, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = F.normalize(torch.randn(count, D, grid, grid, generator=generator), dim=1)
    return Representation(vector=3 * torch.randn(count, 5, generator=generator), local_map=maps)


@pytest.fixture
def query():
    return items(1, QUERY, 1)


@pytest.fixture
def hits():
    return items(HITS, GRID, 2)


def asked(head, query, hits):
    """Returns what the head itself finds: probabilities and boxes."""
    maps, own = hits.local_map, query.local_map[0].flatten(1)
    with torch.no_grad():
        found = head(torch.stack([torch.einsum("dq,dyx->qyx", own, each) for each in maps]))
    return found.logits.softmax(dim=1)[:, 1].double().numpy(), found.boxes.double().numpy()


def cosines(vector, vectors):
    return np.array([vector @ each / np.linalg.norm(vector) / np.linalg.norm(each) for each in vectors])


def by_place(ranking):
    return [ranking.ids.index(each["id"]) for each in METADATA]


@pytest.mark.parametrize("weight", [0, 0.3, 0.9, 1])
def test_scores_are_the_weighted_sum_and_sort_the_hits(weight, file, model, query, hits):
    local, _ = asked(model.head, query, hits)
    assert local.min() < 0.3
    assert local.max() > 0.7
    wanted = (1 - weight) * cosines(query.vector[0].numpy(), hits.vector.numpy()) + weight * local
    found = reranker(file, weight=weight)(query, hits, {}, METADATA)
    assert found.ids == [METADATA[k]["id"] for k in np.argsort(-wanted, kind="stable")]
    np.testing.assert_allclose(found.scores.numpy(), np.sort(wanted)[::-1], **CLOSE)


def test_evidence_has_both_similarities_and_boxes_where_the_query_is_found(file, model, query, hits):
    local, boxes = asked(model.head, query, hits)
    assert 0 < (local > 0.5).sum() < HITS
    bare = [{key: value for key, value in each.items() if key == "id"} for each in METADATA]
    for metadata in (METADATA, bare):
        found = reranker(file)(query, hits, {}, metadata)
        for k, place in enumerate(by_place(found)):
            shown = found.evidence[place]
            assert shown["local"] == pytest.approx(local[k], abs=2e-3)
            assert shown["global"] == pytest.approx(
                cosines(query.vector[0].numpy(), hits.vector[k : k + 1].numpy())[0], abs=1e-6
            )
            assert ("box" in shown) == (local[k] > 0.5)
            if "box" in shown:
                x, y, wide, high = boxes[k]
                sides = np.array([100 + k, 60] if metadata is METADATA else [1, 1])
                centre, size = 0.5 + np.array([x, y]), np.exp(np.minimum([wide, high], 1))
                corners = np.clip([centre - size / 2, centre + size / 2], 0, 1) * sides
                np.testing.assert_allclose(shown["box"], corners.flatten(), rtol=0, atol=0.5)


@pytest.mark.parametrize("loss", ["cls", "triplet"])
def test_a_head_that_was_not_taught_boxes_shows_none(loss, query, hits, tmp_path):
    other = made(loss=loss)
    checkpoints.save_weights(other, tmp_path / "head.safetensors")
    by_file, by_model = reranker(str(tmp_path / "head.safetensors")), reranker(None)
    by_model.use_model(other)
    for each in (by_file, by_model):
        found = each(query, hits, {}, METADATA)
        assert any(shown["local"] > 0.5 for shown in found.evidence)
        assert not any("box" in shown for shown in found.evidence)


@pytest.mark.parametrize("count", [1, 4, 50])
def test_expansion_averages_the_query_with_the_best_hits(count, file, model, query, hits):
    local, _ = asked(model.head, query, hits)
    own, others = query.vector[0].numpy(), hits.vector.numpy()
    first = 0.2 * cosines(own, others) + 0.8 * local
    best = np.argsort(-first, kind="stable")[:count]
    mean = np.mean([each / np.linalg.norm(each) for each in (own, *others[best])], axis=0)
    wanted = 0.2 * cosines(mean, others) + 0.8 * local
    found = reranker(file, weight=0.8, expand=count)(query, hits, {}, METADATA)
    np.testing.assert_allclose(found.scores.numpy(), np.sort(wanted)[::-1], **CLOSE)
    assert np.abs(wanted - first).max() > 0.05


def in_codes(each, renormalise=True):
    rows = items(20, GRID, 5).local_map.permute(0, 2, 3, 1).reshape(-1, D)
    quantizer = ProductQuantizer.fit(1.5 * rows, m=4, k=16, seed=0)
    codes = encoded(each.local_map, quantizer)
    decoded = replace(each, local_map=map_of(codes, quantizer, renormalise))
    return replace(each, local_map=None, local_codes=codes, quantizer=quantizer), decoded


@pytest.mark.parametrize("renormalise", [True, False])
def test_codes_rank_as_the_maps_that_they_decode_to(renormalise, file, query, hits):
    codes, decoded = in_codes(hits, renormalise)
    lengths = decoded.local_map.norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths)) == renormalise
    stage = reranker(file, renormalise=renormalise)
    found, wanted = stage(query, codes, {}, METADATA), stage(query, decoded, {}, METADATA)
    torch.testing.assert_close(found.scores, wanted.scores, **CLOSE)
    assert found.ids == wanted.ids


def test_an_item_of_the_index_that_is_asked_with_is_pooled(file, hits):
    stage, item = reranker(file), hits.rows(slice(3, 4))
    corners = [torch.tensor([[0.0, 0, GRID - 1, GRID - 1]])]
    codes, decoded = in_codes(item)
    for given, maps in ((item, item.local_map), (codes, decoded.local_map)):
        pooled = F.normalize(roi_pool(maps, corners, QUERY), dim=1)
        found = stage(given, hits, {}, METADATA)
        wanted = stage(replace(item, local_map=pooled), hits, {}, METADATA)
        torch.testing.assert_close(found.scores, wanted.scores)
        assert found.ids == wanted.ids


def test_the_head_is_that_of_the_weights_else_of_the_model(file, model, query, hits):
    other, named, free = made(seed=7), reranker(file), reranker(None)
    wanted = {id(each): asked(each.head, query, hits)[0] for each in (model, other)}

    def local(stage):
        found = stage(query, hits, {}, METADATA)
        return np.array([found.evidence[place]["local"] for place in by_place(found)])

    named.use_model(other)
    np.testing.assert_allclose(local(named), wanted[id(model)], **CLOSE)
    for given in (model, other):  # the model of another index
        free.use_model(given)
        np.testing.assert_allclose(local(free), wanted[id(given)], **CLOSE)
    headless = nn.Module()
    headless.head = nn.Linear(2, 2)  # of another kind
    free.use_model(headless)
    free.use_model(nn.Module())
    np.testing.assert_allclose(local(free), wanted[id(other)], **CLOSE)


def test_a_reranker_without_a_head_says_how_to_get_one(query, hits):
    stage = reranker(None)
    for ask in (lambda: stage(query, hits), lambda: stage.explain(query, hits.rows(slice(0, 1)))):
        with pytest.raises(ValueError, match=r"has no head: set reranker\.local_similarity\.weights, or search what a"):
            ask()


def test_maps_of_other_grids_than_the_heads_are_refused(file, query, hits):
    stage, coarse, fine = reranker(file), items(1, 2, 0), items(HITS, 15, 0)
    message = r"hits must have local maps of \(8, 8\) cells, as the head has, got \(15, 15\)"
    for given in (fine, in_codes(fine)[0]):
        with pytest.raises(ValueError, match=message):
            stage(query, given)
        with pytest.raises(ValueError, match=message):
            stage.explain(query, given.rows(slice(0, 1)))
    with pytest.raises(ValueError, match=r"query must have a local map of \(3, 3\) cells, as the head has, got \(2, 2"):
        stage(coarse, hits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": 1.1}, "weight must lie in 0 … 1, got 1.1"),
        ({"weight": "half"}, "weight must lie in 0 … 1, got 'half'"),
        ({"expand": -1}, "expand must be an integer of at least .*, got -1"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, got 'fp16'"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message, file):
    with pytest.raises(ValueError, match=message):
        reranker(file, **wrong)


def test_weights_that_hold_no_head_are_refused(tmp_path):
    plain = zoo.create_model("global_descriptor", backbone="test_resnet", backbone_weights="random")
    checkpoints.save_weights(plain, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"weights must be of the model local_similarity, '.*' is of global_desc"):
        reranker(str(tmp_path / "plain.safetensors"))
    with pytest.raises(UsageError, match="model 'local_similarity' has no weights 'nobody'"):
        reranker("nobody")


def cam(head, volume, block):
    """Returns Grad-CAM of a block, with the network run on from its activations."""
    layers = list(head.convolutions)
    place = [k for k, layer in enumerate(layers) if isinstance(layer, nn.Sequential)][block - 1]
    with torch.no_grad():
        activations = nn.Sequential(*layers[: place + 1])(volume)
    leaf = activations.clone().requires_grad_()
    logits = head.exists(nn.Sequential(*layers[place + 1 :])(leaf).flatten(1))[0]
    (logits[1] - logits[0]).backward()
    shown = torch.zeros(activations.shape[2:])
    for own, gradient in zip(activations[0], leaf.grad[0], strict=True):
        shown += gradient.mean() * own
    shown = shown.clamp(min=0)
    return shown / shown.max() if shown.max() > 0 else shown


def explained(head, query, hits):
    """Returns a hit for which every layer has something to show, and what that is."""
    for k in range(HITS):
        volume = torch.einsum("dq,dyx->qyx", query.local_map[0].flatten(1), hits.local_map[k])[None]
        wanted = {f"conv{block}": cam(head, volume, block) for block in (1, 2, 4)}
        if all(heat.any() for heat in wanted.values()):
            return hits.rows(slice(k, k + 1)), wanted
    raise AssertionError("no hit has anything to show in every layer")


def test_explanations_are_grad_cam(file, model, query, hits):
    stage, (hit, wanted) = reranker(file), explained(model.head, query, hits)
    assert [each.shape for each in wanted.values()] == [(8, 8), (8, 8), (4, 4)]
    half = replace(hit, local_map=hit.local_map.numpy().astype(np.float16))  # as features on disk are
    with torch.inference_mode():
        asked_twice = stage.explain(query, hit), stage.explain(query, half)
    for found, close in zip(asked_twice, (1e-4, 5e-2), strict=True):
        assert list(found) == list(wanted)
        for name, heat in found.items():
            torch.testing.assert_close(heat, wanted[name], rtol=0, atol=close)
            assert heat.max() == 1
            assert not heat.requires_grad
    codes, decoded = in_codes(hit)
    of_codes, of_maps = stage.explain(query, codes), stage.explain(query, decoded)
    assert all((of_codes[name] - of_maps[name]).abs().max() < 0.1 for name in wanted)


def test_nothing_is_shown_where_nothing_speaks_for_the_query(query, hits):
    model, stage = made(), reranker(None)
    hit, for_it = explained(model.head, query, hits)
    with torch.no_grad():
        model.head.exists.weight.copy_(model.head.exists.weight.flip(0))
    stage.use_model(model)
    against = stage.explain(query, hit)
    assert not any((heat * against[name]).any() for name, heat in for_it.items())
    with pytest.raises(ValueError, match="must be of one pair, got 9"):
        stage.explain(query, hits)
    with torch.no_grad():
        model.head.exists.weight.zero_()
    stage.use_model(model)
    assert not any(heat.any() for heat in stage.explain(query, hit).values())


def test_the_reranker_keeps_the_contract(tmp_path, monkeypatch):
    checkpoints.save_weights(made(gallery_grid=15, query_grid=7), tmp_path / "head.safetensors")
    monkeypatch.setattr(LocalSimilarityReranker, "tiny", {"weights": str(tmp_path / "head.safetensors")})
    check_reranker("local_similarity")
