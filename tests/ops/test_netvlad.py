"""NetVLAD against its equations in loops, its clusters against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from zoo.ops.netvlad import NetVLAD


def blobs(count, centres=4, channels=6, noise=0.05, seed=0):
    """Returns maps (B, C, 3, 5) whose cells lie about a few directions."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.nn.functional.normalize(torch.rand(centres, channels, generator=generator), dim=1)
    chosen = torch.randint(centres, (count, 15), generator=generator)
    cells = middles[chosen] + noise * torch.randn(count, 15, channels, generator=generator)
    return (cells * (1 + torch.rand(count, 15, 1, generator=generator))).mT.reshape(count, channels, 3, 5)


def literal(one, centres, alpha):
    """Transcribes Eq. 1 to 4 with the initialisation of Appendix A, for a map (C, H, W)."""
    total = np.zeros_like(centres)
    for cell in one.reshape(len(one), -1).T:
        x = cell / np.linalg.norm(cell)
        powers = np.exp(-alpha * ((x - centres) ** 2).sum(1))
        total += (powers / powers.sum())[:, None] * (x - centres)
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    return total.ravel() / np.linalg.norm(total)


@pytest.fixture(scope="module")
def fitted():
    return NetVLAD(6, 4).fit([blobs(20), blobs(20, seed=0)])


def test_the_vector_is_the_papers(fitted):
    maps = blobs(3, seed=1)
    expected = [literal(one, fitted.centres.double().numpy(), fitted.sharpness.item()) for one in maps.double().numpy()]
    np.testing.assert_allclose(fitted(maps).numpy(), np.stack(expected), rtol=1e-3, atol=1e-5)
    assert fitted(maps).shape == (3, fitted.dimension) == (3, 24)


def test_clusters_are_scikit_learns(fitted):
    cells = torch.nn.functional.normalize(blobs(20).flatten(2).mT.flatten(0, 1), dim=1)
    theirs = KMeans(4, n_init=5, random_state=0).fit(cells.numpy()).cluster_centers_
    distances = torch.cdist(fitted.centres.double(), torch.from_numpy(theirs).double())
    assert distances.min(1).values.max() < 1e-3


def test_weights_are_a_hundred_to_one_on_average(fitted):
    cells = torch.nn.functional.normalize(blobs(20).flatten(2).mT.flatten(0, 1), dim=1)
    logits = -fitted.sharpness * torch.cdist(cells, fitted.centres).square()
    first, second = logits.topk(2).values.T
    assert (first - second).mean().exp().item() == pytest.approx(100, rel=1e-2)


def test_the_order_of_cells_and_the_scale_of_a_map_change_nothing(fitted):
    maps = blobs(2, seed=2)
    torch.testing.assert_close(fitted(maps.flip(2, 3)), fitted(maps), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fitted(7 * maps), fitted(maps), rtol=1e-4, atol=1e-5)


def test_fitting_again_gives_the_same_and_a_file_fills_a_new_one(fitted):
    again, loaded = NetVLAD(6, 4).fit([blobs(20), blobs(20, seed=0)]), NetVLAD(6, 4)
    loaded.load_state_dict(fitted.state_dict())
    for other in (again, loaded):
        assert torch.equal(other(blobs(2)), fitted(blobs(2)))


def test_of_many_cells_a_sample_is_clustered(monkeypatch, fitted):
    seen = []
    monkeypatch.setattr("zoo.ops.netvlad._POINTS", 10)
    monkeypatch.setattr("faiss.Kmeans.train", lambda self, points: seen.append(points) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        NetVLAD(6, 4).fit(blobs(1, seed=seed) for seed in range(50))
    (points,) = seen
    assert points.shape == (40, 6)
    cells = torch.nn.functional.normalize(torch.cat([blobs(1, seed=seed) for seed in range(50)]).flatten(2).mT, dim=2)
    match = torch.cdist(torch.from_numpy(points), cells.flatten(0, 1)).argmin(1)
    assert len(set(match.tolist())) == 40
    assert (match // 15 > 25).any()
    assert (match // 15 < 25).any()


def test_gradients_are_those_of_finite_differences(fitted):
    layer = NetVLAD(6, 4).double()
    layer.load_state_dict(fitted.state_dict())
    torch.autograd.gradcheck(layer, blobs(1, noise=0.3).double().requires_grad_())


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="clusters must be at least 2, got 1"):
        NetVLAD(6, 1)
    with pytest.raises(RuntimeError, match="clusters must be fitted on a set of images"):
        NetVLAD(6, 4)(blobs(1))
    with pytest.raises(ValueError, match="clusters must be at most the number of cells of all maps, 15, got 16"):
        NetVLAD(6, 16).fit([blobs(1)])
    with pytest.raises(ValueError, match="the cells of the maps must differ to make 2 clusters"):
        NetVLAD(6, 2).fit([torch.ones(2, 6, 3, 3)])
