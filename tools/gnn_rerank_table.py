"""The tables of gnn_rerank's card: Tables 4.1, 4.3, 4.4 and Figs. 4.2, 4.3 of Hanning 2024 on simulated cities.

    python tools/gnn_rerank_table.py --output tables.md
    python tools/gnn_rerank_table.py --parts main --seeds 0 --epochs 2 2        a first look
    python tools/gnn_rerank_table.py --parts corridor                           real images: vpr_bench's corridor

Model and data are those of experiment=gnn_rerank_simulated; a seed is that of world, cities and weights. All
figures but the corridor's are of simulated descriptors. Whatever is done is kept in --cache, and the command goes on
there. Intervals are 95 % over queries, those of seeds put together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from gnn_rerank_corridor import corridor
from gnn_rerank_study import METRICS, Study, best_of, expanded, none, refined
from scipy import stats
from study import say, write_tables

from zoo.evaluation.permutation import paired_permutation_test
from zoo.evaluation.tables import Table, mean_and_interval

PARTS = ("main", "losses", "projection", "input", "affinities", "curves", "corridor")
HITS, ANCHORS, LAYERS = (31, 127, 255, 383), (7, 31, 63, 127), (1, 2, 3)
SHORT = {"heading": ["heading"], "heading and field of view": ["heading", "field_of_view"]}

Rows = dict[str, np.ndarray]  # name → (queries, metrics)


def main_rows(study: Study) -> Rows:
    """Table 4.1: nothing, query expansion, SuperGlobal and CSA against the projection and the networks."""
    rows = {"none": study.judge("none", None, none)}
    aqe = best_of(study, "AQE", [(k, 0.0) for k in range(1, 6)], expanded)
    alpha = best_of(study, "αQE", [(k, a) for k in range(1, 6) for a in (1.0, 1.5, 2.0, 2.5, 3.0)], expanded)
    grid = [(hits, p, beta) for hits in (200, 400, 800) for p in (1, 2, 3, 4) for beta in (0.15, 0.3, 0.6)]
    superglobal = best_of(study, "SuperGlobal", grid, refined)
    for name, (chosen, values) in (("AQE", aqe), ("αQE", alpha), ("SuperGlobal", superglobal)):
        say(f"seed {study.seed}: {name} at its best with {chosen}")
        rows[name] = values
    networks = {
        "FC": study.network_row(layers=0, affinities=[]),
        "GNN": study.network_row(affinities=[]),
        "GNN + PA": study.network_row(),
    }
    csa = {"projection": None, "layers": 2, "norm": "pre", "loss": "contrastive_mse", "phase2_input": "raw"}
    rows["CSA (Ouyang et al. 2021)"] = study.network_row(affinities=[], **csa)
    return rows | networks


def loss_rows(study: Study) -> Rows:
    """Table 4.3."""
    rows = {"AP": study.network_row()}
    for convention in ("paper", "authors"):
        rows[f"contrastive + MSE, {convention}"] = study.network_row(loss="contrastive_mse", convention=convention)
    return rows


def projection_rows(study: Study) -> Rows:
    """Table 4.4."""
    return {
        "FC, locked": study.network_row(),
        "FC, not locked": study.network_row(lock=False, phase2_input="raw"),
        "no FC": study.network_row(projection=None, phase2_input="raw"),
        "no FC, lists centred": study.network_row(projection=None, phase2_input="raw", centre=True),
    }


def input_rows(study: Study) -> Rows:
    """What it costs to project once, which leaves no dropout on the descriptors in the second phase."""
    return {"projected": study.network_row(), "raw": study.network_row(phase2_input="raw")}


def affinity_rows(study: Study) -> Rows:
    """Other affinities beside the visual one."""
    every = {"none": [], "field of view": ["field_of_view"], **SHORT}
    return {name: study.network_row(affinities=entries) for name, entries in every.items()}


def curve_rows(study: Study) -> Rows:
    """Figs. 4.2 and 4.3: K, L and the number of layers."""
    rows = {f"K = {hits}": study.network_row(hits=hits) for hits in HITS}
    rows |= {f"L = {anchors}": study.network_row(anchors=anchors) for anchors in ANCHORS}
    return rows | {f"layers = {layers}": study.network_row(layers=layers) for layers in LAYERS}


SECTIONS = {
    "main": (main_rows, "Table 4.1: re-ranking methods"),
    "losses": (loss_rows, "Table 4.3: losses, GNN + PA"),
    "projection": (projection_rows, "Table 4.4: the first layer, GNN + PA"),
    "input": (input_rows, "Input of the second phase, GNN + PA"),
    "affinities": (affinity_rows, "Affinities beside the visual one"),
    "curves": (curve_rows, "Figs. 4.2 and 4.3: K, L and layers, GNN + PA"),
}


def table_of(title: str, rows: Rows, seeds: Sequence[int]) -> Table:
    """Returns means and intervals over the queries of all seeds, and paired tests of neighbouring rows' mAP@10."""
    lines = []
    for name, values in rows.items():
        known = [column[~np.isnan(column)] for column in values.T]
        half = [stats.t.ppf(0.975, len(each) - 1) * stats.sem(each) for each in known]
        lines.append([name, *(mean_and_interval(each.mean(), width) for each, width in zip(known, half, strict=True))])
    notes = [f"Simulated cities, seeds {', '.join(map(str, seeds))}.", *_comparisons(rows)]
    return Table(title, ["", *METRICS], lines, names=1, notes=notes)


def _comparisons(rows: Rows) -> Iterator[str]:
    names = list(rows)
    for own, other in zip(names[1:], names, strict=False):
        gain = rows[own][:, 2] - rows[other][:, 2]
        yield f"mAP@10: {own} against {other} {gain.mean():+.3f}, p = {paired_permutation_test(gain[:, None])[0]:.4f}."


def draw(rows: Rows, file: Path) -> None:
    """Draws the curves."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), sharey=True)
    for axis, key, label in zip(axes, ("K", "L", "layers"), ("hits K", "anchors L", "layers"), strict=True):
        own = {int(name.split(" = ")[1]): values for name, values in rows.items() if name.startswith(f"{key} = ")}
        for column, metric in enumerate(METRICS[:4]):
            axis.plot(list(own), [values[:, column].mean() for values in own.values()], marker="o", label=metric)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean over queries (simulated)")
    axes[2].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Runs the command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--output", type=Path, help="Markdown file, with the curves beside it; else standard output")
    parser.add_argument("--cache", type=Path, default=Path("outputs/gnn_rerank_table"), help="(%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", nargs=2, type=int, default=[6, 6], help="of the two phases (6 6)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    studies = [Study(options.cache, seed, {}, tuple(options.epochs)) for seed in options.seeds]
    tables, curves = [], None
    for part in (part for part in PARTS if part in options.parts and part != "corridor"):
        make, title = SECTIONS[part]
        every = [make(study) for study in studies]
        rows = {name: np.concatenate([each[name] for each in every]) for name in every[0]}
        tables.append(table_of(title, rows, options.seeds))
        curves = rows if part == "curves" else curves
    if "corridor" in options.parts:
        tables.append(corridor(studies))
    write_tables(tables, options.output)
    if curves is not None and options.output is not None:
        draw(curves, options.output.with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(main())
