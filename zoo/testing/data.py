"""The contract test of data modules."""

from __future__ import annotations

import json
import pickle
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from zoo import config, registry
from zoo.testing._batches import check_batch, same_batches
from zoo.testing._knowledge import check_knowledge
from zoo.testing.models import _require, check_signature
from zoo.types import Batch, PairBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[], Any]

_READ = 3  # batches that are read of a loader
_BASE = ("splits", "gallery_split", "ids", "loader", "picture", "picture_by_id")
_FIELDS = {*Batch.__dataclass_fields__, *PairBatch.__dataclass_fields__} - {"index", "unreadable"}


def check_data(name: str, folder: Path, **parameters: Any) -> None:
    """Checks that the registered data `name` keeps the contract; raises AssertionError saying which clause it breaks.

    In order: signature equals YAML; it is a `LightningDataModule`, built with its `tiny` overrides, if it has any (in
    whose strings "{folder}" stands for a folder), and `parameters`; it names its splits, the gallery's among them, and
    in `gives` the fields of its batches; once prepared and set up, twice if asked, a split's names are different texts,
    pictures are found by them, and an unknown split or name raises ValueError. A loader gives batches of `zoo.types`
    with fields in their types and ranges; every position once over one, two and three processes; the same again, also
    from a pickled data set, with other batch sizes, and without touching the global random numbers. `selection`,
    `path`, `preprocessing`, labels, payloads, ground truth, scene graphs and label maps are held to it where they are
    there. What can be trained on goes through a Trainer; its order depends on seed and epoch alone, and two processes
    get equally many different positions. Big sets are read in part. Files go to `folder`.
    """
    check_signature("data", name)
    cls = registry.load("data", name)
    _require(issubclass(cls, lightning.LightningDataModule), f"{cls.__name__} must derive from LightningDataModule")
    tiny = getattr(cls, "tiny", {})
    filled = {key: value.format(folder=folder) if isinstance(value, str) else value for key, value in tiny.items()}

    def make(stage: str = "test") -> Any:
        data = config.create("data", name, **{**filled, **parameters})
        data.trainer = _trainer(stage=stage)
        data.prepare_data()
        data.setup(stage)
        return data

    data = make()
    _check_description(data)
    _check_names(data)
    _check_loader(data)
    _check_again(make, data)
    _check_pictures(data)
    if hasattr(data, "selection"):
        _check_selection(data)
    check_knowledge(data)
    if getattr(data, "gives_training", True):
        _check_training(make)
        _check_trainer(config.create("data", name, **{**filled, **parameters}), folder)
    else:
        _refuses("train_dataloader() of data that says nothing to train on", data.train_dataloader, NotImplementedError)


