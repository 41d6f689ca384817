"""Pooling × whitening × expansion on the shared photos: the table in the cards of the descriptors.

    python tools/search_table.py [--output table.md] [--cache outputs/search_table] [--only GeM,R-MAC] [--redo]

Half an hour of one core at first. Embeddings and results are kept in the cache folder: a run that was stopped goes on,
and a table is redone within a minute. `--redo` forgets the results of evaluations, not the embeddings. One process, one
thread; seeds are those of the YAMLs. The photos and weights are those of shared/data (or ZOO_DATA), which the project
does not hold.

Oxford's protocols share a gallery of 100 Oxford images and 808 photos of Caltech-101 as distractors. Whitening for them
is fitted on the Caltech photos, for Caltech-101 on Oxford's and other sets' images.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from search_table_store import (
    EXPANSIONS,
    ONE_SIZE,
    PROTOCOLS,
    SHORTLIST,
    WORLDS,
    Judged,
    OnePass,
    Rows,
    Store,
    benchmark,
    opened,
)
from study import DATA, say, write_tables
from torch import Tensor

import zoo
from zoo.checkpoints import save_weights
from zoo.config import defaults
from zoo.evaluation.permutation import paired_permutation_test
from zoo.evaluation.protocol import short_hash
from zoo.evaluation.tables import Table, mean_and_interval
from zoo.ops.whitening import Whitening

DIMENSION = 512  # after whitening
COLUMNS = [
    *(("leave one out", expansion) for expansion in EXPANSIONS),
    *(("one size", expansion) for expansion in ("none", "AQE", "regional QE")),
    ("3 queries", "none"),
    ("3 queries, one size", "none"),
    *(("Caltech-101", expansion) for expansion in ("none", "αQE")),
]
MANY = 10  # queries; fewer get no interval
NOTES = (
    "Gallery of the first columns: 100 Oxford images and 808 photos of Caltech-101. Leave one out: every good or ok "
    "image present asks for the others of its landmark, trapezoidal AP, junk taken out. 43 of the 45 are All Souls, so "
    "the interval is over queries that share their positives; the other two have a single positive, which an expansion "
    "by ten hits loses: that alone costs it .04.",
    f"One size: all images resized to a longest side of {ONE_SIZE} px, since Oxford's are the larger ones otherwise.",
    "3 queries: the published ones whose image is present, cut to their boxes; too few for an interval.",
    "Caltech-101: each of its 808 photos asks for the seven others of its category.",
    "Whitening, centres and projections are fitted on the Caltech photos for Oxford (they are its distractors; no "
    "label of Oxford is used), and on Oxford's, CamVid's, VPR-Bench's and Penn-Fudan's images for Caltech-101.",
    "Learned whitening takes Caltech's categories as labels; for Caltech-101, Oxford's landmarks and the places of "
    "VPR-Bench's corridor.",
    "NetVLAD: 16 clusters; its 20,480 dimensions are too many for the matrices of learned whitening. Neural codes: the "
    "last layer of SqueezeNet 1.1; the other rows are MobileNetV2's.",
    f"Expansions see the first {SHORTLIST} hits. AQE averages 10, αQE 10 with α = 3; the others are as in their YAMLs.",
)
ON_ITSELF = "pca_whiten, on the gallery itself"
WHITENINGS = ("none", "pca", "pca_whiten", "learned")


@dataclass(frozen=True)
class Method:
    """A row's model: registered name, parameters, and whether it is fitted itself rather than whitened here."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    fitted: bool = False
    whitenings: Sequence[str] = WHITENINGS
    worlds: Sequence[str] = tuple(WORLDS)

    def build(self) -> Any:
        """Returns the model, not yet fitted."""
        return zoo.create_model(self.name, **self.parameters).eval()


def pooling(name: str, **more: Any) -> Method:
    """Returns a global descriptor that is whitened here."""
    return Method("global_descriptor", {"pooling": name, **more})


def regional(order: int, regions: str, worlds: Sequence[str]) -> Method:
    """Returns a variant of regional aggregation after Fig. 1 of its paper, with its own projections."""
    return Method("regional_aggregation", {"order": order, "regions": regions}, True, ("own",), worlds)


