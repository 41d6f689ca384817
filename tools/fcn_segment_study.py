"""What `fcn_segment_table.py` compares: rankings of CamVid's frames by photos, drawings, both, and baselines."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from study import say
from torch import Tensor

import zoo
from zoo import config
from zoo.checkpoints import load_model, save_weights
from zoo.files import replacing
from zoo.metrics.functional import ndcg
from zoo.metrics.functional.segmentation import intersection_over_union, pixel_accuracy
from zoo.ops.pooling import gem
from zoo.ops.sketches import UNDRAWN, combined_query, sketch_query
from zoo.types import Representation

RECIPE = "fcn_segment_camvid"
SPLITS = ("train", "val")
NEAR = 150  # video frames within which a frame of the query's own sequence is left out
CELLS = (12, 16)  # of a drawing, whatever is finer being beyond a finger
DRAWN = 3  # classes of a quick drawing
CENTROIDS = (4, 16, 64, 256)
K = 10


class Frames(NamedTuple):
    """All labelled frames (N): names, which split, sequence and number in the video each has, and its label map."""

    names: list[str]
    splits: list[str]
    sequences: np.ndarray
    numbers: np.ndarray
    labels: Tensor  # (N, H, W) int64, -1 = void

    @classmethod
    def read(cls, data: Any) -> Frames:
        """Reads all label maps."""
        names = [(split, name) for split in SPLITS for name in data.ids(split)]
        labels = [data.label_map(split, row) for split in SPLITS for row in range(len(data.ids(split)))]
        parts = [re.fullmatch(r"(\w+?)_f?(\d+)", name) for _, name in names]
        return cls(
            [name for _, name in names],
            [split for split, _ in names],
            np.array([part[1] for part in parts]),
            np.array([int(part[2]) for part in parts]),
            torch.from_numpy(np.stack(labels)),
        )

    def left_out(self, queries: Sequence[int]) -> Tensor:
        """Returns (Q, N) bool: frames that are too near to a query."""
        own = self.sequences[list(queries), None] == self.sequences
        near = np.abs(self.numbers[list(queries), None] - self.numbers) <= NEAR
        return torch.from_numpy(own & near)


class Gains(NamedTuple):
    """What a ranking earns for each frame, (Q, N): agreement of pixels above the gallery's median, and mean IoU."""

    agreement: Tensor
    iou: Tensor

    @classmethod
    def of(cls, frames: Frames, queries: Sequence[int], left_out: Tensor, classes: int) -> Gains:
        """Compares every query's label map with every frame's."""
        agreement, iou = (torch.zeros(left_out.shape, dtype=torch.float64) for _ in range(2))
        for row, query in enumerate(queries):
            for column, labels in enumerate(frames.labels):
                confusion = _confusion(frames.labels[query], labels, classes)
                agreement[row, column] = pixel_accuracy(confusion)
                iou[row, column] = intersection_over_union(confusion).nanmean()
            allowed = agreement[row, ~left_out[row]]
            agreement[row] = (agreement[row] - allowed.median()).clamp(min=0)
        return cls(agreement, iou)


def _confusion(one: Tensor, other: Tensor, classes: int) -> Tensor:
    """Returns (C, C) of the pixels that have a class in both."""
    both = (one >= 0) & (other >= 0)
    return torch.bincount(one[both] * classes + other[both], minlength=classes**2).reshape(classes, classes)


def values(distances: Tensor, gains: Tensor, left_out: Tensor) -> np.ndarray:
    """Returns each query's nDCG (Q,) of ranking by distances (Q, N)."""
    return ndcg(-distances, gains, K, left_out).numpy()


def expected_at_random(gains: Tensor, left_out: Tensor) -> np.ndarray:
    """Returns each query's expected nDCG (Q,) of a ranking that is drawn at random."""
    discounts = 1 / torch.log2(torch.arange(2, K + 2, dtype=torch.float64))
    kept = gains.masked_fill(left_out, 0)
    best = (kept.topk(K, dim=1).values * discounts).sum(1)
    return (kept.sum(1) / (~left_out).sum(1) * discounts.sum() / best).numpy()


# --- drawings


