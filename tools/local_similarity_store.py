"""What `local_similarity_table.py` compares: sets of images and their maps, training pairs, heads, kept on disk."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save
from study import DATA, say
from torch import Tensor
from torch.utils.data import DataLoader

import zoo
from zoo import config
from zoo.checkpoints import save_weights
from zoo.evaluation.protocol import short_hash
from zoo.files import replacing
from zoo.search.quantizer import ProductQuantizer
from zoo.types import PairBatch, Representation

TOOLS = Path(__file__).resolve().parent
RECIPE = "local_similarity"  # the experiment whose model and data the study takes
SHARED = ("sources", "backgrounds", "min_area", "one_per_image", "canvas", "seed")  # with the recipe's training pairs
CUT_OUT = ("masks", "coco", "procedural")  # kinds of sources that the test set has objects of
OBJECTS = 50  # of the test split, five views of each
QUANTISED_ON = 65_536  # local features of training galleries that codebooks are learnt from


class World(NamedTuple):
    """Images to search and how they are judged, both as overrides of `zoo eval`'s config."""

    data: dict[str, Any]
    benchmark: dict[str, Any]


class Maps(NamedTuple):
    """Vectors (N, D) fp32 and local maps (N, D, H, W) fp16 of queries and gallery."""

    queries: Representation
    gallery: Representation


@cache
def recipe() -> Any:
    """Returns the composed config of the recipe."""
    return config.compose("train", [f"experiment={RECIPE}"])


