"""The gnd_*.pkl form, what a hostile pickle may try, and what damage does."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.truth.readers import read_gnd
from zoo.truth.readers.plain_pickle import PlainArray, read_plain_pickle

IMAGES = ["a", "b", "c", "d", "e"]


def revisited(wrap=list):
    return {
        "imlist": IMAGES,
        "qimlist": ["x", "y"],
        "gnd": [
            {"bbx": wrap([0.5, 1, 2, 3]), "easy": wrap([0]), "hard": wrap([3, 1]), "junk": wrap([2])},
            {"bbx": wrap([0, 1, 2, 3]), "easy": wrap([]), "hard": wrap([4]), "junk": wrap([])},
        ],
    }


def stored(tmp_path, content, protocol=4):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [list, tuple, np.array, lambda ids: list(np.array(ids))])
def test_revisited(tmp_path, protocol, wrap):
    lists = read_gnd(stored(tmp_path, revisited(wrap), protocol))
    assert (lists.query_ids, lists.query_images) == (("x", "y"), ("x", "y"))
    assert lists.gallery_ids == tuple(IMAGES)
    assert lists.groups == {"easy": (("a",), ()), "hard": (("d", "b"), ("e",)), "junk": (("c",), ())}
    assert lists.boxes.tolist() == [[0.5, 1, 2, 3], [0, 1, 2, 3]]


def test_classic_without_junk_and_box(tmp_path):
    content = {"imlist": np.array(IMAGES), "qimlist": ["a", "a"], "gnd": [{"ok": [0, 1]}, {"ok": [2], "junk": [0]}]}
    lists = read_gnd(stored(tmp_path, content))
    assert lists.query_ids == ("a#0", "a#1")  # two queries on one image
    assert lists.query_images == ("a", "a")
    assert lists.groups == {"ok": (("a", "b"), ("c",)), "junk": ((), ("a",))}
    assert np.isnan(lists.boxes).all()


# As Python 2.7 with NumPy 1.16 writes {"imlist": ["a", "b"], "qimlist": ["b"], "gnd": [{"ok": np.array([0]),
# "junk": [np.int64(1)], "bbx": [0.5, 1, 2, 3]}]} with protocol 2: bytes as SHORT_BINSTRING, old module names.
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85"
    b"cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89U\x08\x00\x00\x00\x00\x00\x00\x00\x00tb"
)
SCALAR = (
    b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02i8K\x00K\x01\x87R"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\x01\x00\x00\x00\x00\x00\x00\x00\x86R"
)
PYTHON_2 = (
    b"\x80\x02}(U\x06imlist](U\x01aU\x01beU\x07qimlist]U\x01baU\x03gnd]}(U\x02ok"
    + ARRAY
    + b"U\x04junk]"
    + SCALAR
    + b"a"
    b"U\x03bbx](G?\xe0\x00\x00\x00\x00\x00\x00K\x01K\x02K\x03euau."
)


def test_python_2(tmp_path):
    assert pickle.loads(PYTHON_2, encoding="latin1")["gnd"][0]["ok"].tolist() == [0]  # the bytes are what they claim
    lists = read_gnd(stored(tmp_path, PYTHON_2))
    assert lists.groups == {"ok": (("a",),), "junk": (("b",),)}
    assert lists.boxes.tolist() == [[0.5, 1, 2, 3]]


ARRAYS = [
    np.arange(6, dtype=np.int32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([True, False]),
    np.array([1, 2], ">u2"),
    np.array([0.5, -2], np.float16),
    np.array(["ab", "é"]),
    np.array(["ab", 3, None], dtype=object),
    np.array([], np.int64),
    np.array(7),
    np.arange(10)[::3],
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back(tmp_path, array, protocol):
    content = read_plain_pickle(stored(tmp_path, [array], protocol))
    assert isinstance(content[0], PlainArray)
    assert content[0].tolist() == array.tolist()


def test_byte_strings_become_text(tmp_path):
    assert read_plain_pickle(stored(tmp_path, np.array([b"ab", b"\xe9"]))).tolist() == ["ab", "é"]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(tmp_path, protocol):
    content = {
        "set": {1, 2},
        "frozen": frozenset("a"),
        "bytes": b"\xff",
        "deep": [(1, 2.5, None, True)],
        "é": -(10**30),
    }
    assert read_plain_pickle(stored(tmp_path, content, protocol)) == content
    numbers = [np.int64(-3), np.float32(0.5), np.bool_(True), np.str_("ab")]
    values = read_plain_pickle(stored(tmp_path, numbers, protocol))
    assert values == [-3, 0.5, True, "ab"]
    assert [type(value) for value in values] == [int, float, bool, str]


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(target):
    shell = f"touch {target}"
    return {
        "os.system": Call(os.system, shell),
        "eval": Call(builtins.eval, f"open({str(target)!r}, 'w')"),
        "exec": Call(builtins.exec, f"open({str(target)!r}, 'w')"),
        "open": Call(builtins.open, str(target), "w"),
        "subprocess": Call(subprocess.check_call, ["touch", str(target)]),
        "getattr": Call(getattr, "text", "format"),
        "numpy function": Call(np.save, str(target), [1]),
        "nested call": {"gnd": [Call(list, [Call(os.system, shell)])]},
        "in an array of objects": np.array([Call(os.system, shell), 1], dtype=object),
        "import by codec": Call(__import__("_codecs").encode, "x", "zoo_codec_that_is_looked_up"),
    }


@pytest.mark.parametrize("name", list(attacks("")))
@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_attacks_are_refused_by_name(tmp_path, name, protocol):
    target = tmp_path / "owned"
    path = stored(tmp_path, attacks(target)[name], protocol)
    with pytest.raises(ValueError, match=r"the pickle asks for .*; only containers, strings") as caught:
        read_gnd(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert not target.exists()


def test_the_refusal_names_what_was_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system"):
        read_gnd(stored(tmp_path, Call(os.system, "true")))
    with pytest.raises(ValueError, match=r"asks for builtins\.eval"):
        read_gnd(stored(tmp_path, Call(builtins.eval, "1")))
    with pytest.raises(ValueError, match=r"asks for __builtin__\.eval"):
        read_gnd(stored(tmp_path, b"\x80\x02c__builtin__\neval\nU\x011\x85R."))


@pytest.mark.parametrize(
    "body",
    [
        b"cnumpy\nndarray\n}U\x01aK\x01sb.",
        b"cnumpy\ndtype\nN}U\x01aK\x01s\x86b.",  # slot state: setattr
        b"cnumpy\ndtype\n}U\x01aK\x01sb.",  # instance dictionary
        b"c_codecs\nencode\nN}U\x01aK\x01s\x86b.",
        b"cbuiltins\nset\nN}U\x01aK\x01s\x86b.",
        b"cnumpy.core.multiarray\n_reconstruct\nN}U\x08__code__K\x01s\x86b.",
    ],
)
def test_a_pickle_can_not_change_the_reader(tmp_path, body):
    with pytest.raises(ValueError, match=r"not a readable pickle|asks for a change of a function"):
        read_plain_pickle(stored(tmp_path, b"\x80\x02" + body))
    assert read_gnd(stored(tmp_path, revisited(np.array))).query_ids == ("x", "y")


@pytest.mark.parametrize(
    "dtype",
    [np.dtype([("a", "O"), ("b", "i8")]), np.dtype("M8[s]"), np.dtype("c16"), np.dtype("V8"), np.dtype(("i4", (2,)))],
)
def test_other_types_of_elements_are_refused(tmp_path, dtype):
    with pytest.raises(ValueError, match="the pickle asks for a NumPy type"):
        read_plain_pickle(stored(tmp_path, dtype, 2))


def test_a_type_is_not_reinterpreted(tmp_path):
    # A byte order of "O," would turn eight bytes into a pointer to an object.
    body = b"cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R(K\x03U\x02O,NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb."
    with pytest.raises(ValueError, match="asks for a byte order 'O,'"):
        read_plain_pickle(stored(tmp_path, b"\x80\x02" + body))


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p99999999999\n"])
def test_a_few_bytes_can_not_take_all_memory(tmp_path, put):
    with pytest.raises(ValueError, match="memo position"):
        read_plain_pickle(stored(tmp_path, b"\x80\x02]" + put + b"."))


@pytest.mark.parametrize("content", [PYTHON_2, pickle.dumps(revisited(np.array), 2), pickle.dumps(revisited(), 5)])
def test_truncation_is_noticed(tmp_path, content):
    for size in range(len(content)):
        with pytest.raises(ValueError, match=r"not a readable pickle|the pickle asks for"):
            read_plain_pickle(stored(tmp_path, content[:size]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_damage_is_a_value_error_or_harmless(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from([PYTHON_2, pickle.dumps(revisited(np.array), 4)])))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 127))
    with contextlib.suppress(ValueError):  # anything else fails the test
        read_gnd(stored(tmp_path, bytes(content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "the pickle must hold a dict, got list"),
        ({"imlist": [], "gnd": []}, r"the keys \['qimlist'\] are missing, found \['imlist', 'gnd'\]"),
        ({**revisited(), "imlist": "abc"}, "imlist must be a list, got str"),
        ({**revisited(), "qimlist": ["x", 3]}, "qimlist must hold image names"),
        ({**revisited(), "qimlist": ["x"]}, "qimlist and gnd must be of one length, got 1 and 2"),
        ({**revisited(), "imlist": [*"abcd", "a"]}, "gallery_ids must be unique, got 'a' twice"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"junk": []}]}, "query 'x': gnd must be a dict with 'ok'"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [3]}, "query 'x': gnd must be a dict with 'ok', got int"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": [5]}]}, r"query 'x': ok must .*\(0 … 4\), got 5"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": [-1]}]}, "query 'x': ok must hold positions"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": [1.5]}]}, "query 'x': ok must hold positions"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": ["a"]}]}, "query 'x': ok must hold positions"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": [1], "junk": [1]}]}, "query 'x': .*'b' in ok and junk"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": [1], "bbx": [1, 2]}]}, "query 'x': bbx must be four"),
        ({"imlist": IMAGES, "qimlist": ["x"], "gnd": [{"ok": [1], "bbx": [3, 1, 2, 2]}]}, "query 'x': a box needs"),
    ],
)
def test_contents_are_checked(tmp_path, content, message):
    path = stored(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_gnd(path)
    assert str(caught.value).startswith(f"{path}: ")
