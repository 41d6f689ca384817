"""Turns a trained `gnn_rerank` into an ONNX file for runtimes without PyTorch.

    python tools/export_onnx.py outputs/…/best.ckpt reranker.onnx

Inputs are `query (D,)` and `hits (K, D)`, nearest first, of any K, and where the model has affinities beside the visual
one, `affinities (1, K, A, L')` of the hits with the first L' of them, in the order in which the model names them
(`zoo.affinities.hit_affinities` makes them of metadata); the output is `scores (K,)`, the higher the nearer. The file
tells name and parameters under `zoo_model`. It is checked in onnxruntime before it is written. Needs the extra `onnx`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from zoo.files import replacing
from zoo.models.gnn_rerank.net import similarities
from zoo.ops.affinity import without_mean
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.models.gnn_rerank.net import GnnRerankNet

TOLERANCE = 1e-4  # of scores, which are cosines
_OPSET = 20  # the first with Gelu
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportableNet(nn.Module):
    """Computes what `GnnRerankNet` does of one query, without shapes that depend on whether K is below L.

    The net pads the affinities that a short list lacks; here the list itself is padded, by descriptors of zeros.
    """

    def __init__(self, net: GnnRerankNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, query: Tensor, hits: Tensor, affinities: Tensor | None = None) -> Tensor:
        """Returns scores (K,) of `query (D,)` and `hits (K, D)`; `affinities (1, K, A, L')`."""
        net = self.net
        nodes = net.project(torch.cat([query[None], hits]))[None]
        if net.layers:
            nodes = net.embedding(self._features(nodes, affinities))
            for layer in net.layers:
                nodes = layer(nodes, None)
            nodes = F.normalize(nodes, dim=-1)
        return similarities(nodes)[0]

    def _features(self, projected: Tensor, affinities: Tensor | None) -> Tensor:
        anchors = self.net.anchors
        unit = F.normalize(without_mean(projected) if self.net.centre else projected, dim=2)
        parts = [unit @ F.pad(unit, (0, 0, 0, anchors))[:, : 1 + anchors].mT]
        if affinities is not None:
            fitted = F.pad(affinities, (0, anchors))[..., :anchors].flatten(2)
            parts.append(F.pad(fitted, (0, 0, 1, 0)))
        return torch.cat(parts, dim=2)


def inputs(net: GnnRerankNet, dimension: int, hits: int, seed: int = 0) -> dict[str, Tensor]:
    """Returns a made-up query with so many hits, as the exported model takes them."""
    generator = torch.Generator().manual_seed(seed)
    made = {
        "query": torch.randn(dimension, generator=generator),
        "hits": torch.randn(hits, dimension, generator=generator),
    }
    if net.layers and net.affinities:
        made["affinities"] = torch.rand(1, hits, net.affinities, min(hits, net.anchors), generator=generator)
    return made


def exported(model: Any) -> bytes:
    """Returns the model as ONNX."""
    hits = torch.export.Dim("K")
    dimension = torch.export.Dim.STATIC if model.net.projection else torch.export.Dim("D")
    shapes = {
        "query": {0: dimension},
        "hits": {0: hits, 1: dimension},
        "affinities": {1: hits, 3: torch.export.Dim("M")},
    }
    given = inputs(model.net, model.dimension, hits=model.anchors + 5)
    if "affinities" in given and model.anchors == 1:  # a dimension of 1 would be taken for a constant
        given["affinities"] = F.pad(given["affinities"], (0, 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*axis name.*")  # that inputs share a dimension is meant
        program = torch.onnx.export(
            ExportableNet(model.net).eval(), kwargs=given, dynamic_shapes={name: shapes[name] for name in given},
            input_names=list(given), output_names=["scores"], opset_version=_OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    proto = program.model_proto
    for node in proto.graph.node:  # lines and folders of this machine
        node.ClearField("metadata_props")
    proto.metadata_props.add(key="zoo_model", value=json.dumps(model.registered))
    return proto.SerializeToString()


def largest_difference(model: Any, content: bytes) -> float:
    """Returns by how much scores of onnxruntime and of PyTorch differ at most, for lists below and above L hits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    anchors, largest = model.anchors, 0.0
    for hits in sorted({1, 2, max(1, anchors - 1), anchors, anchors + 1, 2 * anchors + 3, model.hits}):
        given = inputs(model.net, model.dimension, hits, seed=hits)
        (scores,) = session.run(None, {name: value.numpy() for name, value in given.items()})
        with torch.no_grad():
            projected = model.net.project(torch.cat([given["query"][None], given["hits"]]))[None]
            expected = model.net(projected, given.get("affinities"))[0].numpy()
        difference = float(np.abs(scores - expected).max()) if scores.shape == expected.shape else np.inf
        print(f"{hits:5d} hits: largest difference {difference:.1e}")
        largest = max(largest, difference)
    return largest


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Exports a trained gnn_rerank to ONNX and checks it.")
    parser.add_argument("weights", type=Path, help="a .safetensors or .ckpt file of zoo train model=gnn_rerank")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    arguments = parser.parse_args(words)
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit(f"export_onnx: needs {', '.join(absent)}: install spatial-zoo[onnx]")
    try:
        model = zoo.load_model(str(arguments.weights))
        if model.registered["name"] != "gnn_rerank":
            raise UsageError(f"weights '{arguments.weights}' must be of gnn_rerank, are of {model.registered['name']}")
    except UsageError as error:
        sys.exit(f"export_onnx: {error}")
    content = exported(model)
    difference = largest_difference(model, content)
    if not difference <= TOLERANCE:
        sys.exit(f"export_onnx: not written: scores differ by {difference:.1e}, more than {TOLERANCE:.0e}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.output) as file:
        file.write(content)
    print(f"{arguments.output}: {len(content) / 2**20:.1f} MiB, largest difference to PyTorch {difference:.1e}")


if __name__ == "__main__":
    main()