SQUEEZENET = {
    "backbone": "torchvision/squeezenet1_1",
    "backbone_weights": str(DATA / "weights" / "squeezenet1_1.safetensors"),
    "layer": "classifier",
}
METHODS = {
    "MAC": pooling("mac"),
    "SPoC (uCroW)": pooling("spoc"),
    "SPoC + centre prior": pooling("spoc", centre_prior=True),
    "GeM": Method("global_descriptor", {"pooling": "gem"}, whitenings=(*WHITENINGS, ON_ITSELF)),
    "R-MAC": pooling("rmac"),
    "CroW": pooling("crow"),
    "NetVLAD": Method("global_descriptor", {"pooling": "netvlad", "clusters": 16}, True, ("none", "pca", "pca_whiten")),
    "neural codes": pooling("neural_codes", **SQUEEZENET),
    "O1_W": regional(1, "whole", ("oxford",)),
    "O1_R": regional(1, "all", ("oxford",)),
    "O2_W": regional(2, "whole", ("oxford", "one size")),
    "O2_R": regional(2, "all", ("oxford", "one size")),
}

# --- rows


class Descriptors(NamedTuple):
    """What a row of the table is judged by: gallery and, for each protocol of the world, queries."""

    gallery: Tensor
    queries: dict[str, Tensor]


def described(store: Store, models: Sequence[Any], world: str) -> tuple[list[Rows], list[Descriptors]]:
    """Returns for each model the rows of the images to fit whitening on, and what is judged, before whitening."""
    folders, fitted_on, one_size = WORLDS[world]
    fitted, gallery = store.images(models, fitted_on, one_size), store.images(models, folders, one_size)
    names = opened(folders, one_size).ids("gallery")
    ordered = [rows.at(names) for rows in gallery]
    queries: list[dict[str, Tensor]] = [{} for _ in models]
    for protocol in (protocol for protocol, (home, *_) in PROTOCOLS.items() if home == world):
        images = benchmark(protocol).query_images
        cut = any(benchmark(protocol).boxes)
        own = store.queries(models, protocol) if cut else [rows.at(images) for rows in gallery]
        for of_model, rows in zip(queries, own, strict=True):
            of_model[protocol] = rows
    return fitted, [Descriptors(*pair) for pair in zip(ordered, queries, strict=True)]


def whitened(kind: str, fitted: Rows, labels: Sequence[str], found: Descriptors) -> Descriptors:
    """Returns descriptors as the model gives them with `whitening=kind` fitted on other images: L2, whitening, L2."""
    if kind == "none":
        return found
    start = F.normalize(found.gallery if kind == ON_ITSELF else fitted.vectors, dim=-1)
    whitening = Whitening(start.shape[1], DIMENSION)
    if kind == "learned":
        shrinkage = defaults("model", "global_descriptor")["shrinkage"]
        whitening.fit_learned(start, labels, shrinkage=shrinkage)
    else:
        whitening.fit_pca(start, whiten=kind != "pca")

    def apply(rows: Tensor) -> Tensor:
        return F.normalize(whitening(F.normalize(rows, dim=-1)), dim=-1)

    return Descriptors(apply(found.gallery), {name: apply(rows) for name, rows in found.queries.items()})


def labels_of(names: Sequence[str]) -> list[str]:
    """Returns what each image shows: category, landmark, place of the corridor; its own name where nobody says."""
    landmarks = set(benchmark("leave one out").query_ids)
    labels = []
    for name in names:
        folder, _, rest = name.rpartition("/")
        corridor = folder in ("query", "ref")
        shared = "landmark" if name in landmarks else rest if corridor else folder
        labels.append(name if shared in ("", "train", "val") else shared)
    return labels


def fitted_model(method: Method, world: str, store: Store) -> Any:
    """Returns a method's model with its centres or projections fitted on the world's other images, or as it was."""
    _, folders, one_size = WORLDS[world]
    about = json.dumps([method.name, method.parameters, defaults("model", method.name), folders, one_size])
    file = store.folder / f"model-{short_hash(about)}.safetensors"
    if file.is_file():
        return zoo.load_model(str(file)).eval()
    started = time.process_time()
    model, data = method.build(), opened(folders, one_size)
    names = data.ids("gallery")
    model.fit_statistics(data.selection("gallery", names), labels_of(names))
    save_weights(model, file)
    say(f"{method.name} {method.parameters} fitted for {world} in {time.process_time() - started:.0f} s")
    return model


