"""The tables of local similarity's card: what it is compared with, losses, codes, fine-tuning.

    python tools/local_similarity_table.py --output tables.md
    python tools/local_similarity_table.py --worlds synthetic --steps 200        a first look

The model and the training pairs are those of experiment=local_similarity. Maps of the pairs are made once, so that a
head takes minutes to train. Whatever is done is kept in --cache, and the command goes on there. Two worlds are judged
by benchmark=shuffled: held-out cut-and-paste views, each object's crop asking for its other views; and the Oxford
images of shared data, each asking for the others of its landmark among Caltech-101's photos. Both have three shuffled
copies of every relevant image.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from local_similarity_store import RECIPE, Store, train
from study import say, write_tables
from torch import Tensor

import zoo
from zoo.checkpoints import weights_hash
from zoo.evaluation.judge import Lists
from zoo.evaluation.permutation import paired_permutation_test
from zoo.evaluation.tables import Table, mean_and_interval
from zoo.files import replacing
from zoo.models.local_similarity.losses import similarity
from zoo.models.local_similarity.scoring import PairScorer
from zoo.ops.correlation import best_in_volume
from zoo.search.local_maps import correlations, encoded
from zoo.types import Representation

WORLDS = ("synthetic", "oxford")
COLUMNS = ("clean", "shuffled", "gap")  # settings of the benchmark
SEED = 0
WEIGHT = 0.9  # of the local similarity in the fused one (paper)
PARTS = (32, 64, 128)


class Head(NamedTuple):
    """A head of the tables: what differs from the recipe's model, the head that it starts with, the codes' parts.

    `steps` is the option that says how many.
    """

    changed: dict[str, Any]
    start: str | None = None
    parts: int | None = None
    steps: str = "short_steps"


HEADS = {
    "local": Head({}, steps="steps"),
    "cls+loc": Head({}),
    "cls": Head({"loss": "cls"}),
    "triplet": Head({"loss": "triplet"}),
    "paper's head": Head({"match_score": False}),
    **{f"tuned on M = {parts}": Head({"learning_rate": 1e-3}, "local", parts, "tuning_steps") for parts in PARTS},
}
ROWS = {  # codes' parts, None for the maps as they are → heads that are judged on them
    None: ("local", "cls+loc", "cls", "triplet", "paper's head"),
    **{parts: ("local", f"tuned on M = {parts}") for parts in PARTS},
}


class Study:
    """Trains heads and judges them, keeping both."""

    def __init__(self, store: Store, options: argparse.Namespace) -> None:
        self.store, self.options = store, options
        self.pairs = store.pairs(options.pairs)

    def model(self, name: str) -> Any:
        """Returns the model with the head of a name."""
        head = HEADS[name]
        about = json.dumps([self._chain(name), self.options.pairs, self.store.model.registered["parameters"]])
        return self.store.head(name.replace(" ", "_"), lambda: self._trained(name, head), about)

    def _chain(self, name: str) -> list[Any]:
        """Returns all that a head has been through."""
        head = HEADS[name]
        before = [] if head.start is None else self._chain(head.start)
        return [*before, [head.changed, head.parts, vars(self.options)[head.steps]]]

    def _trained(self, name: str, head: Head) -> Any:
        say(f"training {name}")
        torch.manual_seed(SEED)
        model = zoo.create_model(RECIPE, **{**self.store.model.registered["parameters"], **head.changed})
        if head.start is not None:
            model.net.head.load_state_dict(self.model(head.start).net.head.state_dict())
        if head.parts is not None:
            model.quantizer = self.store.quantizer(head.parts, self.pairs)
        return train(model, self.pairs, vars(self.options)[head.steps], SEED)

    def cells(self, world: str) -> dict[str, dict[str, Any]]:
        """Returns row → cells of a world, as results.json keeps them."""
        file = self.store.folder / f"results-{world}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        cells: dict[str, dict[str, Any]] = {}
        for parts in self.options.parts:
            names = ROWS[parts]
            heads = {name: self.model(name) for name in names if name in self.options.heads}
            key = json.dumps(
                [world, parts, self._step(world), {name: weights_hash(each.net.head) for name, each in heads.items()}]
            )
            if key not in known:
                known[key] = self._judged(world, heads, parts)
                with replacing(file) as path:
                    path.write(json.dumps(known).encode())
            cells |= known[key]
        return cells

    def _step(self, world: str) -> int:
        return self.options.every if world == "synthetic" else 1  # Oxford has few queries

    def _judged(self, world: str, heads: dict[str, Any], parts: int | None) -> dict[str, Any]:
        maps, benchmark = self.store.maps(world)
        gallery, started = maps.gallery, time.process_time()
        if parts is not None:
            quantizer = self.store.quantizer(parts, self.pairs)
            codes = torch.cat([encoded(part.float(), quantizer) for part in gallery.local_map.split(64)])
            gallery = replace(gallery, local_map=None, local_codes=codes, quantizer=quantizer)
        rows = torch.arange(0, len(maps.queries), self._step(world))
        scores = compared(maps.queries.rows(rows), gallery, heads)
        suffix = "" if parts is None else f", M = {parts}"
        say(f"judged{suffix} in {time.process_time() - started:.0f} s of processor time")
        return {
            f"{name}{suffix}": {
                label.split("/")[0]: {
                    "mean": cell.mean,
                    "half_width": cell.half_width,
                    "per_query": list(cell.per_query),
                }
                for label, cell in benchmark.cells([Lists(rows, values)], torch.device("cpu")).items()
            }
            for name, values in scores.items()
            if parts is None or name != "R-MAC"  # which has no codes
        }


@torch.no_grad()
def compared(queries: Representation, gallery: Representation, heads: dict[str, Any]) -> dict[str, Tensor]:
    """Returns row → scores (Q, N): R-MAC, R-Match, and each head's, alone and fused with R-MAC."""
    vectors = (queries.vector @ gallery.vector.T).double()
    rows: dict[str, list[Tensor]] = {name: [] for name in ("R-Match", *heads)}
    scorers = {name: PairScorer(model.net.head) for name, model in heads.items()}
    for number, query in enumerate(queries.local_map.float()):
        parts: dict[str, list[Tensor]] = {name: [] for name in rows}
        for _, volumes in correlations(query, gallery):
            parts["R-Match"].append(best_in_volume(volumes).mean(1).double())
            for name, scorer in scorers.items():
                parts[name].append(similarity(scorer(volumes).logits.double()))
        for name, part in parts.items():
            rows[name].append(torch.cat(part))
        if number % 20 == 0:
            say(f"  query {number} of {len(queries)}")
    scores = {"R-MAC": vectors, **{name: torch.stack(each) for name, each in rows.items()}}
    fused = {f"{name} + R-MAC": (1 - WEIGHT) * vectors + WEIGHT * scores[name] for name in heads}
    return scores | fused


