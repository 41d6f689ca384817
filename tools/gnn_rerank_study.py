"""What `gnn_rerank_table.py` compares: trained networks and baselines on simulated cities, judged query by query."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from study import say
from torch import Tensor

import zoo
from zoo import config
from zoo.checkpoints import load_model, save_weights, weights_hash
from zoo.files import replacing
from zoo.metrics.functional import average_precision, recall_at_k
from zoo.search.expansion import expand_query
from zoo.search.refinement import superglobal

RECIPE = "gnn_rerank_simulated"
METRICS = (*(f"mAP@{k}" for k in (1, 5, 10, 20)), *(f"R@{k}" for k in (5, 10, 20)))


def recipe() -> dict[str, Any]:
    """Returns the composed config of the recipe as plain values."""
    return OmegaConf.to_container(config.compose("train", [f"experiment={RECIPE}"]), resolve=False)


class Study:
    """Trains and judges, keeping both in a folder; `seed` is that of the world, its cities and the weights."""

    def __init__(self, folder: Path, seed: int, changed: dict[str, Any], epochs: tuple[int, int]) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore")
        node = recipe()
        self.folder, self.seed, self.epochs = folder, seed, epochs
        self.parameters = {
            key: value for key, value in node["model"].items() if key in config.defaults("model", "gnn_rerank")
        }
        own = {"dimension", "train_count", "val_count", "database", "queries", "recipe"}
        given = {**{key: node["data"][key] for key in own}, **changed, "seed": seed}
        self.data = zoo.create("data", "simulated_city", **given)
        self.data_about = [
            given,
            OmegaConf.to_container(OmegaConf.create(self.data.registered["parameters"]))["recipe"],
        ]
        self.data.prepare_data()
        self.cities = [self.data.city(name) for name in self.data.cities["val"]]
        self.truth = [positives(city, 25.0) for city in self.cities]

    # --- networks

    def trained(self, **changed: Any) -> Any:
        """Returns the network with the recipe's parameters, but for what is `changed`, at its best epoch."""
        parameters = {**self.parameters, **changed}
        if not parameters["layers"]:
            return self.projection(parameters)
        first = self.projection(parameters) if parameters["projection"] else None
        about = ["network", parameters, self.epochs, self.data_about, None if first is None else "after projection"]
        return self._kept(about, lambda: self._fit(parameters, self.epochs[1], first))

    def projection(self, parameters: dict[str, Any]) -> Any:
        """Returns the network that is its projection alone, after the first phase."""
        names = (
            "dimension",
            "projection",
            "projection_hits",
            "dropout",
            "loss",
            "bins",
            "temperature",
            "learning_rate",
            "decay",
        )
        own = {**self.parameters, **{name: parameters[name] for name in names}, "layers": 0, "affinities": []}
        own |= {"projection_epochs": self.epochs[0], "hits": own["projection_hits"], "phase2_input": "raw"}
        return self._kept(
            ["projection", own, self.epochs, self.data_about], lambda: self._fit(own, self.epochs[0], None)
        )

    def _kept(self, about: Any, make: Callable[[], Any]) -> Any:
        digest = hashlib.sha256(json.dumps([about, self.seed], sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / f"network-{digest}.safetensors"
        if not file.is_file():
            save_weights(make(), file)
        return load_model(str(file))

    def _fit(self, parameters: dict[str, Any], epochs: int, first: Any) -> Any:
        lightning.seed_everything(self.seed, verbose=False)
        # The first phase is done once for all networks that share it.
        own = parameters if parameters["layers"] == 0 else {**parameters, "projection_epochs": 0}
        model = zoo.create_model("gnn_rerank", **own)
        if first is not None:
            model.net.projection.load_state_dict(first.net.projection.state_dict())
        model.check_data(self.data)
        best, started = Best(), time.process_time()
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, callbacks=[best],
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(model, datamodule=self.data)
        model.load_state_dict(best.state)
        shown = {key: value for key, value in own.items() if value != self.parameters.get(key)}
        taken = f"{time.process_time() - started:.0f} s of CPU"
        say(f"seed {self.seed}: {shown or 'as the recipe'}: {best.history}, {taken}")
        return model

    # --- rows

    def judge(self, name: str, about: Any, rank: Callable[[Any], Tensor]) -> np.ndarray:
        """Returns (queries, metrics): what `rank` makes of every city, a list (Q, n) of database images a query."""
        digest = hashlib.sha256(
            json.dumps([name, about, self.data_about, self.seed], sort_keys=True).encode()
        ).hexdigest()[:16]
        file = self.folder / f"row-{digest}.npy"
        if not file.is_file():
            started = time.process_time()
            values = np.concatenate(
                [judged(rank(city), truth) for city, truth in zip(self.cities, self.truth, strict=True)]
            )
            with replacing(file) as stream:
                np.save(stream, values)
            taken = f"{time.process_time() - started:.0f} s of CPU"
            say(f"seed {self.seed}: {name}: mAP@10 {np.nanmean(values[:, 2]):.3f}, {taken}")
        return np.load(file)

    def network_row(self, **changed: Any) -> np.ndarray:
        """Returns the values of the network that differs so from the recipe, trained where it wasn't before."""
        model = self.trained(**changed)
        parameters = {**self.parameters, **changed}
        hits = parameters["projection_hits" if parameters["layers"] == 0 else "hits"]
        return self.judge("network", [weights_hash(model), hits], self.reranked(model, hits))

    def reranked(self, model: Any, hits: int) -> Callable[[Any], Tensor]:
        """Returns what ranks a city by a trained network: its first hits in a new order, no others."""

        def rank(city: Any) -> Tensor:
            found = nearest(city, hits)
            columns = {name: torch.from_numpy(values) for name, values in city.images["database"].columns.items()}
            lists = []
            for query, row in zip(city.descriptors["query"], found, strict=True):
                metadata = {name: values[row] for name, values in columns.items()}
                order, _ = model.rerank(query, city.descriptors["database"][row], metadata)
                lists.append(row[order])
            return torch.stack(lists)

        return rank


class Best(lightning.Callback):
    """Keeps the weights of the epoch that was best in validation."""

    def __init__(self) -> None:
        self.history: list[float] = []
        self.state: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Compares the epoch's validation with the best so far."""
        value = round(trainer.callback_metrics["val/map@10"].item(), 4)
        if value > max(self.history, default=-1):
            self.state = copy.deepcopy(pl_module.state_dict())
        self.history.append(value)


def positives(city: Any, radius: float) -> Tensor:
    """Returns (Q, N) bool: what lies within `radius` m of a query."""
    asked, there = (torch.from_numpy(city.images[side].poses[:, :2]) for side in ("query", "database"))
    return torch.cdist(asked, there, compute_mode="donot_use_mm_for_euclid_dist") <= radius


def judged(lists: Tensor, truth: Tensor) -> np.ndarray:
    """Returns (Q', metrics) of ranked lists (Q, n), for the queries that have positives."""
    count = truth.sum(1)
    relevant = truth.gather(1, lists)
    scores = -torch.arange(lists.shape[1], dtype=torch.float32).expand(lists.shape)
    columns = [average_precision(scores, relevant, None, k, count, "finite") for k in (1, 5, 10, 20)]
    columns += [recall_at_k(scores, relevant, k, None, count) for k in (5, 10, 20)]
    return torch.stack(columns, dim=1)[count > 0].numpy()


def nearest(city: Any, hits: int) -> Tensor:
    """Returns (Q, K): the nearest database images."""
    return cosines(city.descriptors["query"], city).topk(hits, dim=1).indices


def cosines(queries: Tensor, city: Any) -> Tensor:
    return F.normalize(queries, dim=1) @ F.normalize(city.descriptors["database"], dim=1).T


def none(city: Any) -> Tensor:
    """Ranks by the descriptors as they are."""
    return nearest(city, 100)


def expanded(k: int, alpha: float) -> Callable[[Any], Tensor]:
    """Returns what ranks by the query averaged with its first hits, searching anew (AQE for alpha 0)."""

    def rank(city: Any) -> Tensor:
        database = F.normalize(city.descriptors["database"], dim=1)
        first = database[nearest(city, k)]
        return (
            cosines(expand_query(F.normalize(city.descriptors["query"], dim=1), first, alpha), city)
            .topk(100, dim=1)
            .indices
        )

    return rank


def refined(hits: int, p: int, beta: float) -> Callable[[Any], Tensor]:
    """Returns what ranks the first hits by SuperGlobal, neighbours being those in the whole database."""

    def rank(city: Any) -> Tensor:
        database = F.normalize(city.descriptors["database"], dim=1)
        near = (database @ database.T).fill_diagonal_(-2).topk(p, dim=1).indices
        lists = []
        for query, row in zip(F.normalize(city.descriptors["query"], dim=1), nearest(city, hits), strict=True):
            scores = superglobal(query[None], database[row][None], p, beta, neighbours=database[near[row]][None])
            lists.append(row[scores[0].argsort(descending=True, stable=True)[:100]])
        return torch.stack(lists)

    return rank


def best_of(study: Study, name: str, settings: Sequence[tuple], make: Callable[..., Callable[[Any], Tensor]]) -> tuple:
    """Returns the setting with the best mAP@10, as the thesis chose them, and its values."""
    values = {each: study.judge(f"{name} {each}", None, make(*each)) for each in settings}
    chosen = max(values, key=lambda each: np.nanmean(values[each][:, 2]))
    return chosen, values[chosen]
