"""Questions in words: the encoder, the vocabulary that a model reads, answers, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo import checkpoints
from zoo.models.two_stage_rn.module import TwoStageRN
from zoo.models.two_stage_rn.text import QuestionEncoder
from zoo.types import Batch
from zoo.vocabulary import vocabulary

TINY = {
    **TwoStageRN.tiny,
    "h": [16, 16],
    "vocabulary": "clevr",
    "question_dim": 12,
    "word_dim": 5,
    "answers": 28,
    "question_groups": None,
}
QUESTIONS = [
    ["Are there any red cubes?", "What number of things are big?"],
    ["What color is the sphere that is left of the tiny metal cylinder?"],
    [],
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**changes):
    return zoo.create_model("two_stage_rn", **{**TINY, **changes}).eval()


def batch(answers=None):
    """Returns three images with the questions above, -1 where an image has fewer."""
    words = vocabulary("clevr")
    ids = torch.zeros(3, 2, 15, dtype=torch.long)
    for image, asked in enumerate(QUESTIONS):
        for place, question in enumerate(asked):
            encoded = words.encode(question)
            ids[image, place, : len(encoded)] = torch.tensor(encoded)
    return Batch(
        index=torch.arange(3),
        images=torch.rand(3, 3, 128, 128),
        questions=ids,
        answers=torch.tensor([[3, 5], [7, -1], [-1, -1]]) if answers is None else answers,
        question_types=torch.tensor([[0, 1], [2, -1], [-1, -1]]),
        question_type_names=("exist", "count", "query/color"),
        vocabulary="clevr",
    )


def last_cell(encoder, ids):
    """The LSTM written out: gates i, f, g, o, one word after the other."""
    size = encoder.lstm.hidden_size
    hidden, cell = torch.zeros(size), torch.zeros(size)
    for number in ids:
        gates = encoder.lstm.weight_ih_l0 @ encoder.embedding.weight[number] + encoder.lstm.bias_ih_l0
        gates = gates + encoder.lstm.weight_hh_l0 @ hidden + encoder.lstm.bias_hh_l0
        enter, keep, value, leave = gates.split(size)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(value)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
    return cell


def test_questions_are_padded_and_read_backwards():
    encoder = QuestionEncoder(words=9, word_dim=3, question_dim=4, length=6)
    with torch.no_grad():
        (found,) = encoder(torch.tensor([[[4, 9, 1, 0], [2, 0, 0, 0]]]))
        torch.testing.assert_close(found[0], last_cell(encoder, [0, 0, 0, 1, 9, 4]))
        torch.testing.assert_close(found[1], last_cell(encoder, [0, 0, 0, 0, 0, 2]))


@settings(max_examples=20)
@given(ids=st.lists(st.integers(1, 9), min_size=1, max_size=6), extra=st.integers(0, 6))
def test_a_question_does_not_depend_on_how_far_its_batch_is_padded(ids, extra):
    encoder = QuestionEncoder(words=9, word_dim=3, question_dim=4, length=6)
    wider = (ids + [0] * extra)[: max(6, len(ids))]
    with torch.no_grad():
        assert torch.equal(encoder(torch.tensor([[ids]])), encoder(torch.tensor([[wider]])))


def test_padding_is_trained_as_any_word():
    encoder = QuestionEncoder(words=9, word_dim=3, question_dim=4, length=6)
    encoder(torch.tensor([[[4, 9, 0]]])).sum().backward()
    assert encoder.embedding.weight.grad[0].abs().sum() > 0
    assert encoder.embedding.weight.grad[1].abs().sum() == 0


def test_the_encoder_refuses_long_questions_and_vectors():
    encoder = QuestionEncoder(words=9, word_dim=3, question_dim=4, length=6)
    with pytest.raises(ValueError, match="question_length = 6 words, got 7"):
        encoder(torch.ones(1, 1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match=r"word ids \(integers\), got torch.float32"):
        encoder(torch.ones(1, 1, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": 29}, "answers must be 28 for vocabulary 'clevr', got 29"),
        ({"vocabulary": "unknown", "answers": 10}, "answers must be 28 for vocabulary 'unknown', got 10"),
        ({"question_groups": [6, 6]}, r"question_groups must be null for vocabulary 'clevr'.*got \[6, 6\]"),
        ({"vocabulary": "klingon"}, "vocabulary must be one of clevr, got 'klingon'"),
    ],
)
def test_what_does_not_fit_the_vocabulary_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_answers_in_words_are_those_of_the_network():
    model, asked = build(), batch()
    found = model.answer(asked.images, QUESTIONS)
    best = model.net(asked.images, asked.questions).argmax(-1)
    names = vocabulary("clevr").answers
    assert found == [[names[best[0, 0]], names[best[0, 1]]], [names[best[1, 0]]], []]
    assert model.answer(asked.images, [[], [], []]) == [[], [], []]


def test_wrong_questions_are_refused():
    images = batch().images
    with pytest.raises(ValueError, match="holds 'zebra'"):
        build().answer(images, [["Is there a zebra?"], [], []])
    with pytest.raises(ValueError, match="questions must be one list per image, 3, got 1"):
        build().answer(images, QUESTIONS[:1])
    plain = zoo.create_model("two_stage_rn", **TwoStageRN.tiny)
    with pytest.raises(ValueError, match=r"need model\.vocabulary, got null"):
        plain.answer(images, QUESTIONS)


def test_a_batch_of_another_vocabulary_is_refused_in_training_and_not_asked_in_evaluation():
    plain = zoo.create_model("two_stage_rn", **TwoStageRN.tiny)
    for model, given_ in ((plain, batch()), (build(), TwoStageRN.tiny_batch())):
        names = f"vocabulary {model.vocabulary!r}, got those of {given_.vocabulary!r}"
        with pytest.raises(ValueError, match=names):
            model.training_step(given_, 0)
        with pytest.warns(UserWarning, match=names):
            assert model.task_scores(given_) == {}


def test_a_batch_without_questions_is_refused_in_training():
    bare = replace(batch(), questions=None, answers=None, question_types=None)
    with pytest.raises(ValueError, match="this batch has none"):
        build().training_step(bare, 0)
    assert build().task_scores(bare) == {}


def test_unknown_word_order_serves_features_and_refuses_questions():
    model = build(vocabulary="unknown")
    assert model.embed(batch()).vector.shape == (3, 16)
    for ask in (lambda: model.answer(batch().images, QUESTIONS), lambda: model.training_step(batch(), 0)):
        with pytest.raises(ValueError, match=r"order of the words .* never published; its image features work"):
            ask()
    with pytest.warns(UserWarning, match="not asked"):
        assert model.task_scores(batch()) == {}


def test_unanswered_questions_count_in_neither_loss_nor_accuracy(monkeypatch):
    model, asked = build(), batch()
    logged = {}
    monkeypatch.setattr(model, "log", lambda name, value, batch_size, **_: logged.update({name: (value, batch_size)}))
    loss = model.training_step(asked, 0)
    logits = model.net(asked.images, asked.questions)
    chosen = torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]]).log_softmax(-1)
    expected = -(chosen[0, 3] + chosen[1, 5] + chosen[2, 7]) / 3
    torch.testing.assert_close(loss, expected)
    assert logged["train/loss"] == (loss, 3)
    right = sum(int(row.argmax() == answer) for row, answer in zip(chosen, (3, 5, 7), strict=True))
    assert logged["train/accuracy"][0] == pytest.approx(right / 3)
    scores = model.task_scores(asked)
    assert scores["accuracy"].tolist() == [right, 3]
    assert [scores[f"accuracy/{kind}"][1].item() for kind in ("exist", "count", "query")] == [1, 1, 1]


def test_a_batch_of_unanswered_questions_gives_no_gradient(monkeypatch):
    model = build()
    monkeypatch.setattr(model, "log", lambda *_, **__: pytest.fail("nothing to log"))
    model.training_step(batch(answers=torch.full((3, 2), -1)), 0).backward()
    assert all(parameter.grad.abs().sum() == 0 for parameter in model.parameters())


def test_weights_of_a_model_with_words_rebuild_it(tmp_path):
    model, asked = build(), batch()
    checkpoints.save_weights(model, tmp_path / "words.safetensors")
    again = zoo.load_model(str(tmp_path / "words.safetensors"))
    assert again.vocabulary == "clevr"
    assert torch.equal(again.net(asked.images, asked.questions), model.net(asked.images, asked.questions))