def table_of(cells: dict[str, dict[str, dict[str, Any]]], names: Sequence[str]) -> Table:
    """Returns a table of rows, three columns for each world."""
    headers = ["similarity", *(f"{world}: {label}" for world in cells for label in COLUMNS)]
    lines = [
        [name, *(mean_and_interval(each["mean"], each["half_width"]) for each in _values(cells, name))]
        for name in names
    ]
    title = "Mean average precision ± 95 % interval over queries; gap: what shuffled copies cost"
    return Table(title, headers, lines, names=1, notes=list(_comparisons(cells)))


def _values(cells: dict[str, dict[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [of_world[name][label] for of_world in cells.values() for label in COLUMNS]


def _comparisons(cells: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    """Yields a sentence for each world, baseline and setting: what local similarity gains, query by query."""
    for world, rows in cells.items():
        pairs = itertools.product(("local", "local + R-MAC"), ("R-MAC", "R-Match"))
        for own, other in (pair for pair in pairs if rows.keys() >= set(pair)):  # --parts or --heads may leave some out
            for label in COLUMNS[:2]:
                gains = np.subtract(*(np.array(rows[name][label]["per_query"]) for name in (own, other)))
                p = paired_permutation_test(gains[:, None])[0]
                yield f"{world}, {label}: {own} against {other} {np.nanmean(gains):+.3f}, p = {p:.4f} (paired)."


def main() -> None:
    """Runs the command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--output", type=Path, help="Markdown file; standard output if left out")
    parser.add_argument("--cache", type=Path, default=Path("outputs/local_similarity_table"))
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument(
        "--every", type=int, default=3, help="judge every which of the 250 synthetic queries (%(default)s)"
    )
    every = [str(parts or "full") for parts in ROWS]
    parser.add_argument(
        "--parts", nargs="+", choices=every, default=every, help="M of the codes; full: the maps themselves"
    )
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--train-only", action="store_true", help="train the heads, judge nothing")
    parser.add_argument("--pairs", type=int, default=4800, help="training pairs (%(default)s)")
    parser.add_argument("--steps", type=int, default=4000, help="of 8 pairs (%(default)s)")
    parser.add_argument("--short-steps", type=int, default=1200, help="of the heads that are compared (%(default)s)")
    parser.add_argument("--tuning-steps", type=int, default=500, help="of fine-tuning on codes (%(default)s)")
    options = parser.parse_args()
    options.parts = [None if each == "full" else int(each) for each in options.parts]
    torch.set_num_threads(1)
    study = Study(Store(options.cache), options)
    if options.train_only:
        for name in options.heads:
            study.model(name)
        return
    cells = {world: study.cells(world) for world in options.worlds}
    table = table_of(cells, list(next(iter(cells.values()))))
    write_tables([table], options.output)


if __name__ == "__main__":
    main()
