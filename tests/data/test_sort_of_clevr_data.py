from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from zoo.data.clevr import Clevr
from zoo.data.sort_of_clevr import SortOfClevr
from zoo.types import Batch

CONF = Path(__file__).parents[2] / "conf" / "data"
HEAD = {"_target_": "zoo.create", "kind": "data", "_convert_": "all"}
SIZES = {"train_size": 43, "val_size": 21, "test_size": 5, "gallery_size": 30}


def parameters(**changed: Any) -> dict[str, Any]:
    known = OmegaConf.to_container(OmegaConf.load(CONF / "sort_of_clevr.yaml"), resolve=True)
    return {**{key: value for key, value in known.items() if key not in {*HEAD, "name"}}, **SIZES, **changed}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def data(cache) -> SortOfClevr:
    module = SortOfClevr(**parameters(root=cache, batch_size=8))
    module.prepare_data()
    module.setup()
    return module


def rank_of(module: SortOfClevr, rank: int, world: int) -> SortOfClevr:
    other = copy.copy(module)
    device = SimpleNamespace(root_device=torch.device("cpu"))
    other.trainer = SimpleNamespace(global_rank=rank, world_size=world, strategy=device)
    return other


def equal(a: Batch, b: Batch) -> bool:
    names = ("index", "images", "questions", "answers", "question_types")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("cls", [SortOfClevr, Clevr])
def test_the_yaml_states_every_parameter_with_a_comment(cls):
    name = cls.__module__.rpartition(".")[2]
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    signature = inspect.signature(cls.__init__).parameters
    assert lines[0].startswith("# ")
    assert {key: config.pop(key) for key in [*HEAD, "name"]} == {**HEAD, "name": name}
    assert list(config) == [key for key in signature if key != "self"]
    assert all(p.default is p.empty and p.kind is p.KEYWORD_ONLY for key, p in signature.items() if key != "self")
    assert all("  # " in line for line in lines[5:])


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "/somewhere/else")
    assert SortOfClevr(**parameters()).root == Path("/somewhere/else/sort_of_clevr")
    monkeypatch.delenv("ZOO_CACHE")
    assert SortOfClevr(**parameters()).root == Path.home() / ".cache/spatial-zoo/sort_of_clevr"


def test_a_batch_holds_images_and_questions_as_the_types_say(data):
    batches = list(data.loader("gallery", batch_size=7))
    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 2]
    batch = batches[0]
    assert batch.index.tolist() == list(range(7))
    assert batch.images.shape == (7, 3, 75, 75)
    assert batch.questions.shape == (7, 20, 11)
    assert batch.answers.shape == batch.question_types.shape == (7, 20)
    assert (batch.images.dtype, batch.questions.dtype) == (torch.float32, torch.float32)
    assert {batch.index.dtype, batch.answers.dtype, batch.question_types.dtype} == {torch.int64}
    assert batch.question_type_names == data.question_types
    assert data.question_types[0] == "non_relational/shape"
    assert data.question_types[-1] == "relational/count"
    assert int(batch.answers.max()) < len(data.answers)
    for row in range(7):
        picture = torch.from_numpy(data.picture("gallery", row))
        assert torch.equal((batch.images[row] * 255).round().byte().permute(1, 2, 0), picture)
    white = (batch.images == 1).all(dim=1).float().mean()
    assert 0.7 < white < 1


def test_what_evaluation_asks_for_agrees_with_the_pictures(data):
    assert data.gallery_split == "gallery"
    assert data.size("gallery") == len(data.ids("gallery")) == len(set(data.ids("gallery"))) == 30
    graphs, compositions = data.scene_graphs("gallery"), data.compositions("gallery")
    assert compositions.dtype == np.float32
    assert compositions.shape == (30, 6)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 156, 0), (128, 128, 128), (255, 255, 0)]
    for position in range(30):
        picture = data.picture("gallery", position)
        assert (picture.shape, picture.dtype) == ((75, 75, 3), np.uint8)
        seen = [bool((picture == colour).all(axis=2).any()) for colour in colours]
        assert compositions[position].tolist() == seen
        assert graphs[position].attributes[:, 0].tolist() == np.flatnonzero(seen).tolist()
    assert graphs.attributes.shape[1] == 4


def test_evaluation_loaders_share_an_uneven_split_without_repeats(data):
    parts = [torch.cat([b.index for b in rank_of(data, rank, 2).val_dataloader()]) for rank in range(2)]
    assert [len(part) for part in parts] == [11, 10]
    assert sorted(torch.cat(parts).tolist()) == list(range(21))
    assert list(rank_of(data, 6, 7).loader("test")) == []
    assert rank_of(data, 6, 7).allow_zero_length_dataloader_with_multiple_devices
    assert sum(len(batch) for batch in data.test_dataloader()) == 5


