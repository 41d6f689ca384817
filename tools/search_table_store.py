"""What `search_table.py` embeds and judges: image sets, protocols, expansions, and the results kept on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from study import DATA, say
from torch import Tensor, nn

import zoo
from zoo.evaluation.collect import Collected
from zoo.evaluation.protocol import Shard, short_hash
from zoo.evaluation.searching import Searching
from zoo.files import replacing

OXFORD, CALTECH = "oxford5k_allsouls/images", "caltech101_subset/images"
OTHERS = (OXFORD, "camvid/images", "vpr_bench/corridor", "pennfudan/images")
ONE_SIZE = 512  # px, the longest side of all images in the control
SHORTLIST = 100  # hits that an expansion or re-ranker sees


class World(NamedTuple):
    """A gallery, the images that whitening and centres are fitted on, and whether all get one longest side."""

    gallery: Sequence[str]
    fitted_on: Sequence[str]
    one_size: bool = False


WORLDS = {
    "oxford": World((OXFORD, CALTECH), (CALTECH,)),
    "one size": World((OXFORD, CALTECH), (CALTECH,), one_size=True),
    "caltech": World((CALTECH,), OTHERS),
}
TRUTH = {"ground_truth": str(DATA / "oxford5k_allsouls" / "gnd_oxford5k.json"), "incomplete": "restrict"}
PROTOCOLS = {  # column → world, benchmark and what differs from its YAML
    "leave one out": ("oxford", "oxford_leave_one_out", TRUTH),
    "one size": ("one size", "oxford_leave_one_out", TRUTH),
    "3 queries": ("oxford", "oxford", TRUTH),
    "3 queries, one size": ("one size", "oxford", TRUTH),
    "Caltech-101": ("caltech", "instances", {"k": [1]}),
}
EXPANSIONS = {  # heading → re-rankers and what differs from their YAMLs
    "none": {},
    "AQE": {"aqe": {"k": 10}},
    "αQE": {"alpha_qe": {"k": 10, "alpha": 3.0}},
    "DBA": {"dba": {}},
    "SuperGlobal": {"superglobal": {}},
    "regional QE": {"regional_qe": {}},
}


class OnePass(nn.Module):
    """Runs the backbone once an image, whichever model asks first: the others pool the same feature map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.channels, self.smallest = backbone, backbone.channels, getattr(backbone, "smallest", 1)
        self._images = self._maps = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the feature map, that of the last call where the images are the same."""
        if not torch.equal(self._images, images):
            self._images, self._maps = images, self.backbone(images)
        return self._maps


@cache
def opened(folders: Sequence[str], one_size: bool) -> Any:
    size = {"longest_side": ONE_SIZE, "enlarge": True} if one_size else {}
    data = zoo.create("data", "folder", root=[str(DATA / folder) for folder in folders], batch_size=1, **size)
    data.setup("test")
    return data


@cache
def benchmark(protocol: str) -> Any:
    world, name, changed = PROTOCOLS[protocol]
    built = zoo.create("benchmark", name, sheet_queries=0, kept=0, **changed)
    built.open(opened(WORLDS[world].gallery, WORLDS[world].one_size))
    return built


@dataclass(frozen=True)
class Rows:
    """Descriptors (N, D), or (N, R, D), of named images."""

    names: tuple[str, ...]
    vectors: Tensor

    def at(self, names: Sequence[str]) -> Tensor:
        """Returns those of some images, in their order."""
        place = {name: position for position, name in enumerate(self.names)}
        return self.vectors[[place[name] for name in names]]

    def joined(self, other: Rows) -> Rows:
        """Returns these rows and the others."""
        return Rows(self.names + other.names, torch.cat([self.vectors, other.vectors]))


class Store:
    """Descriptors on disk: a file for each model and set of images, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def images(self, models: Sequence[Any], folders: Sequence[str], one_size: bool) -> list[Rows]:
        """Returns each model's rows of all images of some folders."""
        found: list[list[Rows]] = []
        for folder in folders:
            data = opened((folder,), one_size)
            names = tuple(data.ids("gallery"))
            parts = self._rows(models, data, "gallery", folder, names)
            found.append([Rows(names, part) for part in parts])
        return [reduce(Rows.joined, of_model) for of_model in zip(*found, strict=True)]

    def queries(self, models: Sequence[Any], protocol: str) -> list[Tensor]:
        """Returns each model's rows of a protocol's queries, cut to their boxes."""
        asked = benchmark(protocol)
        data = opened(*_gallery_of(protocol))
        return self._rows(models, data, "query", protocol, asked.query_images, asked.boxes)

    def _rows(self, models: Sequence[Any], data: Any, role: str, what: str, *chosen: Any) -> list[Tensor]:
        about = json.dumps([role, what, data.preprocessing, chosen], sort_keys=True)
        files = [self.folder / f"{short_hash(model.fingerprint() + about)}.safetensors" for model in models]
        todo = [(model, file) for model, file in zip(models, files, strict=True) if not file.is_file()]
        if todo:
            started = time.process_time()
            found = _embedded([model for model, _ in todo], data.selection("gallery", *chosen), role)
            for (_, file), rows in zip(todo, found, strict=True):
                with replacing(file) as path:
                    path.write(save({"rows": rows}))
            say(f"{what}, {role}: {len(todo)} models in {time.process_time() - started:.0f} s")
        return [load_file(file)["rows"] for file in files]


