"""Scenes: CLEVR's files read one scene at a time, and files of every form read as one set of graphs with words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import BadFile

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
    objects are named by id or, counted from 0, by place; name, ids and relations may be left out. CLEVR's scenes may
    lack coordinates, and one of right and left, of front and behind. Scenes are read one at a time.
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
    for number, scene in enumerate(iter_scenes(path) if form == "scenes" else _one_scene(path)):
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


def iter_items(path: Path, key: str) -> Iterator[Any]:
    """Yields the entries of the list under a top-level key of a JSON file, holding one at a time.

    Raises OSError where the file can't be opened, BadFile where it is damaged or truncated.
    """
    import ijson

    number = -1
    with path.open("rb") as file:
        try:
            for item in ijson.items(file, f"{key}.item", use_float=True):
                number += 1
                yield item
        except (ijson.JSONError, UnicodeDecodeError) as error:
            where = f"after entry {number}" if number >= 0 else "before the first entry"
            raise BadFile(f"{path}: damaged or truncated {where} of {key!r} ({_first_line(error)})") from error


def _form(path: Path) -> str:
    """Tells scenes, one scene and COCO apart by the first top-level key that decides."""
    import ijson

    forms = {"scenes": "scenes", "objects": "scene", "relations": "scene", "annotations": "coco", "images": "coco"}
    forms["relationships"] = "scene"
    with path.open("rb") as file:
        try:
            for prefix, event, value in ijson.parse(file):
                if prefix == "" and event == "map_key" and value in forms:
                    return forms[value]
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise BadFile(f"{path}: no JSON, or damaged ({_first_line(error)})") from error
    raise BadFile(f"{path}: must hold {_FORMS}")


def _one_scene(path: Path) -> Iterator[dict[str, Any]]:
    import ijson

    with path.open("rb") as file:
        try:
            yield from ijson.items(file, "", use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise BadFile(f"{path}: damaged or truncated ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(error)
    return text.strip().splitlines()[0][:120] if text.strip() else type(error).__name__
