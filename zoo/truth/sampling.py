"""Random scene graphs with CLEVR's statistics: large sets for tests and benchmarks, without a picture."""

from __future__ import annotations

import numpy as np

from zoo.truth.graphs import PackedGraphs
from zoo.truth.scenes import CLEVR_VOCABULARY, FRONT, RIGHT

# CLEVR's generator (facebookresearch/clevr-dataset-gen), lengths in Blender units.
_FEWEST, _MOST = 3, 10
_HALF_SIDE = 3.0  # objects stand in a square of side 6
_RADII = np.array([0.35, 0.7])  # small, large; the original means to shrink cubes and doesn't
_LEAST_GAP = 0.25  # between two objects
_MARGIN = 0.4  # least difference along right and along front, so that every pair is related
_CAMERA, _CAMERA_JITTER = np.array([7.48, -6.51]), 0.5
_TRIES = 50  # positions for one object before the whole scene is drawn again
_BATCH = 4_096


def sample_clevr_graphs(graphs: int, seed: int) -> PackedGraphs:
    """Draws the graphs of `graphs` scenes by the rules of CLEVR's generator (Johnson et al. 2017).

    The number of objects (3 to 10), colours, shapes and materials are uniform. Sizes and positions (in a square, apart
    from one another and apart along both axes of the camera, whose place is jittered) are drawn until they fit, so
    large objects are rarer than small ones, the more so the fuller a scene. Attributes and relations are those of
    `clevr_graph`.
    The generator also rejects scenes in which an object is hidden, which needs a picture and isn't done here.
    Raises ValueError for fewer than one graph.
    """
    if graphs < 1:
        raise ValueError(f"graphs must be at least 1, got {graphs}")
    rng = np.random.default_rng(seed)
    drawn = (_draw(rng, min(_BATCH, graphs - start)) for start in range(0, graphs, _BATCH))
    return PackedGraphs.concatenate([PackedGraphs.from_padded(*columns, (RIGHT, FRONT)) for columns in drawn])


def _draw(rng: np.random.Generator, scenes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attributes (G, O, A), adjacency (G, R, O, O) and number of objects (G,), padded to `_MOST` objects."""
    count = rng.integers(_FEWEST, _MOST + 1, scenes)
    camera = _CAMERA + _CAMERA_JITTER * rng.uniform(-1, 1, (scenes, 2))
    front = camera / np.linalg.norm(camera, axis=1, keepdims=True)
    axes = np.stack([np.stack([-front[:, 1], front[:, 0]], axis=1), front], axis=1)  # (G, 2, 2): right, front
    sizes, seen = np.zeros((scenes, _MOST), np.int64), np.zeros((scenes, _MOST, 2))
    open_scenes = np.arange(scenes)
    while open_scenes.size:
        sizes[open_scenes], seen[open_scenes], done = _place(rng, count[open_scenes], axes[open_scenes])
        open_scenes = open_scenes[~done]
    attributes = np.stack([rng.integers(0, len(words), (scenes, _MOST)) for words in CLEVR_VOCABULARY.values()], axis=2)
    attributes[:, :, list(CLEVR_VOCABULARY).index("size")] = sizes
    along = seen.transpose(0, 2, 1)
    return attributes, along[:, :, :, None] < along[:, :, None, :], count


def _place(rng: np.random.Generator, count: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes (G, O), positions along right and front (G, O, 2), and whether every object found a place (G,)."""
    scenes = len(count)
    sizes, seen = rng.integers(0, 2, (scenes, _MOST)), np.full((scenes, _MOST, 2), np.inf)
    done = np.ones(scenes, bool)
    for number in range(_MOST):
        waiting = np.flatnonzero(done & (number < count))
        for _ in range(_TRIES):
            spot = rng.uniform(-_HALF_SIDE, _HALF_SIDE, (len(waiting), 2))
            along = np.einsum("gac,gc->ga", axes[waiting], spot)
            gaps = np.abs(along[:, None] - seen[waiting, :number])
            touching = _RADII[sizes[waiting, :number]] + _RADII[sizes[waiting, number, None]] + _LEAST_GAP
            free = ((gaps >= _MARGIN).all(axis=2) & (np.hypot(*gaps.transpose(2, 0, 1)) >= touching)).all(axis=1)
            seen[waiting[free], number] = along[free]
            waiting = waiting[~free]
            if not waiting.size:
                break
        done[waiting] = False
    return sizes, seen, done
