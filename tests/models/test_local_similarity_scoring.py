"""Fast scoring of correlation volumes against the network itself."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.models.local_similarity import scoring
from zoo.models.local_similarity.head import CorrelationHead
from zoo.models.local_similarity.scoring import TOLERANCE, PairScorer
from zoo.ops.correlation import correlation_volume


def network(seed=0, depth=49, grid=15, channels=(128, 64), match_score=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CorrelationHead(depth, grid, channels, match_score).eval()


def pairs(count, seed=0, side=7, grid=15, dimension=16):
    """Returns the volumes of smooth maps; every other gallery map has the query in it, more or less noisy."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(size):
        coarse = torch.randn(count, dimension, size // 2 + 1, size // 2 + 1, generator=generator)
        return F.interpolate(coarse, size=size, mode="bilinear")

    query, gallery = smooth(side), smooth(grid)
    for pair in range(0, count, 2):
        y, x = torch.randint(0, grid - side + 1, (2,), generator=generator).tolist()
        noise = 3 * torch.rand(1, generator=generator) * torch.randn(dimension, side, side, generator=generator)
        gallery[pair, :, y : y + side, x : x + side] = query[pair] + noise
    return correlation_volume(F.normalize(gallery, dim=1), F.normalize(query, dim=1))


def assert_same(got, head, volumes, tolerance=TOLERANCE):
    with torch.no_grad():
        expected = head(volumes)
    assert got.logits.dtype == torch.float32
    torch.testing.assert_close(got.logits.softmax(1), expected.logits.softmax(1), atol=tolerance, rtol=0)
    torch.testing.assert_close(got.boxes, expected.boxes, atol=tolerance, rtol=tolerance)


def blocks(volumes, size):
    for start in range(0, len(volumes), size):
        yield slice(start, min(start + size, len(volumes))), volumes[start : start + size]


def test_the_match_score_counts_as_in_the_network(uncompiled):
    head, volumes = network(1, match_score=True), pairs(70)
    torch.nn.init.normal_(head.match.weight)
    for precision, tolerance in (("fp32", TOLERANCE), ("bf16", 0.1)):
        assert_same(PairScorer(head, precision)(volumes), head, volumes, tolerance)


@pytest.fixture
def uncompiled(monkeypatch):
    """Leaves out the compilation, which takes half a minute and more."""
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)


def test_equals_the_network_of_the_paper():
    head, volumes = network(), pairs(40)
    got = PairScorer(head)(volumes)
    assert_same(got, head, volumes, tolerance=1e-4)
    with torch.no_grad():
        expected = head(volumes).logits.softmax(1)[:, 1].numpy()
    order = got.logits.softmax(1)[:, 1].numpy().argsort()
    assert (expected[order][1:] - expected[order][:-1] > -TOLERANCE).all()


@settings(max_examples=15)
@given(
    st.integers(0, 50),
    st.integers(0, 35),
    st.sampled_from([1, 4, 9, 16, 25]),
    st.integers(8, 17),  # of one cell there is no deviation, and torch refuses to normalise it
    st.tuples(st.integers(1, 15), st.integers(1, 9)),
)
def test_equals_any_network(seed, count, depth, grid, channels):
    head = network(seed, depth, grid, channels)
    volumes = torch.randn(count, depth, grid, grid, generator=torch.Generator().manual_seed(seed))
    assert_same(PairScorer(head)(volumes), head, volumes)


@pytest.mark.parametrize(
    "volumes",
    [
        torch.zeros(3, 49, 15, 15),
        torch.full((3, 49, 15, 15), 0.7)
        + 1e-4 * torch.randn(3, 49, 15, 15, generator=torch.Generator().manual_seed(0)),
        1e-3 * pairs(3),
        1e3 * pairs(3),
    ],
    ids=["zeros", "nearly constant", "small", "large"],
)
def test_equals_the_network_where_normalisation_amplifies(volumes):
    head = network(channels=(32, 16))
    assert_same(PairScorer(head)(volumes), head, volumes)


def test_a_pair_does_not_depend_on_those_beside_it():
    scorer, volumes = PairScorer(network(channels=(16, 8))), pairs(21)
    together = scorer(volumes)
    torch.testing.assert_close(scorer(volumes[18:]).logits, together.logits[18:])
    broken = volumes.clone()
    broken[0] = torch.nan
    found = scorer(broken)
    assert torch.equal(found.logits[1:], together.logits[1:])
    assert found.logits[0].isnan().all()


