"""`tools/export_onnx.py`: onnxruntime scores hits as PyTorch does, also where there are fewer of them than anchors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.affinities import hit_affinities
from zoo.checkpoints import save_weights

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"dimension": 8, "hits": 5, "projection_hits": 4, "width": 8, "heads": 2}
TWO = ["heading", {"name": "time", "scale": 5e9}]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import export_onnx

    return export_onnx


def made(**changed):
    torch.manual_seed(0)
    parameters = {**SIZES, "projection": 6, "anchors": 4, "layers": 1, "affinities": [], "norm": "none", **changed}
    return zoo.create_model("gnn_rerank", **parameters).eval()


def hits_of(model, count, dimension=8):
    """Returns a query, its hits and what is known of these."""
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(1 + count, dimension, generator=generator)
    known = 360 * torch.rand(2, count, generator=generator)
    return rows[0], rows[1:], {"heading": known[0], "captured_at": 1e10 * known[1]}


@pytest.mark.parametrize("affinities", [[], ["heading"], TWO])
@pytest.mark.parametrize(
    "changed",
    [{"layers": 0}, {"norm": "pre", "centre": True}, {"layers": 3, "norm": "pre"}, {"projection": None, "layers": 2}],
)
@pytest.mark.parametrize("anchors", [1, 4])
def test_what_is_exported_computes_what_the_net_does(tool, affinities, changed, anchors):
    model = made(affinities=affinities, anchors=anchors, **changed)
    network = tool.ExportableNet(model.net).eval()
    for count in (1, 2, anchors, anchors + 1, 9):
        given = tool.inputs(model.net, 8, count)
        assert ("affinities" in given) == bool(affinities and model.net.layers)
        projected = model.net.project(torch.cat([given["query"][None], given["hits"]]))[None]
        expected = model.net(projected, given.get("affinities"))[0]
        torch.testing.assert_close(network(**given), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"affinities": TWO, "norm": "pre", "layers": 2},
        {"affinities": ["heading"], "anchors": 1},
        {"projection": None, "layers": 3, "centre": True},
        {"layers": 0},
    ],
)
def test_the_file_scores_as_the_model_for_any_number_of_hits(tool, tmp_path, capsys, changed):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    model = made(**changed)
    save_weights(model, tmp_path / "model.safetensors")
    tool.main([str(tmp_path / "model.safetensors"), str(tmp_path / "new/model.onnx")])
    assert "largest difference to PyTorch" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "new/model.onnx")
    names = ["query", "hits"] + ["affinities"] * bool(model.affinities and model.net.layers)
    assert [each.name for each in session.get_inputs()] == names
    assert json.loads(session.get_modelmeta().custom_metadata_map["zoo_model"]) == model.registered
    for count, dimension in [(1, 8), (2, 8), (3, 8), (40, 8), *([(6, 20)] if model.net.projection is None else [])]:
        query, hits, known = hits_of(model, count, dimension)
        used = model.affinities and model.net.layers
        affinities = hit_affinities(model.affinities, model.anchors, known, count) if used else None
        given = dict(zip(names, (query, hits, affinities), strict=False))
        (scores,) = session.run(["scores"], {name: value.numpy() for name, value in given.items()})
        order, expected = model.rerank(query, hits, known)
        np.testing.assert_allclose(scores[order], expected, atol=1e-5)


def test_what_scores_otherwise_is_not_written(tool, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    save_weights(made(), tmp_path / "model.safetensors")
    other = made()
    torch.nn.init.normal_(other.net.embedding.weight)
    content = tool.exported(other)
    monkeypatch.setattr(tool, "exported", lambda model: content)
    with pytest.raises(SystemExit, match=r"not written: scores differ by .*, more than 1e-04"):
        tool.main([str(tmp_path / "model.safetensors"), str(tmp_path / "model.onnx")])
    assert not (tmp_path / "model.onnx").exists()


def test_nothing_of_this_machine_is_in_the_file(tool):
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    content = tool.exported(made(layers=0))
    assert not [word for word in (b".py", str(ROOT).encode()) if word in content]


def test_files_of_others_and_missing_packages_are_told(tool, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"nowhere\.safetensors': no such file"):
        tool.main(["nowhere.safetensors", str(tmp_path / "model.onnx")])
    rn = zoo.create_model("two_stage_rn", g=[8], h=[8], f=[8, 8], question_layer=1)
    save_weights(rn, tmp_path / "rn.safetensors")
    with pytest.raises(SystemExit, match=r"must be of gnn_rerank, are of two_stage_rn"):
        tool.main([str(tmp_path / "rn.safetensors"), str(tmp_path / "model.onnx")])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit, match=r"needs onnxscript: install spatial-zoo\[onnx\]"):
        tool.main(["nowhere.safetensors", str(tmp_path / "model.onnx")])
