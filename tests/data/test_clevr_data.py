from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from zoo.data.clevr import Clevr

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))
SETS = {
    "clevr_real267": ("images", "scenes/CLEVR_train_scenes_1000.json", 267, (320, 480)),
    "clevr_mini": ("images/val", "scenes/CLEVR_val_scenes.json", 400, (240, 320)),
}


def thing(color: str, shape: str = "cube", material: str = "metal", size: str = "small") -> dict[str, str]:
    return {"color": color, "shape": shape, "material": material, "size": size}


def scene(number: int, *objects: dict[str, str]) -> dict[str, Any]:
    right = [list(range(i + 1, len(objects))) for i in range(len(objects))]
    relationships = {"right": right, "front": right, "left": [], "behind": []}
    return {"image_filename": f"CLEVR_{number}.png", "objects": list(objects), "relationships": relationships}


def clevr(root: Path, scenes: Any, **changed: Any) -> Clevr:
    scenes = scenes if isinstance(scenes, list) else str(scenes)
    return Clevr(
        **{"root": str(root), "scenes": scenes, "image_size": 20, "batch_size": 2, "num_workers": 0, **changed}
    )


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """Scenes 0 … 3; images of 3 (.jpg), 0 (.png) and 1 (.png with an alpha channel, and .jpg), none of 2."""
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "CLEVR_0.png")
    Image.new("RGBA", (40, 30), (10, 20, 30, 255)).save(images / "CLEVR_1.png")
    Image.new("RGB", (40, 30), (200, 0, 0)).save(images / "CLEVR_1.jpg")
    Image.new("RGB", (40, 30), (0, 0, 255)).save(images / "CLEVR_3.jpg")
    (images / "notes.txt").write_text("no image")
    objects = [thing("red"), thing("red", "sphere", "rubber", "large"), thing("cyan", "cylinder")]
    file = tmp_path / "scenes.json"
    file.write_text(json.dumps({"info": {}, "scenes": [scene(n, *objects[: n + 1]) for n in range(3)] + [scene(3)]}))
    return images, file


def test_scenes_without_an_image_are_left_out_and_order_is_the_files(small):
    data = clevr(*small)
    data.prepare_data()
    data.setup()
    assert data.ids("gallery") == ["CLEVR_0", "CLEVR_1", "CLEVR_3"]
    assert data.size("gallery") == 3
    assert (data.gallery_split, data.question_types) == ("gallery", ())
    graphs = data.scene_graphs("gallery")
    assert graphs.sizes.tolist() == [1, 2, 0]
    assert graphs[1].edges.tolist() == [[0, 1, 0], [0, 1, 1]]
    compositions = data.compositions("gallery")
    assert (compositions.shape, compositions.dtype) == ((3, 15), np.float32)
    # gray red blue green brown purple cyan yellow | cube sphere cylinder | rubber metal | small large
    assert compositions[1].tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1]
    assert compositions[2].sum() == 0


def test_images_are_resized_rgb_in_0_to_1_and_png_comes_before_jpg(small):
    data = clevr(*small)
    data.setup()
    batches = list(data.test_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2]]
    images = torch.cat([batch.images for batch in batches])
    assert (images.shape, images.dtype) == ((3, 3, 20, 20), torch.float32)
    assert images.is_contiguous()
    assert batches[0].questions is batches[0].answers is batches[0].question_types is None
    torch.testing.assert_close(images[1, :, 0, 0] * 255, torch.tensor([10.0, 20.0, 30.0]))
    assert images[2, 2].min() > 0.98
    picture = data.picture("gallery", 0)
    assert (picture.shape, picture.dtype) == ((30, 40, 3), np.uint8)
    whole = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    smooth = F.interpolate(whole, (20, 20), mode="bilinear", antialias=True, align_corners=False)
    assert (images[:1] - smooth).abs().max() < 1.01 / 255


