from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.models.two_stage_rn.net import TwoStageRNNet
from zoo.models.two_stage_rn.pooling import Pooling

RECIPE = {
    "conv": [8, 8, 8, 8],
    "g": [32, 24, 16],
    "h": [20],
    "f": [16, 12],
    "question_layer": 3,
    "question_dim": 11,
    "answers": 10,
    "coordinate_range": 4.0,
    "pair_scale": 0.04,
    "dropout": 0.0,
    "chunk": 3,
}


def build(**changes) -> TwoStageRNNet:
    torch.manual_seed(0)
    return TwoStageRNNet(**(RECIPE | changes))


def batch(images=3, questions=5):
    torch.manual_seed(1)
    questions_ = (torch.rand(images, questions, 11) < 0.3).float()
    return torch.rand(images, 3, 75, 75), questions_, torch.randint(0, 10, (images, questions))


def reference(net: TwoStageRNNet, images, questions):
    """The network as the paper writes it: one image, one question, an explicit double loop over objects."""
    weights = torch.cat([net.h_pair.weight, net.h_question.weight], dim=1)
    logits = torch.empty(*questions.shape[:2], RECIPE["answers"])
    maps = net.conv(images)
    size = maps.shape[-1]
    axis = torch.linspace(-4, 4, size)
    for b in range(len(images)):
        objects = [torch.cat([maps[b, :, i, j], axis[[j, i]]]) for i in range(size) for j in range(size)]
        for s in range(questions.shape[1]):
            total = 0
            for first in objects:
                for second in objects:
                    state = torch.cat([first, second])
                    for layer in net.g:
                        state = F.relu(layer(state))
                    state = F.relu(F.linear(torch.cat([state, questions[b, s]]), weights, net.h_pair.bias))
                    for layer in net.h:
                        state = F.relu(layer(state))
                    total = total + state
            state = total * net.pair_scale
            for layer in net.f[:-1]:
                state = F.relu(layer(state))
            logits[b, s] = net.f[-1](state)
    return logits