def _embedded(models: Sequence[Any], loader: Any, role: str) -> list[Tensor]:
    rows: list[list[Tensor]] = [[] for _ in models]
    index = []
    for batch in loader:
        index.append(batch.index)
        for kept, model in zip(rows, models, strict=True):
            with torch.no_grad():
                kept.append(model.descriptors(batch, role)[model.descriptor_name].float())
    order = torch.cat(index).argsort()
    return [torch.cat(kept)[order].contiguous() for kept in rows]


def _gallery_of(protocol: str) -> tuple[Sequence[str], bool]:
    world = WORLDS[PROTOCOLS[protocol][0]]
    return world.gallery, world.one_size


# --- what is judged


class Judged:
    """Results on disk, by what was judged: protocol, expansion and the descriptors' bytes."""

    def __init__(self, file: Path, redo: bool) -> None:
        self.file = file
        self.known = json.loads(file.read_text()) if file.is_file() and not redo else {}

    def cell(self, protocol: str, expansion: str, gallery: Tensor, queries: Tensor) -> dict[str, Any]:
        """Returns mean, half_width and per_query of the protocol's mean average precision."""
        digest = hashlib.sha256(gallery.numpy().tobytes() + queries.numpy().tobytes()).hexdigest()[:16]
        key = f"{protocol} | {expansion} {EXPANSIONS[expansion]} {SHORTLIST} | {digest}"
        if key not in self.known:
            self.known[key] = _judge(protocol, expansion, gallery, queries)
            with replacing(self.file) as path:
                path.write(json.dumps(self.known).encode())
        return self.known[key]


def _judge(protocol: str, expansion: str, gallery: Tensor, queries: Tensor) -> dict[str, Any]:
    asked = benchmark(protocol)
    stages = {name: zoo.create("reranker", name, **changed) for name, changed in EXPANSIONS[expansion].items()}
    index = "flat" if gallery.dim() == 2 else "regions"
    asked.search = (
        Searching(partial(zoo.create, "index", index, metric="cosine"), None, stages, SHORTLIST) if stages else None
    )
    kind = "vector" if gallery.dim() == 2 else "regions"
    collected = {
        role: Collected(torch.arange(len(rows)), {"row": rows}, {}, {kind: rows})
        for role, rows in (("gallery", gallery), ("query", queries))
    }
    cell = next(iter(asked.score(collected, None, "row", Shard()).own.cells.values()))
    return {"mean": cell.mean, "half_width": cell.half_width, "per_query": list(cell.per_query)}
