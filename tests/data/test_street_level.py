"""Street-level data against brute force: tables and descriptors read back, shortlists, labels, affinities."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import lightning
import numpy as np
import pytest
import torch
from own_process import apart
from PIL import Image

import zoo
from zoo.affinities import create_affinity
from zoo.data._simulated_city import simulate_city, write_msls
from zoo.data._simulated_views import World
from zoo.ops.field_of_view import field_of_view_overlap
from zoo.truth import read_msls

WORLD = World(seed=3, dimension=90)
SIZES = {"a": (70, 20), "b": (25, 12), "c": (60, 25)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three cities in MSLS' layout; descriptors as hloc writes them, a file for each city."""
    root = tmp_path_factory.mktemp("msls")
    cities = {}
    for seed, (name, (database, queries)) in enumerate(SIZES.items()):
        cities[name] = city = simulate_city(world=WORLD, seed=seed, database=database, queries=queries)
        write_msls(root, name, city)
        with h5py.File(root / f"{name}.h5", "w") as file:
            for side in ("database", "query"):
                each = getattr(city, side)
                for key, row in zip(each.keys, each.descriptors, strict=True):
                    file[f"train_val/{name}/{side}/images/{key}.jpg/global_descriptor"] = row
    return root, cities


def opened(tree, cache, **changed):
    given = {"train_cities": ["a", "b"], "val_cities": ["c"], "cache": str(cache), **changed}
    return zoo.create("data", "street_level", root=str(tree[0]), descriptors=f"{tree[0]}/{{city}}.h5", **given)


def nearest(city, hits):
    return np.argsort(-(city.query.descriptors @ city.database.descriptors.T), axis=1, kind="stable")[:, :hits]


def test_training_lists_are_the_nearest_of_each_city_labelled_by_overlap(tree, tmp_path):
    data = opened(tree, tmp_path)
    affinities = [create_affinity("field_of_view"), create_affinity("heading")]
    data.prepare_shortlists(30, 10, affinities)
    data.setup()
    dataset, table = data.dataset("train"), data.descriptors("train")
    batch = dataset.__getitems__(list(range(len(dataset))))
    place, base = 0, 0
    for name in ("a", "b"):
        city = tree[1][name]
        found = nearest(city, 30)
        overlap = field_of_view_overlap(city.query.poses[:, None], city.database.poses[found]).numpy()
        heading = np.abs(
            (city.database.poses[found][:, :, None, 2] - city.database.poses[found][:, None, :10, 2] + 180) % 360 - 180
        )
        for query in np.flatnonzero((overlap > 1 / 3).any(1)):
            rows = batch.rows[place]
            assert torch.equal(table[rows[0]], torch.from_numpy(city.query.descriptors[query]))
            count = found.shape[1]
            assert (rows[1 : 1 + count] - base).tolist() == found[query].tolist()
            assert (rows[1 + count :] == -1).all()
            assert batch.relevant[place, :count].tolist() == (overlap[query] > 1 / 3).tolist()
            assert not batch.relevant[place, count:].any()
            poses = city.database.poses[found[query]]
            wanted = field_of_view_overlap(poses[:, None], poses[None, :10]).float()
            assert torch.allclose(batch.affinities[place, :count, 0], wanted[:, :10], atol=1e-5)
            assert torch.allclose(
                batch.affinities[place, :count, 1], torch.tensor(1 - heading[query] / 180).float(), atol=1e-5
            )
            assert not batch.affinities[place, count:].any()
            place += 1
        base += len(city.database.keys) + len(city.query.keys)
    assert place == len(dataset)


def test_validation_counts_what_lies_within_the_radius(tree, tmp_path):
    data = opened(tree, tmp_path)
    data.prepare_shortlists(20, 5, [])
    data.setup()
    city = tree[1]["c"]
    away = np.linalg.norm(city.query.poses[:, None, :2] - city.database.poses[None, :, :2], axis=2)
    batch = data.dataset("val").__getitems__(list(range(len(data.dataset("val")))))
    kept = (away <= 25).any(1)
    assert batch.positives.tolist() == (away <= 25).sum(1)[kept].tolist()
    assert batch.relevant.tolist() == np.take_along_axis(away <= 25, nearest(city, 20), 1)[kept].tolist()
    assert batch.affinities is None


def test_shortlists_are_kept_and_found_anew_for_other_descriptors(tree, tmp_path):
    data = opened(tree, tmp_path)
    data.prepare_shortlists(5, 3, [])
    data.setup()
    files = sorted(tmp_path.glob("*.npy"))
    assert [file.name.split("_")[0] for file in files] == ["a", "b", "c"]
    stamps = [file.stat().st_mtime_ns for file in files]
    again = opened(tree, tmp_path)
    again.prepare_shortlists(5, 3, [])
    again.setup()
    assert [file.stat().st_mtime_ns for file in files] == stamps
    again.prepare_shortlists(6, 3, [])
    again.setup()
    assert len(list(tmp_path.glob("*.npy"))) == 6