@pytest.mark.parametrize("changes", [{}, {"question_layer": 0}, {"question_layer": 2}, {"h": [20, 9]}])
def test_logits_equal_the_paper_formula_pair_by_pair(changes):
    net = build(**changes).eval()
    images, questions, _ = batch(images=1, questions=2)
    with torch.no_grad():
        torch.testing.assert_close(net(images, questions), reference(net, images, questions), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("question_layer", [0, 1, 3])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_grouped_questions_give_the_loss_and_gradients_of_one_image_per_question(question_layer, chunk):
    net = build(question_layer=question_layer, chunk=chunk)
    images, questions, answers = batch()
    grouped = F.cross_entropy(net(images, questions).flatten(0, 1), answers.flatten())
    repeated = images.repeat_interleave(questions.shape[1], dim=0)
    single = F.cross_entropy(net(repeated, questions.flatten(0, 1)[:, None])[:, 0], answers.flatten())
    assert abs(grouped.item() - single.item()) < 1e-5
    grads = torch.autograd.grad(grouped, list(net.parameters()))
    for got, wanted in zip(grads, torch.autograd.grad(single, list(net.parameters())), strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-3)


def test_all_shifts_change_nothing_and_fewer_keep_the_mean_of_what_depends_on_one_object():
    net = build().eval()
    images, questions, _ = batch()
    with torch.no_grad():
        full = net(images, questions)
        torch.testing.assert_close(net(images, questions, pair_shifts=25), full, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(net(images, questions, pair_shifts=1), full, atol=1e-5)
        # Blind to the second object, so that every sample has the sum of all pairs.
        net.g[0].weight[:, net.g[0].in_features // 2 :] = 0
        torch.testing.assert_close(net(images, questions, pair_shifts=1), net(images, questions), atol=1e-5, rtol=1e-4)


def test_paper_recipe_has_25_objects_and_the_published_widths():
    net = build(conv=[24] * 4, g=[2048, 1024, 512, 256], h=[256], f=[256, 256], question_layer=4)
    assert net.conv(torch.zeros(1, 3, 75, 75)).shape == (1, 24, 5, 5)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight") and p.dim() == 2}
    assert shapes == {
        "g.0.weight": (2048, 52),
        "g.1.weight": (1024, 2048),
        "g.2.weight": (512, 1024),
        "g.3.weight": (256, 512),
        "h_pair.weight": (256, 256),
        "h_question.weight": (256, 11),
        "f.0.weight": (256, 256),
        "f.1.weight": (256, 256),
        "f.2.weight": (10, 256),
    }


def test_state_dict_keys_name_the_parts():
    assert {key.split(".")[0] for key in build(h=[20, 9]).state_dict()} == {
        "conv",
        "g",
        "h_pair",
        "h_question",
        "h",
        "f",
    }


def test_bf16_autocast_is_near_fp32_and_differentiable():
    net = build()
    images, questions, answers = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(images, questions)
    torch.testing.assert_close(low.float(), net(images, questions), atol=0.05, rtol=0.05)
    F.cross_entropy(low.float().flatten(0, 1), answers.flatten()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that anything computes."""

    numel = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize("changes", [{}, {"question_layer": 0}, {"h": [20, 9]}])
def test_memory_does_not_grow_with_pairs_times_questions(changes):
    net, kept = build(chunk=2, **changes), []
    for count in (4, 64):
        saved = {}

        def keep(tensor, into=saved):
            into[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        images, questions, _ = batch(images=2, questions=count)
        with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            net(images, questions).sum().backward()
        assert largest.numel <= 2 * 625 * 32  # pairs of two images, or of two questions, at the widest layer
        kept.append(sum(saved.values()))
    assert kept[1] - kept[0] < 2 * 60 * 625  # not even one byte for each pair and further question


def test_training_step_lowers_the_loss():
    net = build(pair_scale=0.01)
    images, questions, answers = batch()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(net(images, questions).flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("aggregation", ["max", "avg"])
@pytest.mark.parametrize("pair_norm", [False, True])
def test_relation_features_aggregate_the_question_free_pairs(aggregation, pair_norm):
    net = build().eval()
    images, _, _ = batch()
    with torch.no_grad():
        maps = net.conv(images).flatten(2)
        axis = torch.linspace(-4, 4, 5)
        x, y = axis.repeat(5), axis.repeat_interleave(5)
        objects = torch.cat([maps, torch.stack([x, y]).expand(3, 2, 25)], dim=1)
        i, j = torch.meshgrid(torch.arange(25), torch.arange(25), indexing="ij")
        state = torch.cat([objects[:, :, i.flatten()], objects[:, :, j.flatten()]], dim=1).transpose(1, 2)
        for layer in net.g:
            state = F.relu(layer(state))
        if pair_norm:
            state = state / state.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        expected = state.max(dim=1).values if aggregation == "max" else state.sum(dim=1) / 625
        (actual,) = net.describe(images, [Pooling("relation", aggregation, pair_norm)])
        torch.testing.assert_close(actual, expected)


def test_conv_features_aggregate_the_last_map():
    net = build().eval()
    images, _, _ = batch()
    with torch.no_grad():
        maps = net.conv(images)
        average, largest = net.describe(images, [Pooling("conv", "avg"), Pooling("conv", "max")])
        torch.testing.assert_close(average, maps.mean(dim=(2, 3)))
        torch.testing.assert_close(largest, F.adaptive_max_pool2d(maps, 1)[..., 0, 0])


def test_descriptors_refuse_the_plain_rn_and_unknown_words():
    images = torch.zeros(1, 3, 75, 75)
    with pytest.raises(ValueError, match="question_layer is 0"):
        build(question_layer=0).describe(images, [Pooling("relation", "max")])
    with pytest.raises(ValueError, match=r"aggregation must be one of max, avg, got 'sum'"):
        build().describe(images, [Pooling("relation", "sum")])
    with pytest.raises(ValueError, match=r"feature must be one of relation, conv, got 'pixel'"):
        build().describe(images, [Pooling("pixel", "max")])


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_descriptors_and_their_gradients_do_not_depend_on_the_blocks(chunk):
    net, whole = build(chunk=chunk).eval(), build(chunk=3).eval()
    images, _, _ = batch()
    poolings = [Pooling("relation", "avg", True), Pooling("conv", "max"), Pooling("relation", "max")]
    for got, wanted in zip(net.describe(images, poolings), whole.describe(images, poolings), strict=True):
        torch.testing.assert_close(got, wanted)
    net.describe(images, poolings)[0].sum().backward()
    whole.describe(images, poolings)[0].sum().backward()
    torch.testing.assert_close(net.g[0].weight.grad, whole.g[0].weight.grad)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_layer": 4}, "question_layer must lie in 0 … len.g. = 3, got 4"),
        ({"g": []}, "g must be a non-empty list"),
        ({"h": [0]}, "h must be a non-empty list of positive widths, got"),
        ({"chunk": 0}, "chunk must be at least 1"),
    ],
)
def test_wrong_hyper_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
