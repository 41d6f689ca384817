"""CLEVR images and scene graphs (Johnson et al. 2017), read as a gallery to search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from torch.utils.data import DataLoader

from zoo.data._loading import SplitDataModule, check_integer
from zoo.data._pictures import ImageFiles, open_picture
from zoo.truth import PackedGraphs, clevr_graph
from zoo.truth.scenes import CLEVR_VOCABULARY

_SUFFIXES = (".png", ".jpg")


class Clevr(SplitDataModule):
    """CLEVR renders for evaluation: one split, gallery, of the scenes of which an image exists, in the files' order.

    `root` is the folder of the images, found by the stem of a scene's `image_filename` (.png or .jpg); `scenes` one
    scenes file of the CLEVR 1.0 layout or a list of them; `image_size` the side in pixels to which images are resized,
    regardless of their aspect. Raises ValueError for a value outside its range.
    """

    splits = ("gallery",)
    gallery_split = "gallery"
    question_types: tuple[str, ...] = ()

    def __init__(
        self, *, root: str, scenes: str | Sequence[str], image_size: int, batch_size: int, num_workers: int
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        check_integer("image_size", image_size, 1)
        files = [scenes] if isinstance(scenes, (str, Path)) else list(scenes)
        if not files:
            raise ValueError("scenes must name at least one scenes file, got an empty list")
        self.root, self.scene_files = Path(root).expanduser(), [Path(file).expanduser() for file in files]
        self.image_size = image_size
        self._scenes: list[dict[str, Any]] = []
        self._paths: list[Path] = []

    def setup(self, stage: str | None = None) -> None:
        """Reads the scenes files and pairs scenes with images.

        Raises FileNotFoundError for a missing file or folder, ValueError for a file that is no scenes file, a scene
        that appears twice, or where no scene has an image.
        """
        if self._paths:
            return
        images = _images(self.root)
        scenes = [scene for file in self.scene_files for scene in _read_scenes(file)]
        kept = [scene for scene in scenes if _stem(scene) in images]
        stems = [_stem(scene) for scene in kept]
        if not kept:
            raise ValueError(
                f"root must hold an image of at least one scene, got {len(images)} images in {self.root} and "
                f"{len(scenes)} scenes in {_join(self.scene_files)}, none of the same name; are they of the same split?"
            )
        if len(set(stems)) < len(stems):
            twice = next(stem for stem in stems if stems.count(stem) > 1)
            raise ValueError(f"scenes must describe every image once, got {twice} twice in {_join(self.scene_files)}")
        self._scenes, self._paths = kept, [images[stem] for stem in stems]

    def train_dataloader(self) -> NoReturn:
        """Raises NotImplementedError: questions aren't read yet, so there is nothing to train on."""
        _no_training("train")

    def val_dataloader(self) -> NoReturn:
        """Raises NotImplementedError, as `train_dataloader` does."""
        _no_training("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the gallery, in order."""
        return self.loader("gallery")

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self.dataset(split))

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's images (file names without suffix) in order."""
        return [path.stem for path in self.dataset(split).paths]

    def scene_graphs(self, split: str) -> PackedGraphs:
        """Returns the scene graphs of a split in order."""
        self.dataset(split)
        return PackedGraphs.from_graphs([clevr_graph(scene) for scene in self._scenes])

    def compositions(self, split: str) -> np.ndarray:
        """Returns (N, 15) float32: how many objects have each colour (8), shape (3), material (2) and size (2)."""
        graphs = self.scene_graphs(split)
        columns = [
            graphs.attributes[:, position, None] == np.arange(len(words))
            for position, words in enumerate(CLEVR_VOCABULARY.values())
        ]
        image = np.repeat(np.arange(len(graphs)), graphs.sizes)
        counts = np.zeros((len(graphs), sum(map(len, CLEVR_VOCABULARY.values()))), np.float32)
        np.add.at(counts, image, np.concatenate(columns, axis=1))
        return counts

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image at its own size as (H, W, 3) uint8 RGB."""
        return np.array(open_picture(self.dataset(split).paths[position], upright=False))

    def dataset(self, split: str) -> ImageFiles:
        """Returns the dataset of a split; raises ValueError for another name, RuntimeError before `setup`."""
        self.check_split(split)
        if not self._paths:
            raise RuntimeError(f"split {split!r} is not open: call setup() first")
        return ImageFiles(self._paths, self.image_size, upright=False)


def _images(root: Path) -> dict[str, Path]:
    """Returns the image files of a folder by stem, .png before .jpg."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"root must be the folder of the CLEVR images, got {root}, which doesn't exist: set data.root"
        )
    files = [path for path in sorted(root.iterdir()) if path.suffix.lower() in _SUFFIXES]
    return {path.stem: path for path in sorted(files, key=lambda path: path.suffix.lower() == ".png")}


def _read_scenes(file: Path) -> list[dict[str, Any]]:
    """Returns the scenes of a CLEVR scenes file."""
    if not file.is_file():
        raise FileNotFoundError(
            f"scenes must name CLEVR scenes files, got {file}, which doesn't exist: set data.scenes"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"scenes file {file} is damaged or truncated ({error}); fetch it again") from error
    scenes = content.get("scenes") if isinstance(content, dict) else None
    if not isinstance(scenes, list) or not all(isinstance(s, dict) and "image_filename" in s for s in scenes):
        raise ValueError(
            f'scenes file {file} must hold {{"scenes": [{{"image_filename": …}}, …]}}; is it a scenes file?'
        )
    return scenes


def _stem(scene: dict[str, Any]) -> str:
    return Path(scene["image_filename"]).stem


def _join(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))


def _no_training(split: str) -> NoReturn:
    raise NotImplementedError(
        f"data=clevr has no {split} loader yet: its questions aren't read; it serves evaluation (split gallery)"
    )


export = Clevr
