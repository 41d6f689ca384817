from __future__ import annotations

import pytest

from zoo.classes import class_list, class_lists, hex_colour, palette
from zoo.files import BadFile

VOC = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 9: (192, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}


def test_the_packaged_lists_have_the_classes_of_their_data_sets():
    sizes = {name: len(class_list(name)) for name in class_lists()}
    assert sizes == {"camvid11": 11, "pascal_context60": 60, "pascal_context60_voc_first": 60, "voc21": 21}
    camvid, voc = class_list("camvid11"), class_list("voc21")
    assert camvid.names[:4] == ("Sky", "Building", "Pole", "Road")
    assert camvid.colours[camvid.position("Pavement")] == (60, 40, 222)
    assert (voc.names[0], voc.names[15], voc.names[20]) == ("background", "person", "tvmonitor")
    assert all(len(set(class_list(name).colours)) == size for name, size in sizes.items())


def test_the_two_orders_of_pascal_context_differ_in_nothing_but_order():
    alphabetical, first = class_list("pascal_context60"), class_list("pascal_context60_voc_first")
    assert list(alphabetical.names[1:]) == sorted(first.names[1:])
    assert first.names[1:21] == tuple(
        "table" if name == "diningtable" else name for name in class_list("voc21").names[1:]
    )
    colours = dict(zip(first.names, first.colours, strict=True))
    assert [colours[name] for name in alphabetical.names] == list(alphabetical.colours)
    assert (alphabetical.position("bedclothes"), first.position("bedclothes")) == (4, 52)


def test_the_palette_is_that_of_pascal_voc_and_has_no_colour_twice():
    colours = palette(300)
    assert {number: colours[number - 1] for number in VOC} == VOC
    assert len({*colours, (0, 0, 0)}) == 301
    assert class_list("voc21").colours == ((0, 0, 0), *colours[:20])


def test_lists_of_names_and_files_of_ones_own(tmp_path):
    given = class_list(["road", {"name": "sky", "colour": "#0102ff"}])
    assert (given.names, given.colours, given.ids) == (("road", "sky"), (palette(1)[0], (1, 2, 255)), (0, 1))
    assert class_list(given.plain()) == given
    (tmp_path / "own.csv").write_text("id,name,colour\n7,a lake,#ff0000\n3,hill,\n", encoding="utf-8")
    own = class_list(tmp_path / "own.csv")
    assert (own.name, own.names, own.ids) == ("own", ("a lake", "hill"), (7, 3))
    assert own.colours == ((255, 0, 0), palette(2)[1])
    (tmp_path / "stuff.txt").write_text("1: person\n92: banner\n")
    assert class_list(str(tmp_path / "stuff.txt")).ids == (1, 92)
    (tmp_path / "names.txt").write_text("person\n\nbanner: red\n")
    assert class_list(str(tmp_path / "names.txt")).names == ("person", "banner: red")
    assert hex_colour((1, 2, 255)) == "#0102ff"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("camvid", "classes must be one of camvid11, pascal_context60, .*, got 'camvid'"),
        ([], "classes given must hold at least one class, got none"),
        (["a", "b", "a"], "classes given must have a name of its own each, got 'a' 2 times"),
        ([1], "classes must list names, or mappings with name and colour, got 1"),
        ([{"name": "a", "color": "#000000"}], "mappings with name and colour, got"),
        ([{"name": "a", "colour": "red"}], "colour must be written #rrggbb, got 'red'"),
        ("nowhere.csv", r"classes: there is no file nowhere\.csv"),
    ],
)
def test_what_is_no_list_of_classes_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        class_list(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\nsky\n", "columns must be name and, as one likes, colour and id, got label"),
        ("name,colour\nsky\n", "every row must have as many cells as there are columns"),
        ("name,id\nsky,70000\n", "id must be a whole number below 65,536, got '70000'"),
        ("name,id\nsky,1\nsea,1\n", "must have a id of its own each, got 1 2 times"),
        ("name\n", "must hold at least one class, got none"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(BadFile, match=rf"class list .*own\.csv: .*{message}"):
        class_list(str(tmp_path / "own.csv"))


def test_a_class_is_found_by_its_name_and_others_are_refused_with_the_nearest():
    assert class_list("camvid11").position("Tree") == 5
    with pytest.raises(ValueError, match=r"class must be one of the 11 of camvid11, got 'Trees'\. Did you mean 'Tree'"):
        class_list("camvid11").position("Trees")
