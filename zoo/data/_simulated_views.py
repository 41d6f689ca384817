"""What a camera of a simulated city sees, as a global descriptor: landmarks in its field of view, without any image.

A view is the sum of the landmarks that stand in its field of view. What is common to all cities (how types of buildings
look, what night, season and camera do to a descriptor) lives in subspaces of a `World`, so that a linear layer trained
on some cities can take it out in others; what makes places of one city look alike does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Iterator

RADIUS = 50.0  # m, of the field of view: that of the labels of Hanning 2024, sec. 3.1
ANGLE = math.radians(90)  # of the field of view
_BLOCK = 1024  # views computed at a time
_YEAR = 365.25 * 86_400_000  # ms
# Streams of random numbers: what is drawn later for one purpose leaves the others as they were.
BASIS, PROTOTYPES, STREETS, LANDMARKS, DATABASE, QUERIES, VIEWS, GRAIN = range(8)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How cities look and are driven through.

    The defaults are calibrated against the first rows of table 4.1 of Hanning 2024 (none, AQE, αQE, SuperGlobal, FC),
    for cities of 2,500 + 1,000 images. Strengths are relative to what landmarks tell, which has length 1.

    Streets: `block` m between junctions, `jitter` m by which a junction is off the grid at most, `thinning` the share
    of streets left out, `popularity` the standard deviation of the logarithm of how often a street is driven, each way
    for itself, `passes` of database sequences over a mean street, both ways together.

    Sequences: `frames` in the mean, `spacing` m between frames (least, most), `sideways` the share with a side-looking
    camera, `night` the share at night, `gps` m of noise of recorded positions (root mean square), `compass` ° of noise
    of recorded headings (standard deviation).

    Landmarks: `landmarks` a metre of street, `reach` m over which their weight falls by e, `turn` the share of a
    landmark's look that is reversed for the other direction of travel, `types` of buildings, `style` how evenly a
    street mixes them (a Dirichlet concentration: near 0 a single type), `repeats` the share of a landmark's look that
    it has from one of the city's `copies`, which stand all over it: no linear layer tells those apart.

    Descriptors: `content`, `shared`, `nuisance` are the dimensions of the subspaces of what is the place's own, of
    types of buildings and of appearance; `prototypes` is the strength of types of buildings, `appearance` of what the
    frames of a sequence have in common (light, season, camera), `darkness` of night relative to it, `decay` the power
    by which appearance falls off from direction to direction; `clutter` is the strength of what only this pass shows
    (traffic, weather), `memory` its correlation from frame to frame; `occluded` the share of stretches of frames in
    which a vehicle hides a part of the view, `grain` the length of white noise in all dimensions.
    """

    block: float = 90.0
    jitter: float = 14.0
    thinning: float = 0.15
    popularity: float = 1.3
    passes: float = 1.3
    frames: float = 20.0
    spacing: tuple[float, float] = (4.0, 10.0)
    sideways: float = 0.06
    night: float = 0.1
    gps: float = 2.0
    compass: float = 4.0
    landmarks: float = 0.25
    reach: float = 27.0
    turn: float = 0.1
    types: int = 60
    style: float = 0.45
    repeats: float = 0.4
    copies: int = 60
    content: int = 48
    shared: int = 24
    nuisance: int = 8
    prototypes: float = 0.8
    appearance: float = 0.6
    darkness: float = 1.0
    decay: float = 0.5
    clutter: float = 0.45
    memory: float = 0.3
    occluded: float = 0.3
    grain: float = 0.2

    def __post_init__(self) -> None:
        for name in ("thinning", "sideways", "night", "turn", "repeats", "memory", "occluded"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, got {getattr(self, name)}")
        for name in ("block", "passes", "frames", "reach", "style", "types", "copies", "content", "shared", "nuisance"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.spacing[0] <= self.spacing[1]:
            raise ValueError(f"spacing must be the least and the most metres between frames, got {self.spacing}")

    @property
    def latent(self) -> int:
        """Dimensions of the three subspaces together: the least dimension of a descriptor."""
        return self.content + self.shared + self.nuisance


@dataclass(frozen=True, kw_only=True)
class World:
    """What all cities share: descriptors of `dimension` numbers, the directions that matter in them, and the recipe.

    Raises ValueError for a dimension that cannot hold the recipe's subspaces.
    """

    seed: int
    dimension: int
    recipe: Recipe = Recipe()

    def __post_init__(self) -> None:
        if self.dimension < self.recipe.latent:
            raise ValueError(f"dimension must be at least {self.recipe.latent} for this recipe, got {self.dimension}")

    def random(self, stream: int, *more: int) -> np.random.Generator:
        """Returns the generator of a stream; `more` tells cities and blocks apart."""
        return np.random.default_rng([self.seed, stream, *more])

    @cached_property
    def basis(self) -> np.ndarray:
        """The orthonormal rows (latent, D) float32 that embed content, prototypes and nuisance, in this order."""
        square = self.random(BASIS).standard_normal((self.dimension, self.recipe.latent))
        return np.linalg.qr(square)[0].T.astype(np.float32)

    @cached_property
    def prototypes(self) -> np.ndarray:
        """The looks (types, shared) float32 of the types of buildings, of length 1."""
        looks = self.random(PROTOTYPES).standard_normal((self.recipe.types, self.recipe.shared))
        return (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)

    @cached_property
    def nuisances(self) -> np.ndarray:
        """The spread (nuisance,) float32 along each direction of the nuisance, of squares that sum to 1."""
        spread = np.arange(1, self.recipe.nuisance + 1) ** -self.recipe.decay
        return (spread / np.linalg.norm(spread)).astype(np.float32)


@dataclass(frozen=True)
class Landmarks:
    """Points along street fronts: (M, 2) m, direction (M, 2) of their street, and their looks.

    `same (M, content)` looks the same from both directions of travel, `turned (M, content)` changes its sign;
    `shared (M, shared)` is the look of their type of building.
    """

    places: np.ndarray
    directions: np.ndarray
    same: np.ndarray
    turned: np.ndarray
    shared: np.ndarray


@dataclass(frozen=True)
class Cameras:
    """Where n frames were taken: true poses (n, 3) in m, m and ° clockwise from north, sequence and frame (n,) int.

    `captured_at (n,)` int64 ms since the epoch, `night (n,)` and `sideways (n,)` bool.
    """

    poses: np.ndarray
    sequence: np.ndarray
    frame: np.ndarray
    captured_at: np.ndarray
    night: np.ndarray
    sideways: np.ndarray


def place_landmarks(world: World, rng: np.random.Generator, starts: np.ndarray, ends: np.ndarray) -> Landmarks:
    """Puts landmarks on both sides of the streets that go from `starts (S, 2)` to `ends (S, 2)` m."""
    recipe = world.recipe
    ways = ends - starts
    lengths = np.linalg.norm(ways, axis=1)
    counts = rng.poisson(recipe.landmarks * lengths)
    street = np.repeat(np.arange(len(starts)), counts)
    total = len(street)
    along = ways[street] / lengths[street, None]
    across = np.column_stack([-along[:, 1], along[:, 0]]) * rng.choice([-1.0, 1.0], total)[:, None]
    places = starts[street] + ways[street] * rng.random((total, 1)) + across * rng.uniform(8, 14, (total, 1))
    styles = rng.dirichlet(np.full(recipe.types, recipe.style), len(starts)).cumsum(axis=1)
    kinds = (rng.random((total, 1)) > styles[street]).sum(axis=1).clip(max=recipe.types - 1)
    copy = rng.integers(recipe.copies, size=total)
    looks = []
    for share in (1 - recipe.turn, recipe.turn):
        own, copies = (rng.standard_normal((count, recipe.content)) for count in (total, recipe.copies))
        look = math.sqrt(1 - recipe.repeats) * own + math.sqrt(recipe.repeats) * copies[copy]
        looks.append((look * math.sqrt(share / recipe.content)).astype(np.float32))
    return Landmarks(places, along, *looks, world.prototypes[kinds])


def describe(world: World, city: int, stream: int, landmarks: Landmarks, cameras: Cameras) -> np.ndarray:
    """Returns the L2-normalised descriptors (n, D) float32 of views; `stream` tells database and queries apart."""
    recipe = world.recipe
    rng = world.random(VIEWS, city, stream)
    nuisance = recipe.appearance * _appearance(world, rng, cameras)
    clutter = recipe.clutter * _clutter(recipe, rng, cameras)
    sectors = _occlusion(recipe, rng, cameras)
    tree = cKDTree(landmarks.places)
    found = np.empty((len(cameras.poses), world.dimension), np.float32)
    for rows in _blocks(len(found)):
        content, shared = _see(recipe, tree, landmarks, cameras.poses[rows], sectors[rows])
        latent = np.concatenate([content + clutter[rows], recipe.prototypes * shared, nuisance[rows]], axis=1)
        noise = world.random(GRAIN, city, stream, rows.start).standard_normal(
            (len(latent), world.dimension), np.float32
        )
        vectors = latent @ world.basis + noise * np.float32(recipe.grain / math.sqrt(world.dimension))
        found[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def _see(
    recipe: Recipe, tree: cKDTree, landmarks: Landmarks, poses: np.ndarray, sectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the content (B, content), of length 1 in the mean, and the mean prototype (B, shared) of views."""
    near = tree.query_ball_point(poses[:, :2], RADIUS, return_sorted=True)
    view = np.repeat(np.arange(len(poses)), [len(items) for items in near])
    item = np.concatenate([np.asarray(items, np.int64) for items in near])
    away = landmarks.places[item] - poses[view, :2]
    distance = np.hypot(away[:, 0], away[:, 1])
    bearing = np.arctan2(away[:, 0], away[:, 1]) - np.radians(poses[view, 2])
    bearing = (bearing + np.pi) % (2 * np.pi) - np.pi
    centre, half = sectors[view].T
    seen = (abs(bearing) < ANGLE / 2) & ~(abs(bearing - centre) < half)
    view, item, away, distance, bearing = view[seen], item[seen], away[seen], distance[seen], bearing[seen]
    # A landmark comes into view and leaves it gradually, so that descriptors change smoothly along a street.
    weight = np.exp(-distance / recipe.reach) * np.cos(bearing * np.pi / ANGLE) * (1 - (distance / RADIUS) ** 2)
    facing = (away * landmarks.directions[item]).sum(axis=1) / np.maximum(distance, 1e-6)
    shape = (len(poses), len(landmarks.places))
    weights = sparse.csr_array((weight.astype(np.float32), (view, item)), shape)
    turned = sparse.csr_array(((weight * facing).astype(np.float32), (view, item)), shape)
    length = np.sqrt(weights.multiply(weights).sum(axis=1))[:, None]
    total = weights.sum(axis=1)[:, None]
    content = weights @ landmarks.same + turned @ landmarks.turned
    tiny = np.float32(1e-6)
    return content / np.maximum(length, tiny), weights @ landmarks.shared / np.maximum(total, tiny)


def _appearance(world: World, rng: np.random.Generator, cameras: Cameras) -> np.ndarray:
    """Returns the appearance (n, nuisance) of each frame: what is drawn for its sequence, season and night."""
    recipe = world.recipe
    count = int(cameras.sequence.max()) + 1
    drawn = rng.standard_normal((count, recipe.nuisance)) * world.nuisances
    nuisance = drawn[cameras.sequence]
    phase = cameras.captured_at / _YEAR * 2 * np.pi
    for direction, added in enumerate((0.5 * np.cos(phase), 0.5 * np.sin(phase), recipe.darkness * cameras.night)):
        nuisance[:, direction % recipe.nuisance] += added  # few directions take several
    return nuisance.astype(np.float32)


def _clutter(recipe: Recipe, rng: np.random.Generator, cameras: Cameras) -> np.ndarray:
    """Returns what only this pass shows (n, content), of length 1 in the mean, correlated along sequences."""
    noise = rng.standard_normal((len(cameras.poses), recipe.content)) / math.sqrt(recipe.content)
    fresh = math.sqrt(1 - recipe.memory**2)
    for row in np.flatnonzero(cameras.frame > 0):
        noise[row] = recipe.memory * noise[row - 1] + fresh * noise[row]
    return noise.astype(np.float32)


def _occlusion(recipe: Recipe, rng: np.random.Generator, cameras: Cameras) -> np.ndarray:
    """Returns the sector (n, 2) that vehicles hide in each view: centre and half width in radians off the axis.

    A sector stays for a stretch of frames, 4 in the mean; where nothing is hidden its half width is 0.
    """
    begins = (cameras.frame == 0) | (rng.random(len(cameras.frame)) < 1 / 4)
    stretch = begins.cumsum() - 1
    count = int(stretch[-1]) + 1
    centre = rng.uniform(-ANGLE / 2, ANGLE / 2, count)
    half = np.radians(rng.uniform(5, 25, count)) * (rng.random(count) < recipe.occluded)
    return np.column_stack([centre, half])[stretch]


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(count, start + _BLOCK))