def lines(label: str, worlds: dict[str, tuple[Rows, Descriptors]], judged: Judged) -> list[list[str]]:
    """Returns a method's lines of the table, one for each whitening."""
    table = []
    for kind in METHODS[label].whitenings:
        ready = {
            world: found if kind == "own" else whitened(kind, fitted, labels_of(fitted.names), found)
            for world, (fitted, found) in worlds.items()
        }
        line = [label, kind, str(next(iter(ready.values())).gallery.shape[-1])]
        for protocol, expansion in COLUMNS:
            found = ready.get(PROTOCOLS[protocol][0])
            line.append("–" if found is None else _text(protocol, expansion, found, judged))
        table.append(line)
        say(" | ".join(line))
    return table


def _text(protocol: str, expansion: str, found: Descriptors, judged: Judged) -> str:
    regional = found.gallery.dim() == 3
    if expansion != "none" and regional != (expansion == "regional QE"):
        return "–"
    cell = judged.cell(protocol, expansion, found.gallery, found.queries[protocol])
    few = len(cell["per_query"]) < MANY
    return mean_and_interval(cell["mean"], math.nan if few else cell["half_width"])


def table_of(chosen: Sequence[str], store: Store, judged: Judged) -> Table:
    """Embeds, judges and returns the table."""
    found: dict[str, dict[str, tuple[Rows, Descriptors]]] = {label: {} for label in chosen}
    for world in WORLDS:
        plain = [label for label in chosen if not METHODS[label].fitted]
        models = one_backbone([METHODS[label].build() for label in plain])
        for label, *pair in zip(plain, *described(store, models, world), strict=True) if plain else ():
            found[label][world] = tuple(pair)
        for label in chosen:
            if METHODS[label].fitted and world in METHODS[label].worlds:
                model = fitted_model(METHODS[label], world, store)
                (fitted,), (judged_by,) = described(store, [model], world)
                found[label][world] = fitted, judged_by
    rows = [line for label in chosen for line in lines(label, found[label], judged)]
    headers = ["descriptor", "whitening", "D", *(f"{p}: {e}" if e != "none" else p for p, e in COLUMNS)]
    notes = [*NOTES, *_regions_against_whole(found, judged)]
    return Table("Mean average precision ± 95 % interval over queries", headers, rows, names=2, notes=notes)


def _regions_against_whole(found: dict[str, dict[str, tuple[Rows, Descriptors]]], judged: Judged) -> list[str]:
    """Returns a sentence for each protocol on which regional aggregation can be compared with its global variant."""
    sentences = []
    for protocol in ("leave one out", "one size"):
        world = PROTOCOLS[protocol][0]
        if not all(world in found.get(label, ()) for label in ("O2_R", "O2_W")):
            continue
        judged_by = [found[label][world][1] for label in ("O2_R", "O2_W")]
        cells = [judged.cell(protocol, "none", each.gallery, each.queries[protocol]) for each in judged_by]
        gains = np.subtract(*(cell["per_query"] for cell in cells))
        p = paired_permutation_test(gains[:, None])[0]
        better = f"better in {(gains > 0).sum()} of {len(gains)} queries"
        sentences.append(f"O2_R against O2_W, {protocol}: {gains.mean():+.3f}, p = {p:.4f} (paired), {better}.")
    return sentences


def one_backbone(models: Sequence[Any]) -> Sequence[Any]:
    """Lets models of one network share it."""
    shared: dict[str, OnePass] = {}
    for model in models:
        parameters = model.registered["parameters"]
        key = json.dumps([parameters["backbone"], parameters["backbone_weights"], parameters.get("layer")])
        model.net.backbone = shared.setdefault(key, OnePass(model.net.backbone))
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="Markdown file; standard output if left out")
    parser.add_argument("--cache", type=Path, default=Path("outputs/search_table"))
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(METHODS), help="descriptors")
    parser.add_argument("--redo", action="store_true", help="forget the results, keep the embeddings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(options.cache)
    table = table_of(options.only, store, Judged(options.cache / "results.json", options.redo))
    write_tables([table], options.output)


if __name__ == "__main__":
    main()