def _trainer(rank: int = 0, world: int = 1, epoch: int = 0, stage: str = "test") -> Any:
    """Returns what data modules ask a Trainer for."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    state = SimpleNamespace(fn=stage)
    return SimpleNamespace(global_rank=rank, world_size=world, current_epoch=epoch, strategy=strategy, state=state)


def _check_description(data: Any) -> None:
    lacking = [name for name in _BASE if not hasattr(data, name)]
    _require(not lacking, f"{type(data).__name__} must have {', '.join(lacking)}")
    named = bool(data.splits) and all(isinstance(split, str) for split in data.splits)
    _require(named, f"splits must name at least one split, got {data.splits!r}")
    for end in ("gallery_split", "query_split"):
        split = getattr(data, end, data.gallery_split)
        _require(split in data.splits, f"{end} must be one of splits {tuple(data.splits)}, got {split!r}")
    gives = tuple(getattr(data, "gives", ("images",)))
    _require(set(gives) <= _FIELDS, f"gives must be among {sorted(_FIELDS)}, got {list(gives)}")


def _check_names(data: Any) -> None:
    data.setup("test")
    for split in dict.fromkeys((data.gallery_split, getattr(data, "query_split", data.gallery_split))):
        ids = data.ids(split)
        texts = bool(ids) and all(isinstance(name, str) for name in ids)
        _require(texts, f"ids('{split}') must be the names of its images, texts, got {ids[:3]}")
        twice = next((name for name in ids if ids.count(name) > 1), None) if len(set(ids)) < len(ids) else None
        _require(twice is None, f"ids('{split}') must name every image differently, '{twice}' comes again")
        _require(data.ids(split) == ids, f"ids('{split}') must be the same whenever they are asked for")
        if hasattr(data, "size"):
            _require(data.size(split) == len(ids), f"size('{split}') must be {len(ids)}, got {data.size(split)}")
        for call in ("ids", "loader", "size"):
            if hasattr(data, call):
                _refuses(
                    f"{call}() of a split that isn't there", lambda call=call: getattr(data, call)("no such split")
                )
    if hasattr(data, "path"):
        split = data.gallery_split
        _require(Path(data.path(split, data.ids(split)[0])).is_file(), "path() must name the file of an image")


def _check_loader(data: Any) -> None:
    split, loader = data.gallery_split, data.loader(data.gallery_split)
    _require(isinstance(loader, DataLoader), f"loader() must return a DataLoader, got {type(loader).__name__}")
    batches, size = list(islice(loader, _READ)), len(loader.dataset)
    gives = tuple(getattr(data, "gives", ("images",)))
    for batch, wanted in zip(batches, _places(loader), strict=False):
        check_batch(batch, data, size, gives)
        index = batch.index.tolist()
        _require(index == wanted, f"index must hold the positions that were asked for, {wanted}, got {index}")
    alone = isinstance(batches[0], Batch)
    _require(
        not alone or size == len(data.ids(split)), f"a loader must have the {len(data.ids(split))} images of ids()"
    )
    _check_shares(data, lambda: data.loader(split), size, "loader")
    for wrong in (0, True):
        _refuses(f"batch_size={wrong}", lambda wrong=wrong: data.loader(split, wrong))


def _places(loader: DataLoader) -> list[list[int]]:
    """Returns the positions of a loader's batches, without reading any if that is possible."""
    if loader.batch_sampler is None:
        return [batch.index.tolist() for batch in loader]
    return [[int(place) for place in batch] for batch in loader.batch_sampler]


def _check_shares(data: Any, load: Callable[[], DataLoader], size: int, what: str) -> None:
    for world in (1, 2, 3):
        found = []
        for rank in range(world):
            data.trainer = _trainer(rank, world)
            found += [place for batch in _places(load()) for place in batch]
        once = sorted(found) == list(range(size))
        _require(once, f"{what}: over {world} processes every position must come once, got {sorted(found)[:20]}")
    data.trainer = _trainer()


def _check_again(make: Make, data: Any) -> None:
    before = torch.get_rng_state()
    loader = data.loader(data.gallery_split)
    first = next(iter(loader))
    _require(torch.equal(before, torch.get_rng_state()), "a loader must leave the global random numbers alone")
    again = next(iter(make().loader(data.gallery_split)))
    _require(same_batches(first, again), "the same data, built again, must give the same batches")
    try:
        copied = pickle.loads(pickle.dumps(loader.dataset))
    except Exception as error:
        raise AssertionError(f"the data set must travel to loader processes by pickle: {error}") from error
    places = [first.index.tolist()]
    copy = next(iter(DataLoader(copied, batch_sampler=places, collate_fn=loader.collate_fn)))
    _require(same_batches(first, copy), "a pickled data set must give the same batches")
    if isinstance(first, Batch) and first.images.numel():
        _require(len(first) == 1 or len(first) <= data.batch_size, "a batch must hold at most batch_size images")
        alone = next(iter(data.loader(data.gallery_split, 1)))
        _require(len(alone) == 1, f"loader(split, 1) must give one image at a time, got {len(alone)}")
        place = first.index.tolist().index(int(alone.index[0])) if alone.index[0] in first.index else 0
        _require(torch.equal(alone.images[0], first.images[place]), "an image must not depend on its batch")