def test_training_order_changes_with_the_epoch_and_repeats_with_the_seed(data, cache):
    def order(module: SortOfClevr, epoch: int) -> list[int]:
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch.index for batch in loader]).tolist()

    again = SortOfClevr(**parameters(root=cache, batch_size=8))
    again.setup()
    assert sorted(order(data, 0)) == list(range(43))
    assert order(data, 1) == order(again, 1) != order(data, 0)
    halves = [order(rank_of(data, rank, 2), 0) for rank in range(2)]
    assert [len(half) for half in halves] == [21, 21]
    assert not set(halves[0]) & set(halves[1])


def test_loading_leaves_the_global_random_numbers_alone(data):
    state = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_loader_processes_give_the_same_batches(data, cache):
    parallel = SortOfClevr(**parameters(root=cache, batch_size=8, num_workers=2))
    parallel.setup()
    for split in ("train", "gallery"):
        one, two = (m.train_dataloader() if split == "train" else m.loader(split) for m in (data, parallel))
        for a, b in zip(one, two, strict=True):
            assert equal(a, b)


def test_a_dataset_is_pickled_as_a_path(data):
    dataset = data.dataset("gallery")
    assert len(dataset) == 30
    content = pickle.dumps(dataset)
    assert len(content) < 1_000
    assert equal(pickle.loads(content).__getitems__([3, 1]), dataset.__getitems__([3, 1]))


def test_preparing_twice_writes_once_and_damage_is_repaired(tmp_path):
    module = SortOfClevr(**parameters(root=str(tmp_path)))
    module.prepare_data()
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(files) == 8
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    before = next(iter(module.loader("val")))
    victim = next(tmp_path.glob("val_*.npy"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x63")
    fresh = SortOfClevr(**parameters(root=str(tmp_path)))
    with pytest.warns(UserWarning, match="damaged"):
        fresh.prepare_data()
    fresh.setup()
    assert equal(next(iter(fresh.loader("val"))), before)
    other = SortOfClevr(**parameters(root=str(tmp_path), seed=1))
    other.prepare_data()
    assert len(list(tmp_path.iterdir())) == 16


@pytest.mark.parametrize("objects", [6, "6", "6-6"])
def test_a_fixed_number_of_objects_may_be_written_in_three_ways(objects):
    recipe = SortOfClevr(**parameters(objects=objects)).recipe
    assert (recipe.low, recipe.high) == (6, 6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objects": "0-6"}, "objects must .* \"1-6\", got '0-6'"),
        ({"objects": "5-2"}, "objects must .* got '5-2'"),
        ({"objects": 7}, "objects must .* got 7"),
        ({"objects": "-3"}, "objects must .* got '-3'"),
        ({"objects": "many"}, "objects must .* got 'many'"),
        ({"train_size": 0}, "train_size must .* got 0"),
        ({"gallery_size": "10"}, "gallery_size must .* got '10'"),
        ({"seed": -1}, "seed must .* got -1"),
        ({"image_size": 40}, "image_size must leave room for 6 objects of object_size 5, got 40"),
        ({"object_size": 0}, "object_size must .* got 0"),
        ({"questions": 0}, "questions must .* got 0"),
        ({"batch_size": 0}, "batch_size must .* got 0"),
        ({"num_workers": -1}, "num_workers must .* got -1"),
    ],
)
def test_arguments_outside_their_range_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        SortOfClevr(**parameters(**changed))


def test_unknown_or_unopened_splits_and_bad_batch_sizes_are_refused(data, cache):
    with pytest.raises(ValueError, match="split must be one of warmup, train, val, test, gallery, got 'valid'"):
        data.loader("valid")
    with pytest.raises(ValueError, match="got 'valid'"):
        data.size("valid")
    with pytest.raises(ValueError, match=r"batch_size must .* got 0"):
        data.loader("val", batch_size=0)
    with pytest.raises(RuntimeError, match="setup"):
        SortOfClevr(**parameters(root=cache)).loader("val")


def test_importing_the_package_is_light():
    code = "import sys, zoo.data; print([m for m in ('torch', 'lightning', 'numpy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_first_epochs_show_other_images_with_fewer_objects(cache):
    data = rank_of(SortOfClevr(**parameters(root=cache, warmup_epochs=2, warmup_objects="2-3")), 0, 1)
    data.prepare_data()
    data.setup()
    seen = {}
    for epoch in range(3):
        data.trainer.current_epoch = epoch
        seen[epoch] = torch.cat([batch.images.flatten(1) for batch in data.train_dataloader()])
    counts = data.dataset("warmup").records["count"]
    assert set(counts.tolist()) <= {2, 3}
    assert len(seen[0]) == len(seen[2]) == data.size("train")
    totals = [rows.sum(1).sort().values for rows in seen.values()]
    assert torch.allclose(totals[0], totals[1])
    assert not torch.allclose(totals[0], totals[2])
    assert not np.array_equal(data.dataset("warmup").records["x"], data.dataset("train").records["x"])