def coarse(labels: Tensor, classes: int, size: tuple[int, int]) -> Tensor:
    """Returns label maps (Q, H, W) as if drawn with a thick brush: a cell has the class of most of it, or none."""
    hot = F.one_hot(labels + 1, classes + 1).permute(0, 3, 1, 2).float()
    shares = F.adaptive_avg_pool2d(hot, CELLS)
    share, cells = shares[:, 1:].max(dim=1)
    drawn = torch.where(share >= 0.5, cells, UNDRAWN)
    return F.interpolate(drawn[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def largest(drawn: Tensor, classes: int) -> Tensor:
    """Returns drawings (Q, H, W) with the DRAWN largest classes alone."""
    kept = drawn.clone()
    for one in kept:
        counts = torch.bincount(one[one >= 0], minlength=classes)
        one[~torch.isin(one, counts.topk(DRAWN).indices)] = UNDRAWN
    return kept


# --- rankings


class Asked(NamedTuple):
    """Queries as the index takes them."""

    maps: Tensor  # (Q, C, H, W)
    counts: Tensor | None = None  # (Q, C) bool: classes that count, None for all


def asked(maps: Tensor, labels: Tensor) -> dict[str, Asked]:
    """Returns what photos' maps (Q, C, H, W) and their true label maps make as queries, by name."""
    classes, size = maps.shape[1], maps.shape[2:]
    drawn = coarse(labels, classes, size)
    quick = largest(drawn, classes)
    return {
        "photo": Asked(maps),
        "drawing": Asked(*sketch_query(drawn, classes)),
        f"drawing of {DRAWN} classes": Asked(*sketch_query(quick, classes)),
        f"photo and drawing of {DRAWN} classes": Asked(combined_query(quick, maps)),
    }


def exact_distances(query: Asked, gallery: Tensor) -> Tensor:
    """Returns (Q, N): squared distances to maps (N, C, H, W) as they are, over the classes that count."""
    total = torch.zeros(len(query.maps), len(gallery), dtype=torch.float64)
    for column in range(gallery.shape[1]):
        own, others = query.maps[:, column].flatten(1).double(), gallery[:, column].flatten(1).double()
        squared = torch.cdist(own, others) ** 2
        total += squared if query.counts is None else squared * query.counts[:, column, None]
    return total


class Coded:
    """The index of maps (N, C, H, W) with so many centroids a class, learnt from all of them."""

    def __init__(self, gallery: Tensor, centroids: int) -> None:
        self.size = len(gallery)
        self.index = zoo.create("index", "probability_maps", centroids=centroids)
        self.index.train(Representation(probability_map=gallery))
        block = self.index.largest_block
        for start in range(0, self.size, block):
            part = gallery[start : start + block]
            self.index.add(list(range(start, start + len(part))), Representation(probability_map=part))

    def distances(self, query: Asked) -> Tensor:
        """Returns (Q, N): squared distances to what the codes decode to."""
        found = self.index.search(Representation(probability_map=query.maps, class_mask=query.counts), self.size)
        distances = torch.zeros(len(found), self.size, dtype=torch.float64)
        for row, ranking in zip(distances, found, strict=True):
            row[torch.tensor(ranking.ids)] = -torch.as_tensor(ranking.scores).double()
        return distances


# --- networks


class Networks:
    """The recipe's network, and those trained without a sequence; whatever is trained or described is kept."""

    def __init__(self, folder: Path, root: Path, epochs: int | None) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore")
        self.folder, self.root = folder, root.resolve()
        node = config.compose("train", [f"experiment={RECIPE}"])
        model = OmegaConf.to_container(node.model, resolve=True)
        self.parameters = {name: model[name] for name in config.defaults("model", "fcn_segment")}
        self.epochs, self.seed = epochs or node.trainer.max_epochs, node.seed
        self.data = self._data(self.root, val_split="val")

    def without(self, sequence: str) -> Any:
        """Returns the network trained on the other sequences' frames, as it was after the last epoch."""
        about = [self.parameters, self.epochs, self.seed, sequence]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / f"network-{digest}.safetensors"
        if not file.is_file():
            save_weights(self._trained(sequence, self.folder / f"training-{digest}"), file)
        return load_model(str(file))

    def maps(self, model: Any) -> Tensor:
        """Returns the maps (N, C, H, W) of all frames."""
        file = self.folder / f"maps-{model.fingerprint()}.npy"
        if not file.is_file():
            maps = self._described(lambda batch: model.embed(batch).probability_map, model)
            with replacing(file) as stream:
                np.save(stream, maps.numpy())
        return torch.from_numpy(np.load(file))

    def pooled(self) -> dict[str, Tensor]:
        """Returns the unit vectors (N, D) of generalised-mean pooling before this training, by what was pooled.

        That is the map of the same network with ImageNet's weights, and the last map of the trunk that is begun with.
        """
        weights = self.root.parent / "weights" / "mobilenetv2_100.fp16.safetensors"
        imagenet = zoo.create_model("global_descriptor", backbone="mobilenetv2_100", backbone_weights=str(weights))
        begun = zoo.create_model("fcn_segment", **self.parameters)
        return {
            "GeM": self._described(lambda batch: imagenet.embed(batch).vector, imagenet),
            "GeM of the trunk begun with": F.normalize(
                self._described(lambda batch: gem(begun.net.trunk(batch.images).deep), begun), dim=1
            ),
        }

    def _described(self, describe: Any, model: Any) -> Tensor:
        model.eval()
        with torch.inference_mode():
            return torch.cat([describe(batch).cpu() for split in SPLITS for batch in self.data.loader(split)])

    def _data(self, root: Path, val_split: str | None) -> Any:
        data = zoo.create("data", "camvid", root=str(root), val_split=val_split)
        data.prepare_data()
        data.setup("fit")
        return data

    def _trained(self, sequence: str, folder: Path) -> Any:
        tree = self._tree_without(sequence)
        data = zoo.create("data", "camvid", root=str(tree), val_split=None, gallery_split="train")
        lightning.seed_everything(self.seed, verbose=False)
        model, started = zoo.create_model("fcn_segment", **self.parameters), time.process_time()
        last = folder / "last.ckpt"
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=self.epochs, logger=False, limit_val_batches=0, enable_model_summary=False,
            callbacks=[ModelCheckpoint(folder, filename="last", enable_version_counter=False)],
            use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        say(f"without {sequence}: {self.epochs} epochs, {time.process_time() - started:.0f} s of CPU")
        return model

    def _tree_without(self, sequence: str) -> Path:
        """Returns a tree whose train.txt lacks a sequence; its folders are those of the data."""
        tree = self.folder / f"without_{sequence}"
        tree.mkdir(parents=True, exist_ok=True)
        for part in ("images", "labels"):
            if not (tree / part).is_symlink():
                os.symlink(self.root / part, tree / part)
        lines = (self.root / "train.txt").read_text(encoding="utf-8").split()
        with replacing(tree / "train.txt") as file:
            file.write("\n".join(line for line in lines if not line.startswith(sequence)).encode())
        return tree
