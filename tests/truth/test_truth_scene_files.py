"""Scene graphs read from files: CLEVR's form, our own, and queries in the gallery's words."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from itertools import islice

import pytest

from zoo.files import BadFile
from zoo.truth import PackedGraphs, clevr_graph, edit_distances, iter_scenes, read_scenes
from zoo.truth.scene_words import CLEVR_WORDS

ITEM = {"color": "red", "shape": "cube", "material": "metal", "size": "large"}
OTHER = {**ITEM, "color": "blue"}
OWN = {
    "name": "pair",
    "objects": [{"id": "a", **ITEM}, {"id": "b", **OTHER}],
    "relations": [["a", "left", "b"], ["b", "behind", "a"]],
}
CLEVR = {
    "image_filename": "CLEVR_x_000000.png",
    "objects": [ITEM, OTHER],
    "relationships": {"right": [[1], []], "left": [[], [0]], "front": [[], [0]], "behind": [[1], []]},
}


@pytest.fixture
def written(tmp_path):
    def write(content, name="scenes.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_real_files_give_the_graphs_of_their_scenes(clevr_scenes, written):
    found = read_scenes(written({"info": {}, "scenes": clevr_scenes}))
    expected = PackedGraphs.from_graphs([clevr_graph(scene) for scene in clevr_scenes])
    assert found.graphs.fingerprint == expected.fingerprint
    assert found.names[:2] == ("CLEVR_val_000000", "CLEVR_val_000001")
    assert found.vocabulary == CLEVR_WORDS


def test_both_forms_mean_the_same(written):
    own, clevr = read_scenes(written(OWN), CLEVR_WORDS), read_scenes(written({"scenes": [CLEVR]}, "clevr.json"))
    assert own.graphs.fingerprint == clevr.graphs.fingerprint
    assert own.names == ("pair",)
    assert own.graphs[0].edges.tolist() == [[0, 1, 0], [1, 0, 1]]  # 1 is right of 0, 0 is in front of 1


@pytest.mark.parametrize("missing", [("left", "behind"), ("right", "front"), ("right", "behind"), ("left", "front")])
def test_left_and_behind_fill_in(written, missing):
    scene = copy.deepcopy(CLEVR)
    for word in missing:
        del scene["relationships"][word]
    whole = read_scenes(written({"scenes": [CLEVR]}))
    assert read_scenes(written(scene, "some.json")).graphs.fingerprint == whole.graphs.fingerprint


def test_words_of_a_gallery_are_collected(written):
    scenes = [
        {"objects": [{"kind": "cup"}, {"kind": "plate"}], "relations": [[0, "above", 1], [0, "on", 1]]},
        {"name": "two", "objects": [{"kind": "cup"}, {"kind": "spoon"}], "relations": [[0, "overlap", 1]]},
    ]
    found = read_scenes(written({"scenes": scenes}))
    assert found.names == ("scene_0", "two")
    assert found.vocabulary.attributes == {"kind": ("cup", "plate", "spoon")}
    assert (found.vocabulary.relations, found.graphs.antisymmetric) == (("below", "on", "overlap"), (0,))
    assert found.graphs[0].edges.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert found.graphs[1].edges.tolist() == [[0, 1, 2], [1, 0, 2]]
    assert found.vocabulary.describe([2]) == "spoon"


def without(scene, *keys, **changes):
    return {key: value for key, value in {**copy.deepcopy(scene), **changes}.items() if key not in keys}


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (without(OWN, objects=[{**ITEM, "color": "rad"}]), "object 0: color 'rad', .* Did you mean 'red'?"),
        (without(OWN, objects=[{**ITEM, "colour": "red"}]), "object 0 has the key 'colour'.* Did you mean 'color'?"),
        (without(OWN, "relations", relatons=[]), "a scene has the key 'relatons'.* Did you mean 'relations'?"),
        (without(OWN, relations=[["a", "rigth", "b"]]), "relation 'rigth', .* Did you mean 'right'?"),
        (without(OWN, relations=[["a", "right", "c"]]), "name objects by ids a, b, got 'c'"),
        (without(OWN, relations=[["a", "right", 2]]), "name objects by ids a, b, got 2"),
        (without(OWN, relations=[["a", "right", "a"]]), "must join two objects"),
        (without(OWN, relations=[["a", "right"]]), "must read .object, .right., object., got"),
        (without(OWN, relations=[["a", "right", "b"], ["b", "right", "a"]]), "can't each be 'right' of the other"),
        (without(OWN, relations=[["a", "right", "b"], ["a", "left", "b"]]), "objects 0 and 1 can't each be 'right'"),
        (without(OWN, objects=[{"id": "a", **ITEM}, {"id": "a", **ITEM}]), "objects must have different ids"),
        (without(OWN, objects=[{**ITEM, "color": 3}], relations=[]), "object 0: color must be a word, got 3"),
        (without(OWN, objects=[{"color": "red"}], relations=[]), "must have 'shape'; only a query of method 'part'"),
        (without(OWN, objects=["none"]), 'must have a list "objects"'),
        (without(OWN, objects=[ITEM] * 65, relations=[]), "at most 64 objects, got 65"),
        (without(OWN, name=7), "its name must be a word, got 7"),
        (without(CLEVR, relationships={"right": [[1], []]}), "must have 'front' or 'behind', got .'right'."),
        (
            without(CLEVR, relationships={**CLEVR["relationships"], "left": [[], []]}),
            "'right' and 'left' contradict each other",
        ),
        (without(CLEVR, relationships={"right": [[1]], "front": [[], []]}), "a list for each of the 2 objects"),
        (without(CLEVR, relationships={"right": [[2], []], "front": [[], []]}), "of object 0 must name other objects"),
        (without(CLEVR, relationships={"right": [[1], [0]], "front": [[], []]}), "can't each be 'right'"),
        (without(CLEVR, relationships={**CLEVR["relationships"], "abov": []}), "relation 'abov'"),
        (without(CLEVR, relationships=[]), "must hold a list for each relation"),
        (
            without(OWN, objects=[{"id": [1], **ITEM}, OTHER], relations=[]),
            "object 0: its id must be a word or a whole",
        ),
        (without(OWN, objects=[{"id": 5, **ITEM}, OTHER], relations=[[5, "left", 1]]), "name objects by ids 5, got 1"),
        (without(OWN, objects=[{"id": 5, **ITEM}, OTHER], relations=[[True, "left", 5]]), "by ids 5, got True"),
    ],
)
def test_what_breaks_the_form_is_refused_by_name(written, scene, message):
    with pytest.raises(BadFile, match=f"scenes.json: scene 1: .*{message}"):
        read_scenes(written({"scenes": [without(OWN, name="first"), scene]}), CLEVR_WORDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no JSON, or damaged"),
        ("[1, 2]", "must hold scenes"),
        ('{"info": {}}', "must hold scenes"),
        ('{"scenes": []}', "holds no scenes"),
        ('{"scenes": [3]}', 'scene 0 must be an object with a list "objects"'),
        ('{"scenes": [{"objects": []}, {"obj', "damaged or truncated after entry 0 of 'scenes'"),
        ('{"objects": [{"kind": "cup"}], "rel', "damaged or truncated"),
        ('{"scenes": [{"objects": [{"kind": "\udcff"}]}]}', "scenes.json"),
    ],
)
def test_damaged_and_foreign_files_name_themselves(tmp_path, content, message):
    path = tmp_path / "scenes.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadFile, match=message):
        read_scenes(path)


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_scenes(tmp_path / "none.json")


def test_names_must_differ(written):
    with pytest.raises(BadFile, match="scene 1: names must be unique, got 'pair' twice"):
        read_scenes(written({"scenes": [OWN, OWN]}))


def test_a_partial_query_finds_the_scenes_that_hold_it(written, clevr_scenes):
    gallery = read_scenes(written({"scenes": clevr_scenes[:100]}))
    query = {"objects": [{"shape": "cube"}, {"shape": "sphere", "color": "red"}], "relations": [[0, "left", 1]]}
    some = read_scenes(written(query, "query.json"), gallery.vocabulary, partial=True)
    assert some.graphs.attributes.tolist() == [[-1, 0, -1, -1], [1, 1, -1, -1]]
    found = edit_distances(some.graphs, gallery.graphs, method="part")[0]
    for scene, cost in zip(clevr_scenes, found, strict=False):
        objects = scene["objects"]
        cubes = {i for i, item in enumerate(objects) if item["shape"] == "cube"}
        reds = [i for i, item in enumerate(objects) if item["shape"] == "sphere" and item["color"] == "red"]
        assert (cost == 0) == any(cubes & set(scene["relationships"]["left"][i]) for i in reds)
    assert 0 < (found == 0).sum() < 100


def test_scenes_are_read_one_at_a_time(tmp_path, clevr_scenes):
    """A file of 60 MB is read within a third of that."""
    path = tmp_path / "many.json"
    entry = json.dumps({**clevr_scenes[0], "padding": "x" * 20_000})
    with path.open("w") as file:
        file.write('{"info": {}, "scenes": [')
        file.write(",".join([entry] * 2_500))
        file.write("]}")
    script = (
        "import resource, sys; from pathlib import Path; import ijson; from zoo.truth import iter_scenes\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(1 for _ in iter_scenes(Path(sys.argv[1]))))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    words = [sys.executable, "-c", script, str(path)]
    count, grown = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert count == 2_500
    assert grown * 1024 < path.stat().st_size / 3


def test_scenes_before_the_damage_are_yielded(written, clevr_scenes):
    text = json.dumps({"scenes": clevr_scenes[:20]})
    scenes = iter_scenes(written(text[: -len(json.dumps(clevr_scenes[19])) // 2]))
    assert list(islice(scenes, 19)) == clevr_scenes[:19]
    with pytest.raises(BadFile, match=r"scenes\.json: damaged or truncated after entry 18"):
        next(scenes)


CUP = {"kind": "cup"}


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([{"objects": [CUP, CUP], "relations": [[0, f"r{i}", 1] for i in range(9)]}], "'r8' .* at most 8 relations"),
        ([{"objects": [CUP, CUP], "relations": [[0, "", 1]]}], "a relation must be named by a word, got ''"),
        ([{"objects": [CUP, CUP], "relations": [[0, ["on"], 1]]}], "a relation must be named by a word, got .'on'."),
        ([{"objects": [CUP]}, {**CLEVR, "objects": [CUP, CUP]}], 'scene 1: has "relationships", as CLEVR'),
    ],
)
def test_a_collected_vocabulary_says_what_it_cannot_take(written, scenes, message):
    with pytest.raises(BadFile, match=message):
        read_scenes(written({"scenes": scenes}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"objects": [{"kind": "cup"}], "objects": []}',
            "json: a key may occur once in an object, got 'objects' twice",
        ),
        (
            '{"scenes": [{"objects": []}, {"objects": [{"kind": "cup", "kind": "mug"}]}]}',
            "a key may occur once in an object of 'scenes', got 'kind' twice",
        ),
        ('{"objects": [{"kind": "cup"}], "relations": ' + "[" * 200_000, "nested at most 100 deep"),
        ('{"scenes": [{"objects": ' + '[{"a": ' * 100_000, "nested at most 100 deep"),
        ("[" * 3_000_000, "nested at most 100 deep"),
    ],
)
def test_repeated_keys_and_absurd_nesting_are_refused(tmp_path, text, message):
    path = tmp_path / "scenes.json"
    path.write_text(text)
    with pytest.raises(BadFile, match=message):
        read_scenes(path)


def test_brackets_in_words_nest_nothing(written):
    """At every place of the pieces in which the file is read, with escapes."""
    word = '[{"\\' * 101
    for shift in range(8):
        scenes = [{"name": "x" * (65_536 - 700 + shift * 5), "objects": [{"kind": word}, {"kind": "]}" * 300}]}]
        scenes.append({"objects": [{"kind": word}]})
        found = read_scenes(written({"scenes": scenes}))
        assert found.vocabulary.attributes == {"kind": (word, "]}" * 300)}


@pytest.mark.parametrize(
    "rows", [[[1]], [[1], [], []], [[1.0], []], [[1], 0], [[2], []], [[0], []], [[1, 1], []], 7, None]
)
def test_both_readers_of_clevr_refuse_the_same_lists(written, rows):
    scene = {**CLEVR, "relationships": {"right": rows, "front": [[], [0]]}}
    with pytest.raises(ValueError, match=r"relationships 'right' .*(other|of the 2) objects"):
        clevr_graph(scene)
    with pytest.raises(BadFile, match="scene 0: relationships 'right'"):
        read_scenes(written({"scenes": [scene]}))
