"""A small tree of files for every registered data set, as its publisher lays it out; real files where they lie here."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from label_map_trees import CLASSES, scene, write_tree
from PIL import Image
from scipy.io import savemat

from zoo.data._simulated_city import simulate_city, write_msls
from zoo.data._simulated_views import World

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[2] / "shared" / "data"))
SEGMENTATION = {"image_size": None, "batch_size": 2, "crop_size": 32}


def real(name):
    """Returns a folder of shared data; skips the test where it isn't there."""
    if not (REAL / name).is_dir():
        pytest.skip(f"needs {name}, absent in {REAL} (ZOO_DATA)")
    return str(REAL / name)


def pictures(root, names, suffix="jpg", size=(24, 16)):
    """Writes seeded pictures of four colours each."""
    for number, name in enumerate(names):
        path = root / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        corners = np.random.default_rng(number).integers(0, 255, (2, 2, 3), np.uint8)
        Image.fromarray(corners).resize(size, Image.Resampling.NEAREST).save(path)


def groups(folder, query, image, box, **lists):
    """Writes a query of Oxford or Paris as its publisher does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{query}_query.txt").write_text(f"oxc1_{image} {' '.join(map(str, box))}\n")
    for group in ("good", "ok", "junk"):
        (folder / f"{query}_{group}.txt").write_text("\n".join(lists.get(group, [])) + "\n")


def camvid(root):
    return {"root": real("camvid"), "image_size": 64, "batch_size": 4, "crop_size": 32}


def clevr(root):
    return {"root": real("clevr_mini"), "cache": str(root / "cache"), "limit": 12, "image_size": 32, "batch_size": 4}


def cut_paste(root):
    return {
        "sources": [{"kind": "procedural", "count": 40}], "canvas": 64, "gallery_side": 64, "query_side": 32,
        "copies": 1, "val_share": 0.25, "test_share": 0.25, "batch_size": 4,
    }  # fmt: skip


def folder(root):
    names = [f"{label}/{number}" for label in "ab" for number in range(3)]
    pictures(root / "gallery", names, "png")
    pictures(root / "queries", ["a/q", "b/q"], "png", (40, 32))
    (root / "table.csv").write_text("image,label,x0,y0,x1,y1\na/q,a,1,1,20,20\na/0,a,,,,\na/1,a,,,,\nb/0,b,,,,\n")
    more = {"queries": str(root / "queries"), "table": str(root / "table.csv"), "batch_size": 2}
    return {"root": str(root / "gallery"), **more}


def holidays(root):
    pictures(root, ["100000", "100001", "100002", "100100", "100101"])
    return {"root": str(root), "batch_size": 2}


def instre(root):
    names = [f"INSTRE-S1/01a_book/{n:03}" for n in range(4)] + [f"INSTRE-M/01/{n:03}" for n in range(3)]
    pictures(root, names)
    gnd = np.zeros(2, dtype=[("ok", object), ("bbx", object)])
    gnd[0] = (np.array([[1, 2, 5]], np.uint16), np.array([[1, 1, 6, 6]], float))
    gnd[1] = (np.array([[4]], np.uint8), np.array([[6, 2, 12, 8]], float))
    files = [f"{name}.jpg" for name in names]
    lists = {key: np.array(value, object)[None] for key, value in (("imlist", files[2:]), ("qimlist", files[:2]))}
    savemat(root / "gnd_instre.mat", {**lists, "gnd": gnd[None]})
    return {"root": str(root), "batch_size": 2}


def label_maps(root):
    write_tree(root, {"train": 6, "val": 3})
    return {"root": str(root), "classes": CLASSES, **SEGMENTATION}


def oxford(root):
    return {"root": real("oxford5k_allsouls"), "longest_side": 48, "batch_size": 8}


def paris(root):
    names = [f"paris_louvre_{n:06}" for n in range(5)]
    pictures(root / "louvre", names)
    groups(root / "lab", "louvre_1", names[0], (0, 0, 15, 15), good=names[1:3], ok=names[3:4])
    return {"root": str(root), "batch_size": 2}


def pascal_context(root):
    return {**_voc(root, "SegmentationClassContext", "SegmentationContext"), **SEGMENTATION}


def voc(root):
    return {**_voc(root, "SegmentationClass", "Segmentation"), **SEGMENTATION}


def _voc(root, labels, lists):
    for part in ("JPEGImages", labels, f"ImageSets/{lists}"):
        (root / part).mkdir(parents=True)
    for split, count in (("train", 6), ("val", 3)):
        names = [f"2008_{split}{number}" for number in range(count)]
        for number, name in enumerate(names):
            ids, picture = scene(number)
            Image.fromarray(picture).save(root / "JPEGImages" / f"{name}.jpg")
            Image.fromarray(ids).save(root / labels / f"{name}.png")
        (root / "ImageSets" / lists / f"{split}.txt").write_text("\n".join(names))
    return {"root": str(root)}


def revisited(root):
    names = [f"radcliffe_camera_{n:06}" for n in range(7)]
    pictures(root / "jpg", names)
    entry = {"bbx": np.array([0.0, 0, 6, 6]), "easy": np.array([0, 1]), "hard": np.array([2]), "junk": np.array([3])}
    content = {"imlist": names[2:], "qimlist": names[:2], "gnd": [entry, {**entry, "easy": np.array([4])}]}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    return {"root": str(root), "batch_size": 2}


def simulated_city(root):
    sizes = {"train_count": 1, "val_count": 1, "database": 60, "queries": 30, "dimension": 512}
    return {"root": str(root), **sizes, "batch_size": 4}


def sort_of_clevr(root):
    sizes = {"train_size": 24, "val_size": 6, "test_size": 4, "gallery_size": 10}
    return {"root": str(root), **sizes, "batch_size": 4, "truth": ["soft/authors"]}


def street_level(root):
    world = World(seed=3, dimension=90)
    for seed, (name, sizes) in enumerate({"a": (60, 20), "b": (50, 20)}.items()):
        city = simulate_city(world=world, seed=seed, database=sizes[0], queries=sizes[1])
        write_msls(root, name, city)
        sides = (city.database, city.query)
        vectors = np.concatenate([side.descriptors for side in sides])
        np.savez(root / f"{name}.npz", vectors=vectors, ids=np.array([key for side in sides for key in side.keys]))
    where = {"root": str(root), "descriptors": f"{root}/{{city}}.npz", "cache": str(root / "cache")}
    return {**where, "train_cities": ["a"], "val_cities": ["b"], "batch_size": 4}


TREES = {
    made.__name__: made
    for made in (
        camvid, clevr, cut_paste, folder, holidays, instre, label_maps, oxford, paris, pascal_context, revisited,
        simulated_city, sort_of_clevr, street_level, voc,
    )
}  # fmt: skip
