"""The generator, checked on what it draws: scenes are read back from pixels and questions answered from those."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import chi2_contingency, chisquare

from zoo.data._generator import Recipe, generate, generate_chunks
from zoo.data._scenes import SCENE_DRAWS, has_room, place, uniforms

RGB = {
    (255, 0, 0): "red",
    (0, 255, 0): "green",
    (0, 0, 255): "blue",
    (255, 156, 0): "orange",
    (128, 128, 128): "grey",
    (255, 255, 0): "yellow",
}
COLOURS = list(RGB.values())
ANSWERS = ["yes", "no", "rectangle", "circle", "1", "2", "3", "4", "5", "6"]
TYPES = ["shape", "left", "up", "nearest", "farthest", "count"]
ONE_TO_SIX = Recipe(seed=3, low=1, high=6, image_size=75, object_size=5, questions=10)


def read_picture(image: np.ndarray) -> list[tuple[str, str, int, int]]:
    """Colour, shape, x and y of every blob of an image (3, H, W), in the order of the colours."""
    drawn = (image != 255).any(axis=0)
    blobs, number = ndimage.label(drawn, structure=np.ones((3, 3)))
    found = []
    for blob in range(1, number + 1):
        rows, columns = np.nonzero(blobs == blob)
        colours = {tuple(int(v) for v in pixel) for pixel in image[:, rows, columns].T}
        assert len(colours) == 1, "two objects touch"
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert (height, width) == (11, 11)
        shape = {121: "rectangle", 81: "circle"}[len(rows)]
        found.append((RGB[colours.pop()], shape, int(columns.min()) + 5, int(rows.min()) + 5))
    return sorted(found, key=lambda item: COLOURS.index(item[0]))


def reply(scene: list[tuple[str, str, int, int]], colour: str, kind: str) -> str:
    """The answer to a question about a scene, in plain Python."""
    me = next(item for item in scene if item[0] == colour)
    if kind == "shape":
        return me[1]
    if kind in ("left", "up"):
        return "yes" if me[2 if kind == "left" else 3] < 37.5 else "no"
    if kind == "count":
        return str(sum(item[1] == me[1] for item in scene))
    others = [item for item in scene if item is not me]
    choose = min if kind == "nearest" else max
    return choose(others, key=lambda item: (item[2] - me[2]) ** 2 + (item[3] - me[3]) ** 2)[1]


@given(
    seed=st.integers(0, 2**63), start=st.integers(0, 2**40), objects=st.sampled_from([(1, 6), (6, 6), (1, 1), (2, 3)])
)
@settings(max_examples=50)
def test_pictures_hold_what_the_record_lists_and_questions_are_defined_and_right(seed, start, objects):
    records = generate(Recipe(seed, *objects, 75, 5, 10), "train", start, start + 8)
    for record in records:
        scene = read_picture(record["image"])
        count = record["count"]
        assert objects[0] <= count <= objects[1]
        assert len(scene) == count
        listed = zip(*(record[name][:count].tolist() for name in ("colour", "shape", "x", "y")), strict=True)
        assert scene == [(COLOURS[c], ["rectangle", "circle"][s], x, y) for c, s, x, y in listed]
        assert all((record[name][count:] == -1).all() for name in ("colour", "shape", "x", "y"))
        for bits, answer, kind in zip(record["questions"], record["answers"], record["question_types"], strict=True):
            colour, relational, subtype = (np.flatnonzero(part) for part in np.split(bits, [6, 8]))
            assert len(colour) == len(relational) == len(subtype) == 1
            assert kind == 3 * relational[0] + subtype[0]
            assert COLOURS[colour[0]] in [item[0] for item in scene]
            assert count > 1 or TYPES[kind] not in ("nearest", "farthest")
            assert ANSWERS[answer] == reply(scene, COLOURS[colour[0]], TYPES[kind])
        assert record["questions"][:, 6].tolist() == [1] * 10 + [0] * 10


def test_ties_take_the_first_object_and_an_object_is_never_its_own_neighbour():
    from zoo.data._questions import _all_answers

    pad = [-1] * 3
    scene = (
        np.array([3]),
        np.array([[0, 1, 2, *pad]]),
        np.array([[0, 1, 0, *pad]]),
        np.array([[40, 60, 20, *pad]]),
        np.array([[40, 40, 40, *pad]]),
    )
    answers = _all_answers(scene, 75)[0, :, :3]
    names = [[ANSWERS[code] for code in row] for row in answers]
    assert names[3] == ["circle", "rectangle", "rectangle"]  # object 0 is 20 px from both: the first, 1, is a circle
    assert names[4] == ["circle", "rectangle", "circle"]


def test_counts_shapes_colours_and_places_are_uniform():
    records = np.concatenate(list(generate_chunks(ONE_TO_SIX, "train", 12_000, 1)))
    exists = records["colour"] >= 0
    assert chisquare(np.bincount(records["count"], minlength=7)[1:]).pvalue > 1e-3
    assert chisquare(np.bincount(records["shape"][exists])).pvalue > 1e-3
    assert chisquare(np.bincount(records["colour"][exists], minlength=6)).pvalue > 1e-3
    pairs = Counter(tuple(row[:2]) for row in records["colour"][records["count"] == 2].tolist())
    assert len(pairs) == 15
    assert chisquare(list(pairs.values())).pvalue > 1e-3
    for axis in ("x", "y"):
        frequency = np.bincount(records[axis][:, 0], minlength=75)
        assert frequency[:5].sum() == frequency[70:].sum() == 0
        assert chisquare(frequency[5:70]).pvalue > 1e-3
    six = generate(Recipe(0, 6, 6, 75, 5, 1), "train", 0, 100)
    assert (six["colour"] == np.arange(6)).all()


def test_question_types_and_objects_are_drawn_uniformly_with_replacement():
    records = generate(Recipe(1, 2, 6, 75, 5, 10), "train", 0, 3_000)
    kinds = np.bincount(records["question_types"].ravel(), minlength=6)
    assert chisquare(kinds[:3]).pvalue > 1e-3
    assert chisquare(kinds[3:]).pvalue > 1e-3
    assert chisquare(records["questions"][..., :6].sum(axis=(0, 1))).pvalue > 1e-3
    assert any(len({tuple(row) for row in image.tolist()}) < 20 for image in records["questions"])
    single = generate(Recipe(1, 1, 1, 75, 5, 10), "train", 0, 50)["question_types"]
    assert (single[:, 10:] == 5).all()


def test_placement_has_the_distribution_of_drawing_again_until_nothing_collides():
    size, images, generator = 2, 30_000, np.random.default_rng(0)
    _, _, _, x, y = place(uniforms("test", 0, images, SCENE_DRAWS), 2, 2, 17, size)
    first, second = (generator.integers(size, 17 - size, (images, tries, 2)) for tries in (1, 60))
    apart = abs(first - second).max(axis=2) >= 2 * size + 2
    assert apart.any(axis=1).all()
    reference = np.stack([first[:, 0], second[np.arange(images), apart.argmax(axis=1)]], axis=1)
    for mine, theirs in ((x, reference[..., 0]), (y, reference[..., 1])):
        codes = [values[:, 0] * 17 + values[:, 1] for values in (mine, theirs)]
        table = np.stack([np.bincount(code, minlength=289) for code in codes])
        assert chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 1e-3


def test_an_image_is_the_same_alone_among_others_and_however_many_threads_make_them():
    whole = generate(ONE_TO_SIX, "test", 0, 1_000)
    assert generate(ONE_TO_SIX, "test", 0, 10)[7].tobytes() == whole[7].tobytes()
    assert generate(ONE_TO_SIX, "test", 7, 8)[0].tobytes() == whole[7].tobytes()
    for workers in (1, 3):
        assert np.concatenate(list(generate_chunks(ONE_TO_SIX, "test", 1_000, workers))).tobytes() == whole.tobytes()
    fewer = generate(Recipe(3, 1, 6, 75, 5, 2), "test", 7, 8)[0]
    assert fewer["image"].tobytes() == whole[7]["image"].tobytes()


def test_seeds_and_splits_share_nothing():
    six = Recipe(0, 6, 6, 75, 5, 1)
    images = [generate(six, split, 0, 500)["image"] for split in ("train", "val", "test", "gallery")]
    images.append(generate(Recipe(1, 6, 6, 75, 5, 1), "train", 0, 500)["image"])
    assert len({image.tobytes() for image in np.concatenate(images)}) == 2_500


def test_other_processes_and_versions_make_the_same_images():
    # A change of this value means that cached files are stale: raise _FORMAT in zoo/data/sort_of_clevr.py with it.
    golden = "934889fe3596a1d8"
    code = (
        "import hashlib; from zoo.data._generator import *;"
        "print(hashlib.sha256(generate(Recipe(3, 1, 6, 75, 5, 10), 'train', 90, 120).tobytes()).hexdigest()[:16])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == golden
    assert hashlib.sha256(generate(ONE_TO_SIX, "train", 90, 120).tobytes()).hexdigest()[:16] == golden


@pytest.mark.parametrize(("image_size", "object_size"), [(128, 8), (75, 3), (61, 4), (300, 5)])
def test_other_sizes_draw_whole_objects_apart(image_size, object_size):
    for record in generate(Recipe(0, 6, 6, image_size, object_size, 1), "train", 0, 20):
        drawn = (record["image"] != 255).any(axis=0)
        assert ndimage.label(drawn, structure=np.ones((3, 3)))[1] == 6
        square = (2 * object_size + 1) ** 2
        for c, rgb in enumerate(RGB):
            pixels = (record["image"] == np.array(rgb)[:, None, None]).all(axis=0).sum()
            assert pixels == square if record["shape"][c] == 0 else 0 < pixels < square


def test_room_is_refused_where_the_last_object_might_not_fit():
    assert has_room(6, 75, 5)
    assert not has_room(6, 61, 5)  # 51² centres, five objects may block up to 5 * 23² = 2645 of them
    assert not has_room(1, 10, 5)
    assert has_room(1, 11, 5)