class Store:
    """Everything that is made once and kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.model = config.instantiate(recipe().model).eval()

    def world(self, name: str) -> World:
        """Returns the world of a name, its images and distractors written."""
        images, truth = self._synthetic() if name == "synthetic" else self._oxford()
        spoilt = self.folder / f"{name}_shuffled"
        if not (spoilt / "ground_truth.json").is_file():
            incomplete = ["--incomplete", "restrict"] if name == "oxford" else []
            words = ["--images", images, "--truth", truth, "--output", spoilt, *incomplete]
            _run("make_shuffled_distractors.py", *words)
        roots = [str(images), str(spoilt / "images")]
        judged = {"ground_truth": str(spoilt / "ground_truth.json"), "convention": "finite", "leave_out_query": True}
        data = {"root": roots, "batch_size": 8}
        if name == "oxford":
            roots.insert(1, str(DATA / "caltech101_subset" / "images"))
            judged |= {"leave_one_out": True, "incomplete": "restrict", "convention": "trapezoid"}
            data |= {"longest_side": 512, "enlarge": True}
        return World(data, {**judged, "sheet_queries": 0, "kept": 0})

    def _synthetic(self) -> tuple[Path, Path]:
        out = self.folder / "synthetic"
        if not (out / "table.csv").is_file():
            asked = OmegaConf.to_container(recipe().data, resolve=True)
            asked["sources"] = [each for each in asked["sources"] if each["kind"] in CUT_OUT]
            changed = [f"{key}={json.dumps(asked[key])}" for key in SHARED]
            _run("make_cut_paste.py", out, "--split", "test", "--objects", str(OBJECTS), *changed)
        return out / "images", out / "table.csv"

    def _oxford(self) -> tuple[Path, Path]:
        oxford = DATA / "oxford5k_allsouls"
        return oxford / "images", oxford / "gnd_oxford5k.json"

    def maps(self, name: str) -> tuple[Maps, Any]:
        """Returns the maps of a world's queries and gallery, and its benchmark."""
        world = self.world(name)
        data = zoo.create("data", "folder", **world.data)
        data.setup("test")
        benchmark = zoo.create("benchmark", "shuffled", **world.benchmark)
        benchmark.open(data)
        parts = []
        for role, loader in zip(("gallery", "query"), benchmark.loaders(data), strict=True):
            about = json.dumps([role, world.data, world.benchmark, self.model.fingerprint()])
            parts.append(self._kept(f"{name}-{role}", about, lambda r=role, each=loader: self._embedded(each, r)))
        gallery, queries = (Representation(**part) for part in parts)
        return Maps(queries, gallery), benchmark

    def pairs(self, count: int) -> dict[str, Tensor]:
        """Returns the fields of a `PairBatch` of `count` training pairs, with maps in place of images."""
        data = config.instantiate(recipe().data, pairs_per_epoch=count)
        about = json.dumps([count, data.registered["parameters"], self.model.fingerprint()])
        return self._kept("pairs", about, lambda: self._embedded_pairs(data))

    def quantizer(self, parts: int, pairs: dict[str, Tensor]) -> ProductQuantizer:
        """Returns a quantiser of `parts` parts, learnt from galleries of training pairs."""
        galleries = pairs["galleries"]
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(galleries) * galleries[0, 0].numel(), generator=generator)[:QUANTISED_ON]
        cells = galleries.flatten(2)
        rows = cells[chosen // cells.shape[2], :, chosen % cells.shape[2]].float()
        about = json.dumps([parts, QUANTISED_ON, len(galleries), self.model.fingerprint()])
        made = self._kept(
            f"pq{parts}", about, lambda: {"centroids": ProductQuantizer.fit(rows, parts, 256, 0).centroids}
        )
        return ProductQuantizer(made["centroids"])

    def head(self, name: str, make: Callable[[], Any], about: str) -> Any:
        """Returns a trained model from its file, made when it is first asked for."""
        file = self.folder / f"head-{name}-{short_hash(about)}.safetensors"
        if not file.is_file():
            save_weights(make(), file, trained_only=True)
        return zoo.load_model(str(file))

    def _kept(self, what: str, about: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        file = self.folder / f"{what}-{short_hash(about)}.safetensors"
        if not file.is_file():
            started = time.process_time()
            tensors = {name: torch.as_tensor(value).contiguous() for name, value in make().items()}
            with replacing(file) as path:
                path.write(save(tensors))
            say(f"{what}: made in {time.process_time() - started:.0f} s of processor time")
        return load_file(file)

    def _embedded(self, loader: DataLoader, role: Any) -> dict[str, Tensor]:
        index, rows = [], []
        for batch in loader:
            index.append(batch.index)
            rows.append(self.model.represent(batch, role))
        order = torch.cat(index).argsort()
        maps = torch.cat([each.local_map.half() for each in rows])[order]
        return {"vector": torch.cat([each.vector for each in rows])[order], "local_map": maps}

    @torch.no_grad()
    def _embedded_pairs(self, data: Any) -> dict[str, Tensor]:
        data.setup("fit")
        parts: dict[str, list[Tensor]] = {name: [] for name in ("queries", "galleries", "boxes", "objects")}
        for batch in data.train_dataloader():
            galleries, queries = self.model.maps_of(batch)
            height, width = batch.galleries.shape[2:]
            cells = galleries.shape[-1] / batch.boxes.new_tensor([width, height, width, height])
            made = {"galleries": galleries.half(), "queries": queries.half(), "boxes": batch.boxes * cells}
            for name, value in {**made, "objects": batch.objects}.items():
                parts[name].append(value)
        return {name: torch.cat(rows) for name, rows in parts.items()}


class MapPairs(torch.utils.data.IterableDataset):
    """Training batches of pairs whose maps are there already, in an order of their own in every pass."""

    def __init__(self, pairs: dict[str, Tensor], size: int, seed: int) -> None:
        self.pairs, self.size, self._generator = pairs, size, torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[PairBatch]:
        for index in torch.randperm(len(self), generator=self._generator).split(self.size):
            if len(index) == self.size:
                yield PairBatch(index, **{name: value[index] for name, value in self.pairs.items()})

    def __len__(self) -> int:
        return len(self.pairs["objects"])


class Progress(lightning.Callback):
    """Says every 200 steps how many pairs were told right."""

    def __init__(self) -> None:
        self._told: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Counts a step."""
        self._told.append(float(trainer.callback_metrics["train/accuracy"]))
        if len(self._told) == 200:
            say(f"  step {trainer.global_step} of {trainer.max_steps}: accuracy {sum(self._told) / 200:.3f}")
            self._told = []


def train(model: Any, pairs: dict[str, Tensor], steps: int, seed: int) -> Any:
    """Trains the head of a model on pairs of maps and returns it."""
    started = time.process_time()
    lightning.seed_everything(seed, verbose=False)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, enable_model_summary=False, callbacks=[Progress()], **quiet
    )
    trainer.fit(model, DataLoader(MapPairs(pairs, 8, seed), batch_size=None))
    say(f"{steps} steps in {time.process_time() - started:.0f} s of processor time")
    return model.eval()


def _run(tool: str, *words: Any) -> None:
    say(f"python tools/{tool} {' '.join(map(str, words))}")
    subprocess.run([sys.executable, str(TOOLS / tool), *map(str, words)], check=True, stdout=sys.stderr)
