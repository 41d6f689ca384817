"""Scene graphs of a CLEVR scenes file of any size."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data._clevr_cache import cached_arrays
from zoo.files import BadFile
from zoo.truth import PackedGraphs, clevr_graph
from zoo.truth.readers.scenes import iter_scenes
from zoo.truth.scenes import CLEVR_VOCABULARY, FRONT, RIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT = 1  # to be raised with any change of what is kept of a scenes file
_SCENES_AT_ONCE = 1000  # that are held as objects while they are packed


def read_scenes(file: Path, cache: Path) -> tuple[list[str], PackedGraphs]:
    """Returns the names of a scenes file's images (stems of `image_filename`) and their scene graphs, in its order.

    Raises BadFile where the file is damaged, isn't a scenes file, or describes an image twice.
    """
    arrays = cached_arrays(cache, "scenes", file, {"format": _FORMAT}, lambda: _pack(file))
    names = arrays.pop("names").tolist()
    return names, PackedGraphs(**arrays, antisymmetric=(RIGHT, FRONT))


def compositions(graphs: PackedGraphs) -> np.ndarray:
    """Returns (N, 15) float32: how many objects have each colour (8), shape (3), material (2) and size (2)."""
    columns = [
        graphs.attributes[:, position, None] == np.arange(len(words))
        for position, words in enumerate(CLEVR_VOCABULARY.values())
    ]
    image = np.repeat(np.arange(len(graphs)), graphs.sizes)
    counts = np.zeros((len(graphs), sum(map(len, CLEVR_VOCABULARY.values()))), np.float32)
    np.add.at(counts, image, np.concatenate(columns, axis=1))
    return counts


def _pack(file: Path) -> dict[str, np.ndarray]:
    names: list[str] = []
    parts = []
    scenes = _shown(file)
    while chunk := list(islice(scenes, _SCENES_AT_ONCE)):
        names += [_name(file, scene, len(names) + number) for number, scene in enumerate(chunk)]
        parts.append(PackedGraphs.from_graphs([_graph(file, scene) for scene in chunk]))
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise BadFile(f"scenes must describe every image once, got {twice} twice in {file}")
    graphs = PackedGraphs.concatenate(parts)
    arrays = {"offsets": graphs.offsets, "attributes": graphs.attributes, "adjacency": graphs.adjacency}
    return {"names": np.array(names), **arrays}


def _shown(file: Path) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,} scenes"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(iter_scenes(file), description=f"reading {file.name}")


def _name(file: Path, scene: dict[str, Any], number: int) -> str:
    name = scene.get("image_filename")
    if not isinstance(name, str) or not name:
        raise BadFile(f"scenes file {file} must name the image_filename of every scene, scene {number} has {name!r}")
    return Path(name).stem


def _graph(file: Path, scene: dict[str, Any]) -> Any:
    try:
        return clevr_graph(scene)
    except (ValueError, TypeError, AttributeError) as error:  # the last two: something else where a list should be
        raise BadFile(f"scenes file {file}, {scene['image_filename']}: {error}") from error
