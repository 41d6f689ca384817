"""Scenes: CLEVR's files read one scene at a time, and files of every form read as one set of graphs with words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import BadFile
from zoo.truth.readers.streaming import iter_items, iter_keys, read_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoo.truth.scene_words import SceneSet, SceneVocabulary

_FORMS = (
    'scenes ({"scenes": [{"objects": […], …}, …]}, CLEVR\'s or our own), one scene ({"objects": […], '
    '"relations": […]}) or COCO ({"images": …, "annotations": …, "categories": …})'
)


def read_scenes(path: Path, vocabulary: SceneVocabulary | None = None, partial: bool = False) -> SceneSet:
    """Read the scene graphs of a file: CLEVR scenes, our own form, or COCO annotations.

    Our own form is a scene or {"scenes": [scene, …]}, a scene being {"name": "two things", "objects": [{"id": "a",
    "color": "red", "shape": "cube"}, …], "relations": [["a", "left", "b"], …]}: the triple reads "a is left of b";
    objects are named by id or, where none has one, by place, counted from 0; name, ids and relations may be left out.
    CLEVR's scenes may lack coordinates, and one of right and left, of front and behind. A file keeps to one form.
    Scenes are read one at a time.
    vocabulary: the gallery's, for a query; None takes CLEVR's for CLEVR's form, else the words as they appear.
    partial: objects may leave out attributes (`zoo.truth.scene_words.ANY`), for method "part".
    Raises OSError, or BadFile which names the file, the scene and the rule, for an unknown word with the nearest.
    """
    path = Path(path)
    form = _form(path)
    if form == "coco":
        from zoo.truth.readers.coco import read_coco

        return read_coco(path, vocabulary)
    from zoo.truth.scene_words import CLEVR_WORDS, SceneEncoder

    encoder = None
    for number, scene in enumerate(iter_scenes(path) if form == "scenes" else [read_whole(path)]):
        if encoder is None:
            words = CLEVR_WORDS if vocabulary is None and "relationships" in scene else vocabulary
            encoder = SceneEncoder(words, partial)
        try:
            encoder.add(scene)
        except ValueError as error:
            raise BadFile(f"{path}: scene {number}: {error}") from error
    return encoder.scene_set()


def iter_scenes(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the entries of `"scenes"`, in the file's order, without holding more than one of them.

    Raises OSError where the file can't be opened, and BadFile, which names it, where it is damaged or truncated (after
    the scenes before the damage) or isn't a scenes file: JSON `{"scenes": [{"objects": […], …}, …]}`.
    """
    number = -1
    for number, scene in enumerate(iter_items(path, "scenes")):
        if not isinstance(scene, dict) or not isinstance(scene.get("objects"), list):
            raise BadFile(f'{path}: scene {number} must be an object with a list "objects"; is it a scenes file?')
        yield scene
    if number < 0:
        raise BadFile(f'{path}: holds no scenes, which are listed as {{"scenes": [{{"objects": […]}}, …]}}')


def _form(path: Path) -> str:
    """Tells scenes, one scene and COCO apart by the first top-level key that decides."""
    forms = {"scenes": "scenes", "objects": "scene", "relations": "scene", "annotations": "coco", "images": "coco"}
    forms["relationships"] = "scene"
    for key, _ in iter_keys(path):
        if key in forms:
            return forms[key]
    raise BadFile(f"{path}: must hold {_FORMS}")