def test_several_threads_find_the_same():
    scorer, volumes, threads = PairScorer(network(channels=(16, 8))), pairs(50), torch.get_num_threads()
    alone = scorer(volumes)
    try:
        torch.set_num_threads(3)
        assert torch.equal(scorer(volumes).logits, alone.logits)
    finally:
        torch.set_num_threads(threads)


def test_takes_volumes_as_they_lie_in_memory():
    head, volumes = network(channels=(16, 8)), pairs(5)
    odd = volumes.double().permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    assert_same(PairScorer(head)(odd), head, volumes)


def test_keeps_the_weights_it_was_made_with():
    head, volumes = network(channels=(16, 8)), pairs(4)
    scorer = PairScorer(head)
    before = scorer(volumes)
    with torch.no_grad():
        for weights in head.parameters():
            weights.mul_(-2)
    after = scorer(volumes)
    assert torch.equal(before.logits, after.logits)
    assert not after.logits.requires_grad
    assert all(weights.requires_grad for weights in head.parameters())
    assert_same(PairScorer(head)(volumes), head, volumes)


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_scores_block_by_block(size):
    scorer, volumes = PairScorer(network(channels=(16, 8))), pairs(33)
    found, expected = scorer.score(blocks(volumes, size)), scorer(volumes)
    torch.testing.assert_close(tuple(found), tuple(expected))


def test_no_block_finds_nothing():
    found = PairScorer(network(channels=(16, 8))).score([])
    assert (found.logits.shape, found.boxes.shape) == ((0, 2), (0, 4))


@pytest.mark.usefixtures("uncompiled")
def test_bf16_ranks_as_fp32(caplog, monkeypatch):
    monkeypatch.setattr(scoring, "cpu_computes_bf16", lambda: False)
    head, volumes = network(channels=(16, 8)), pairs(1000, dimension=8)
    with caplog.at_level(logging.WARNING, "zoo"):
        scorer = PairScorer(head, "bf16")
    assert "no bf16 instructions" in caplog.text
    found = scorer.score(blocks(volumes, 300))
    with torch.no_grad():
        expected = head(volumes)
    best = expected.logits.diff(dim=1)[:, 0].topk(100).indices
    ours = found.logits.diff(dim=1)[:, 0].topk(100).indices
    assert len(set(best.tolist()) & set(ours.tolist())) >= 99
    assert_same(found, head, volumes, tolerance=0.05)
    torch.testing.assert_close(found.boxes[best], expected.boxes[best], atol=1e-3, rtol=1e-3)
    # What lies further down has been computed in bf16.
    worst = expected.logits.diff(dim=1)[:, 0].topk(100, largest=False).indices
    assert (found.logits[worst] - expected.logits[worst]).abs().max() > 1e-4


def test_bf16_runs_uncompiled_where_it_cannot_be_compiled(caplog, monkeypatch):
    def unable(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda network, **_: unable)
    head, volumes = network(channels=(16, 8)), pairs(3)
    with caplog.at_level(logging.WARNING, "zoo"):
        assert_same(PairScorer(head, "bf16")(volumes), head, volumes, tolerance=0.05)
    assert "could not be compiled (RuntimeError)" in caplog.text


def test_the_way_on_a_gpu_finds_the_same():
    # On the CPU, since it is plain torch.
    head, volumes = network(channels=(16, 8)), pairs(5)
    for bf16, tolerance in ((False, 1e-4), (True, 0.05)):
        scorer = PairScorer(head)
        scorer._features = scoring._Device(scorer._head.convolutions, "cpu", bf16)
        assert_same(scorer(volumes), head, volumes, tolerance)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda scorer: scorer(torch.zeros(1, 48, 15, 15)), r"volumes must be \(B, 49, 15, 15\), got \(1, 48"),
        (lambda scorer: scorer(torch.zeros(1, 49, 14, 14)), r"volumes must be \(B, 49, 15, 15\)"),
        (lambda scorer: scorer.score([(slice(1, 2), torch.zeros(1, 49, 15, 15))]), "rows 0 to 1, got"),
        (lambda scorer: PairScorer(scorer._head, "fp8"), "precision must be one of fp32, bf16, got 'fp8'"),
    ],
)
def test_refuses(call, said):
    scorer = PairScorer(network(channels=(16, 8)))
    with pytest.raises(ValueError, match=said):
        call(scorer)