def test_several_scenes_files_are_read_one_after_another(small, tmp_path):
    images, file = small
    content = json.loads(file.read_text())["scenes"]
    parts = [tmp_path / "a.json", tmp_path / "b.json"]
    for part, scenes in zip(parts, (content[2:], content[:2]), strict=True):
        part.write_text(json.dumps({"scenes": scenes}))
    data = clevr(images, [str(part) for part in parts])
    data.setup()
    assert data.ids("gallery") == ["CLEVR_3", "CLEVR_0", "CLEVR_1"]
    with pytest.raises(ValueError, match="scenes must describe every image once, got CLEVR_0 twice"):
        clevr(images, [str(file), str(parts[1])]).setup()


def test_missing_and_damaged_files_name_themselves(small, tmp_path):
    images, file = small
    with pytest.raises(FileNotFoundError, match=r"root must .*nowhere.* set data\.root"):
        clevr(tmp_path / "nowhere", file).setup()
    with pytest.raises(FileNotFoundError, match=r"scenes must .*missing\.json.* set data\.scenes"):
        clevr(images, tmp_path / "missing.json").setup()
    cut = tmp_path / "cut.json"
    cut.write_text(file.read_text()[:-30])
    with pytest.raises(ValueError, match=r"cut\.json is damaged or truncated .*fetch it again"):
        clevr(images, cut).setup()
    for content in ([1, 2], {"questions": []}, {"scenes": [{"objects": []}]}):
        cut.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"cut\.json must hold"):
            clevr(images, cut).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="root must hold an image of at least one scene, got 0 images"):
        clevr(tmp_path / "empty", file).setup()
    (images / "CLEVR_0.png").write_bytes((images / "CLEVR_0.png").read_bytes()[:200])
    broken = clevr(images, file)
    broken.setup()
    with pytest.raises(ValueError, match=r"CLEVR_0\.png can't be read"):
        next(iter(broken.loader("gallery")))


def test_what_is_not_there_yet_or_not_valid_is_refused(small):
    images, file = small
    data = clevr(images, file)
    with pytest.raises(RuntimeError, match="setup"):
        data.loader("gallery")
    data.setup()
    for split, loader in (("train", data.train_dataloader), ("val", data.val_dataloader)):
        with pytest.raises(NotImplementedError, match=f"no {split} loader yet"):
            loader()
    with pytest.raises(ValueError, match="split must be one of gallery, got 'val'"):
        data.loader("val")
    for changed in ({"image_size": 0}, {"batch_size": 0}, {"num_workers": -1}, {"scenes": []}):
        with pytest.raises(ValueError, match=f"{next(iter(changed))} must"):
            clevr(**{"root": images, "scenes": file, **changed})


@pytest.mark.parametrize("name", SETS)
def test_real_sets_are_read_whole(name):
    folder, scenes, size, shape = SETS[name]
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent (set ZOO_DATA)")
    data = clevr(REAL / name / folder, REAL / name / scenes, image_size=75, batch_size=size)
    data.setup()
    assert data.size("gallery") == len(set(data.ids("gallery"))) == size
    assert data.picture("gallery", 0).shape == (*shape, 3)
    graphs, compositions = data.scene_graphs("gallery"), data.compositions("gallery")
    assert (graphs.sizes.min(), graphs.sizes.max()) == (3, 10)
    for start in (0, 8, 11, 13):
        stop = {0: 8, 8: 11, 11: 13, 13: 15}[start]
        assert (compositions[:, start:stop].sum(axis=1) == graphs.sizes).all()
    # Exactly one of right and left, and one of front and behind, holds for a pair.
    assert all(len(graph.edges) == len(graph) * (len(graph) - 1) for graph in graphs)
    batch = data.dataset("gallery").__getitems__([0, size - 1])
    assert batch.images.shape == (2, 3, 75, 75)
    assert 0.3 < batch.images.mean() < 0.6
