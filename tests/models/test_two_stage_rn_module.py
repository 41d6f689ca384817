"""Starting weights, learning-rate schedule, losses and scores of the 2S-RN's Lightning side."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.models.two_stage_rn.initialisation import initialise
from zoo.models.two_stage_rn.module import TwoStageRN, learning_rate_factor

TINY = TwoStageRN.tiny


def question(colour, kind, subtype):
    bits = torch.zeros(11)
    bits[[colour, 6 + kind, 8 + subtype]] = 1
    return bits


def test_each_unit_listens_to_one_question():
    model = zoo.create_model("two_stage_rn", **{**TINY, "h": [72]})
    initialise(model.net, (6, 2, 3), gate=3.0)
    asked = torch.stack([question(c, k, t) for c in range(6) for k in range(2) for t in range(3)])
    heard = model.net.h_question(asked)  # (questions, units)
    assert heard.argmax(0).tolist() == [unit % 36 for unit in range(72)]
    own = heard.gather(0, torch.arange(72)[None] % 36)
    assert own.abs().max() < 0.5
    others = heard.masked_fill(torch.nn.functional.one_hot(torch.arange(72) % 36, 36).T.bool(), -torch.inf)
    assert others.max() < -2


def test_groups_must_fit_the_question():
    with pytest.raises(ValueError, match="question_dim 11, got"):
        zoo.create_model("two_stage_rn", **TINY, question_groups=[6, 2])


def test_plain_initialisation_is_torchs_own():
    torch.manual_seed(0)
    plain = zoo.create_model("two_stage_rn", **TINY, question_groups=None)
    assert plain.net.h_question.weight.abs().max() <= 11**-0.5


def test_schedule_values():
    factors = [learning_rate_factor(step, warmup=4, total=104) for step in (0, 3, 4, 54, 104, 200)]
    assert factors == pytest.approx([0.25, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert learning_rate_factor(10**6, warmup=4, total=None) == 1.0


@pytest.mark.parametrize(
    "changed", [{"feature": "pixel"}, {"aggregation": "sum"}, {"convention": "mine"}, {"schedule": "step"}]
)
def test_unknown_words_are_named(changed):
    ((argument, value),) = changed.items()
    with pytest.raises(ValueError, match=f"{argument} must be one of .* got '{value}'"):
        zoo.create_model("two_stage_rn", **TINY, **changed)


def test_convention_sets_the_pair_norm_unless_it_is_given():
    for convention, pair_norm, expected in (("paper", None, False), ("authors", None, True), ("authors", False, False)):
        model = zoo.create_model("two_stage_rn", **TINY, convention=convention, pair_norm=pair_norm)
        assert model.pair_norm is expected


def test_embed_follows_feature_and_aggregation():
    batch = TwoStageRN.tiny_batch()
    model = zoo.create_model("two_stage_rn", **TINY, feature="conv", aggregation="avg").eval()
    rows = model.descriptors(batch)
    assert model.descriptor_name == "RN conv avg"
    for model.feature, model.aggregation, model.pair_norm, row in (
        ("conv", "avg", False, "RN conv avg"),
        ("relation", "max", True, "2S-RN max, pair L2"),
        ("relation", "avg", False, "2S-RN avg"),
    ):
        assert model.descriptor_name == row
        assert torch.equal(model.embed(batch).vector, rows[row])


def test_rn_reads_the_question_first_and_has_conv_rows_only():
    with pytest.raises(ValueError, match="feature must be conv where question_layer is 0"):
        zoo.create_model("two_stage_rn", **{**TINY, "question_layer": 0})
    model = zoo.create_model("two_stage_rn", **{**TINY, "question_layer": 0, "feature": "conv"}).eval()
    rows = model.descriptors(TwoStageRN.tiny_batch())
    assert set(rows) == {"RN conv max", "RN conv avg"}
    assert model.net(TwoStageRN.tiny_batch().images, TwoStageRN.tiny_batch().questions).shape == (3, 4, 10)


def test_scores_count_right_answers_by_type():
    batch = TwoStageRN.tiny_batch()
    model = zoo.create_model("two_stage_rn", **TINY).eval()
    scores = model.task_scores(batch)
    right = model.net(batch.images, batch.questions).argmax(-1) == batch.answers
    assert scores["accuracy"].tolist() == [right.sum().item(), 12]
    counts = [(batch.question_types == kind).sum().item() for kind in (0, 1)]
    assert [scores[f"accuracy/{name}"][1].item() for name in batch.question_type_names] == counts
    assert scores["accuracy/relational"].tolist() == scores["accuracy/relational/count"].tolist()
    assert scores["accuracy"].tolist() == (scores["accuracy/relational"] + scores["accuracy/non_relational"]).tolist()
