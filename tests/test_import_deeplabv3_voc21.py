"""TensorFlow's DeepLab-v3 for VOC as a model of the zoo."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import zoo
from zoo.files import BadFile

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data"))
FILE = DATA / "weights" / "deeplabv3_mobilenetv2_voc21.fp16.safetensors"
TOOL = ROOT / "tools" / "import_deeplabv3_voc21.py"

pytestmark = pytest.mark.skipif(
    not (FILE.is_file() and (DATA / "voc2011_3").is_dir()), reason=f"needs weights and voc2011_3 in {DATA} (ZOO_DATA)"
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("import_deeplabv3_voc21", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_tells_the_classes_of_three_voc_images_apart(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tool", str(FILE), "--output", str(tmp_path / "weights" / "a.safetensors")])
    tool.main()
    assert "zoo embed FOLDER model=fcn_segment weights=" in capsys.readouterr().out
    model = zoo.load_model(str(tmp_path / "weights" / "a.safetensors"))
    folder = {"root": str(DATA / "voc2011_3"), "lists": None, "train_split": None}
    data = zoo.create("data", "voc", **folder, image_size=513, batch_size=1)
    data.setup()
    right = []
    for batch in data.val_dataloader():
        maps = model.embed(batch).probability_map
        assert maps.shape == (1, 21, 65, 65)
        found = F.interpolate(maps, batch.label_map.shape[1:], mode="bilinear").argmax(1)
        right.append((found == batch.label_map)[batch.label_map >= 0].float().mean().item())
    assert min(right) > 0.85
    assert sum(right) / 3 > 0.92


def test_other_files_are_refused(tool, tmp_path):
    state = load_file(FILE)
    (tmp_path / "no.safetensors").write_bytes(b"no weights")
    save_file({**state, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    del state["logits.bias"]
    save_file(state, tmp_path / "less.safetensors")
    for name, message in {"no": "can't be read", "more": 'Unexpected key.*"more"', "less": "lacks the tensor"}.items():
        with pytest.raises(BadFile, match=rf"(?s){name}\.safetensors.*{message}"):
            tool.load(tmp_path / f"{name}.safetensors")
