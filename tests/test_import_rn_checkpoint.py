"""The authors' checkpoints for CLEVR: every tensor arrives where it belongs, and what they can't serve is refused."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import zoo
from zoo.files import BadFile
from zoo.types import Batch

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data"))
TOOL = ROOT / "tools" / "import_rn_checkpoint.py"
FILES = {2: DATA / "rn_checkpoints" / "ir_fp_epoch_312.pth", 0: DATA / "rn_checkpoints" / "original_fp_epoch_493.pth"}

needs_files = pytest.mark.skipif(
    not all(path.is_file() for path in FILES.values()), reason=f"needs rn_checkpoints, absent in {DATA} (ZOO_DATA)"
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("import_rn_checkpoint", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images():
    folder = DATA / "clevr_mini" / "images" / "val"
    if not folder.is_dir():
        return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    pictures = [Image.open(path).convert("RGB").resize((128, 128)) for path in sorted(folder.iterdir())[:3]]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def raw(question_layer):
    state = torch.load(FILES[question_layer], map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): value for name, value in state.items()}


def maps(weights, images):
    for number in range(1, 5):
        name = f"conv.conv{number}"
        images = F.conv2d(images, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2, padding=1)
        norm = [weights[f"conv.batchNorm{number}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = (value[:, None, None] for value in norm)
        images = ((images - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
    return images


def pair_rows(features):
    """Lists the pairs as the authors do: second object first; (C, 8, 8) to (4096, 2 * (C + 2))."""
    axis = torch.linspace(-4, 4, 8)
    objects = [torch.cat([features[:, y, x], axis[[x, y]]]) for y in range(8) for x in range(8)]
    return torch.stack([torch.cat([b, a]) for a in objects for b in objects])


def dense(weights, name, rows):
    return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def logits(weights, image, words, question_layer):
    """The authors' whole network for one image and the ids of one question, already padded and turned round."""
    embedded = weights["text.wembedding.weight"][words]
    lstm = torch.nn.LSTM(32, 128)
    lstm.load_state_dict({name: weights[f"text.lstm.{name}"] for name in lstm.state_dict()})
    question = lstm(embedded)[1][1][0]
    rows = pair_rows(maps(weights, image[None])[0])
    for layer in range(4):
        if layer == question_layer:
            rows = torch.cat([rows, question.expand(len(rows), -1)], dim=1)
        rows = dense(weights, f"rl.g_layers.{layer}", rows).relu()
    state = rows.sum(0)
    for layer in (1, 2):
        state = dense(weights, f"rl.f_fc{layer}", state).relu()
    return dense(weights, "rl.f_fc3", state)


@needs_files
@pytest.mark.parametrize("question_layer", [2, 0])
def test_the_network_is_that_of_the_authors(tool, images, question_layer):
    model, weights = tool.load(FILES[question_layer]), raw(question_layer)
    words = torch.tensor([5, 71, 82, 3, 14, 9])
    padded = torch.cat([torch.zeros(44, dtype=torch.long), words.flip(0)])
    with torch.no_grad():
        found = model.net(images[:1], words[None, None])[0, 0]
        expected = logits(weights, images[0], padded, question_layer)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@needs_files
def test_descriptors_are_those_of_the_authors(tool, images, tmp_path):
    output = tmp_path / "weights.safetensors"
    tool.checkpoints.save_weights(tool.load(FILES[2]), output)
    model, weights = zoo.load_model(str(output)), raw(2)
    with torch.no_grad():
        rows = model.descriptors(Batch(index=torch.arange(3), images=images))
        features = maps(weights, images)
        pairs = torch.stack([pair_rows(item) for item in features])
        for layer in (0, 1):
            pairs = dense(weights, f"rl.g_layers.{layer}", pairs).relu()
        unit = pairs / pairs.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        expected = {
            "RN conv max": features.amax((2, 3)),
            "RN conv avg": features.mean((2, 3)),
            "2S-RN max": pairs.amax(1),
            "2S-RN avg": pairs.mean(1),
            "2S-RN max, pair L2": unit.amax(1),
            "2S-RN avg, pair L2": unit.mean(1),
        }
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        torch.testing.assert_close(row, expected[name], rtol=1e-5, atol=1e-5, msg=name)
    assert model.descriptor_name == "2S-RN avg, pair L2"  # convention: authors


@needs_files
def test_an_imported_checkpoint_answers_no_questions(tool, images):
    model = tool.load(FILES[2])
    assert model.registered["parameters"]["vocabulary"] == "unknown"
    with pytest.raises(ValueError, match=r"questions can't be answered .* never published; its image features work"):
        model.answer(images, [["How many cubes are there?"]] * 3)


@needs_files
@pytest.mark.parametrize("question_layer", [2, 0])
def test_every_number_of_the_file_arrives_once(tool, question_layer):
    ours = tool.translate(raw(question_layer), question_layer)
    theirs = raw(question_layer)
    assert len(theirs) == 43
    assert sum(value.numel() for value in ours.values()) == sum(value.numel() for value in theirs.values()) == 484_772
    total = sum(value.double().sum() for value in theirs.values())
    torch.testing.assert_close(sum(value.double().sum() for value in ours.values()), total)


@needs_files
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("module.conv.conv2.bias"), r"lacks the tensor 'conv\.conv2\.bias'"),
        (lambda state: state.update({"module.extra": torch.zeros(1)}), "no place for the tensors extra"),
        (
            lambda state: state.update({"module.rl.g_layers.1.weight": torch.zeros(256, 200)}),
            "one layer of g must take",
        ),
        (lambda state: state.update({"module.rl.f_fc2.bias": torch.zeros(3)}), r"size mismatch for net\.f\.1\.bias"),
        (lambda state: state.update({"module.rl.f_fc3.weight": torch.zeros(27, 256)}), "answers must be 28"),
    ],
)
def test_what_does_not_fit_is_named(tool, tmp_path, change, message):
    state = torch.load(FILES[2], map_location="cpu", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    with pytest.raises(BadFile, match=message):
        tool.load(tmp_path / "changed.pth")


class Trap:
    def __reduce__(self):
        return os.abort, ()


def test_nothing_in_a_file_is_executed(tool, tmp_path):
    torch.save({"module.conv": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(BadFile, match="no state dict saved by torch, or is damaged"):
        tool.load(tmp_path / "trap.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BadFile, match="must hold a state dict"):
        tool.load(tmp_path / "list.pth")


@needs_files
def test_the_command_writes_into_the_cache(command, tmp_path):
    said = command("python", str(TOOL), ZOO_CACHE=tmp_path / "cache", ZOO_DATA=DATA).stdout
    path = tmp_path / "cache" / "weights" / "two_stage_rn_clevr_authors.safetensors"
    assert said.startswith(f"{path}: 2S-RN, question joins layer 2, 484,580 parameters")
    assert zoo.load_model(str(path)).net.chunk == 2
    missing = command("python", str(TOOL), "none.pth", code=1)
    assert missing.stderr == "none.pth: no such file\n"