def test_evaluation_sees_keys_descriptors_poses_and_truth(tree, tmp_path):
    data = opened(tree, tmp_path)
    data.setup("test")
    city = tree[1]["c"]
    assert data.ids("database") == list(city.database.keys)
    names = [city.query.keys[k] for k in (7, 3)]
    (batch,) = list(data.selection("query", names))
    assert torch.equal(batch.descriptors, torch.from_numpy(city.query.descriptors[[7, 3]]))
    payload = data.payloads("database", [city.database.keys[2]])[0]
    assert [payload[name] for name in ("easting", "northing", "heading")] == pytest.approx(
        city.database.poses[2], abs=1e-2
    )
    assert payload["captured_at"] > 0
    assert data.ground_truth().fingerprint() == read_msls(tree[0], ["c"], radius=25.0, leaderboard=False).fingerprint()
    with pytest.raises(FileNotFoundError, match=r"isn't in .*/c/query/images"):
        data.picture("query", 0)
    folder = tree[0] / "train_val" / "c" / "query" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), "red").save(folder / f"{city.query.keys[0]}.jpg")
    assert data.picture("query", 0).shape == (8, 12, 3)
    (folder / f"{city.query.keys[0]}.jpg").unlink()


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"train_cities": []}, "train_cities must name at least one city"),
        ({"val_cities": ["c", "c"]}, "val_cities must name at least one city, each once"),
        ({"radius": 0}, "radius must be a finite number above 0, got 0"),
        ({"overlap": 1}, "overlap must lie in 0 … 1"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
    ],
)
def test_parameters_are_checked(tree, tmp_path, changed, rule):
    with pytest.raises(ValueError, match=rule):
        opened(tree, tmp_path, **changed)


def test_missing_descriptors_and_cities_are_named(tree, tmp_path):
    given = {"train_cities": ["a"], "val_cities": ["c"], "cache": str(tmp_path), "root": str(tree[0])}
    data = zoo.create("data", "street_level", descriptors=f"{tree[0]}/a.h5", **given)
    with pytest.raises(
        ValueError, match=r"must hold every database image of c, 60 of 60 are missing, such as 'city0002_"
    ):
        data.setup()
    with pytest.raises(ValueError, match="cities must be folders of"):
        opened(tree, tmp_path, train_cities=["nowhere"]).setup()
    with pytest.raises(RuntimeError, match="call setup"):
        opened(tree, tmp_path).dataset("train")


def test_a_simulated_city_is_made_once_and_read_as_any_other(tmp_path):
    sizes = {"train_count": 1, "val_count": 1, "database": 40, "queries": 15, "dimension": 90}
    first = zoo.create("data", "simulated_city", root=str(tmp_path), **sizes)
    first.prepare_data()
    file = next(tmp_path.glob("*/descriptors/city0000.npz"))
    stamp = file.stat().st_mtime_ns
    second = zoo.create("data", "simulated_city", root=str(tmp_path), **sizes)
    second.setup()
    assert file.stat().st_mtime_ns == stamp
    assert second.city("city0001").descriptors["database"].shape == (40, 90)
    other = zoo.create("data", "simulated_city", root=str(tmp_path), **{**sizes, "recipe": {"gps": 0.0}})
    assert other.root != first.root
    with pytest.raises(ValueError, match=r"recipe must have keys of block, .*got fog"):
        zoo.create("data", "simulated_city", root=str(tmp_path), **{**sizes, "recipe": {"fog": 1}})
    with pytest.raises(ValueError, match="dimension must be at least"):
        zoo.create("data", "simulated_city", root=str(tmp_path), **{**sizes, "dimension": 3})


class Reader(lightning.LightningModule):
    """Looks at the batches, and writes which cities its rank mined."""

    def __init__(self, folder, mined):
        super().__init__()
        self.folder, self.mined, self.rows = Path(folder), mined, 0

    def validation_step(self, batch, batch_idx):
        self.rows += len(batch)

    def on_validation_epoch_end(self):
        (self.folder / f"rank{self.global_rank}.json").write_text(json.dumps([self.mined, self.rows]))


def two_processes(folder, root):
    from zoo.search import mining

    mined, mine = [], mining.nearest
    mining.nearest = lambda *words: mined.append(words[-1]) or mine(*words)
    data = opened((root, None), f"{folder}/cache")
    data.prepare_shortlists(8, 3, [])
    lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=folder,
    ).validate(Reader(folder, mined), datamodule=data, verbose=False)  # fmt: skip


def test_one_of_two_processes_mines_and_the_other_reads_what_it_found(tree, tmp_path):
    apart(two_processes, tmp_path, tree[0])
    (mined, rows), (none, others) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert mined == ["mining a", "mining b", "mining c"]
    assert none == []
    data = opened(tree, tmp_path / "cache")
    data.prepare_shortlists(8, 3, [])
    data.setup()
    assert rows + others == len(data.dataset("val"))