def _check_pictures(data: Any) -> None:
    split = data.gallery_split
    ids = data.ids(split)
    try:
        picture = data.picture(split, len(ids) - 1)
    except FileNotFoundError:  # images that aren't there can't be shown, and the others needn't be looked for
        return
    shown = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)
    _require(shown, "picture() must be (H, W, 3) uint8 RGB")
    _require(
        np.array_equal(picture, data.picture_by_id(split, ids[-1])), "picture_by_id must show the image of the name"
    )
    _refuses("picture_by_id() of a name that isn't there", lambda: data.picture_by_id(split, "no such image"))
    height, width = picture.shape[:2]
    if min(height, width) > 1:
        part = data.picture_by_id(split, ids[-1], [0, 0, width - 1, height - 1])
        _require(part.shape[:2] == (height - 1, width - 1), "picture_by_id must cut to a box x0, y0, x1, y1 px")
    if hasattr(data, "preprocessing"):
        plain = data.preprocessing
        _require(json.loads(json.dumps(plain)) == plain, "preprocessing must be plain values, as JSON has them")
        alone = next(iter(data.selection(split, ids[-1:])))
        own = data.prepare_picture(data.path(split, ids[-1]))
        _require(torch.equal(own.images, alone.images), "prepare_picture must do to a file what loaders do")


def _check_selection(data: Any) -> None:
    split = data.gallery_split
    first = next(iter(data.loader(split)))
    rows = [len(first) - 1, 0, len(first) - 1]
    names = [data.ids(split)[int(first.index[row])] for row in rows]
    found: dict[int, Any] = {}
    for batch in data.selection(split, names):
        check_batch(batch, data, len(names), tuple(getattr(data, "gives", ("images",))))
        found |= {int(place): _row(batch, row) for row, place in enumerate(batch.index)}
    _require(sorted(found) == list(range(len(names))), "selection: index must be the position in the names, each once")
    same = all(torch.equal(found[place], _row(first, row)) for place, row in enumerate(rows))
    _require(same, "selection: images must be those of the names, the same as a loader's")
    _check_shares(data, lambda: data.selection(split, names), len(names), "selection")
    _refuses("selection() of a name that isn't there", lambda: data.selection(split, ["no such image"]))


def _row(batch: Batch, row: int) -> torch.Tensor:
    return batch.images[row] if batch.images.numel() else batch.descriptors[row]


def _check_training(make: Make) -> None:
    data = make("fit")
    first = next(iter(data.train_dataloader()))
    again = next(iter(make("fit").train_dataloader()))
    check_batch(first, data, len(data.train_dataloader().dataset))
    _require(same_batches(first, again), "what training sees first must depend on the seed alone, got another batch")
    shares = []
    for rank in range(2):
        data.trainer = _trainer(rank, 2, stage="fit")
        shares.append(_places(data.train_dataloader()))
    counts = [len(share) for share in shares]
    _require(counts[0] == counts[1], f"two processes must train on equally many batches, got {counts}: one would wait")
    common = {place for batch in shares[0] for place in batch} & {place for batch in shares[1] for place in batch}
    _require(not common, f"two processes must train on different positions, both got {sorted(common)[:5]}")
    data.trainer = _trainer(stage="fit")
    loader = data.train_dataloader()
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(1)
        data.trainer = _trainer(epoch=1, stage="fit")
        resumed = next(iter(data.train_dataloader()))
        _require(same_batches(next(iter(loader)), resumed), "a resumed epoch must be what it would have been")
        data.trainer = _trainer(stage="fit")
    size = len(data.val_dataloader().dataset)
    check_batch(next(iter(data.val_dataloader())), data, size)
    if size >= 3:
        _check_shares(data, data.val_dataloader, size, "val_dataloader")


def _check_trainer(data: Any, folder: Path) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=2, limit_val_batches=2, num_sanity_val_steps=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, use_distributed_sampler=False,
    )  # fmt: skip
    probe = _Probe()
    trainer.fit(probe, datamodule=data)
    _require(min(probe.seen.values()) > 0, f"a Trainer must see batches to train and to validate on, saw {probe.seen}")


class _Probe(lightning.LightningModule):
    """Counts batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), {"train": 0, "val": 0}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Counts."""
        self.seen["train"] += 1
        return self.weight.square()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Counts."""
        self.seen["val"] += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns SGD."""
        return torch.optim.SGD(self.parameters(), 0.1)


def _refuses(what: str, call: Callable[[], Any], error: type[Exception] = ValueError) -> None:
    try:
        call()
    except error:
        return
    except Exception as other:
        raise AssertionError(f"{what} must raise {error.__name__}, got {type(other).__name__}: {other}") from other
    raise AssertionError(f"{what} must raise {error.__name__}")
