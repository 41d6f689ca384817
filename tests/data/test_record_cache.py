from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zoo.data import _cache
from zoo.data._cache import cache_path, ensure_records, open_records

DTYPE = np.dtype([("a", "u1", (5,)), ("b", "<i2")])
RECORDS = np.zeros(7, DTYPE)
RECORDS["a"], RECORDS["b"] = np.arange(35).reshape(7, 5), np.arange(7) - 3


class Builder:
    """Yields the records in two chunks and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Iterator[np.ndarray]:
        self.calls += 1
        yield RECORDS[:4]
        yield RECORDS[4:]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return cache_path(tmp_path / "deep" / "cache", "train_7", {"seed": 1})


@pytest.fixture
def build() -> Builder:
    return Builder()


def ensure(path: Path, build: Builder) -> np.ndarray:
    ensure_records(path, {"seed": 1}, DTYPE, len(RECORDS), build)
    return open_records(path)


def test_written_once_then_read_back_memory_mapped_and_read_only(path, build):
    for _ in range(3):
        records = ensure(path, build)
    assert build.calls == 1
    assert isinstance(records, np.memmap)
    assert not records.flags.writeable
    assert records.tobytes() == RECORDS.tobytes()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.with_suffix(".json").name, path.name]
    note = json.loads(path.with_suffix(".json").read_text())
    assert note == {"parameters": {"seed": 1}, "bytes": path.stat().st_size, "crc32": zlib.crc32(path.read_bytes())}


def test_the_checksum_is_read_once_per_process(path, build, monkeypatch):
    ensure(path, build)
    monkeypatch.setattr(_cache, "_verified", set())
    seen = []
    checksum = _cache._checksum
    monkeypatch.setattr(_cache, "_checksum", lambda file: seen.append(file) or checksum(file))
    for _ in range(3):
        ensure(path, build)
    assert seen == [path]
    assert build.calls == 1


def test_the_name_tells_contents_apart(tmp_path):
    names = {cache_path(tmp_path, "train_7", parameters) for parameters in ({"seed": 1}, {"seed": 2}, {"low": 1})}
    assert len(names) == 3
    assert cache_path(tmp_path, "t", {"a": 1, "b": 2}) == cache_path(tmp_path, "t", {"b": 2, "a": 1})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def break_header(path: Path) -> None:
    path.write_bytes(b"garbage!" + path.read_bytes()[8:])


def lose_note(path: Path) -> None:
    _cache._verified.clear()  # as in a new process: this one needs no note for a file that it wrote
    path.with_suffix(".json").unlink()


def break_note(path: Path) -> None:
    _cache._verified.clear()
    path.with_suffix(".json").write_text("[1, 2")


def foreign_note(path: Path) -> None:
    _cache._verified.clear()
    path.with_suffix(".json").write_text("[1, 2]")


def replace_with(path: Path, content: np.ndarray) -> None:
    np.save(path, content)
    certify(path)


def certify(path: Path) -> None:
    """Makes the note fit the file, so that the checksum has nothing to say."""
    note = {"parameters": {}, "bytes": path.stat().st_size, "crc32": zlib.crc32(path.read_bytes())}
    path.with_suffix(".json").write_text(json.dumps(note))


class Bomb:
    """Complains when it is unpickled."""

    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('the cache executed code')",)


def foreign_dtype(path: Path) -> None:
    replace_with(path, np.zeros(7))


def foreign_size(path: Path) -> None:
    replace_with(path, RECORDS[:5])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))
    certify(path)


def not_npy(path: Path) -> None:
    path.write_bytes(b"")
    certify(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "checksum differs"),
        (truncate, "bytes where"),
        (break_header, "checksum differs"),
        (lose_note, "no readable"),
        (break_note, "no readable"),
        (foreign_note, "no readable"),
        (foreign_dtype, "foreign format"),
        (foreign_size, "foreign format"),
        (pickled, "foreign format"),
        (not_npy, "foreign format"),
    ],
)
def test_what_is_damaged_or_foreign_is_named_and_rebuilt(path, build, damage, said):
    ensure(path, build)
    before = path.read_bytes()
    damage(path)
    with pytest.warns(UserWarning, match=said) as warned:
        records = ensure(path, build)
    assert str(path) in str(warned[0].message)
    assert build.calls == 2
    assert records.tobytes() == RECORDS.tobytes()
    assert path.read_bytes() == before
    ensure(path, build)
    assert build.calls == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing_and_keeps_what_was_there(path, build, error):
    def interrupted() -> Iterator[np.ndarray]:
        yield RECORDS[:4]
        raise error

    with pytest.raises(error):
        ensure(path, interrupted)
    assert list(path.parent.iterdir()) == []
    ensure(path, build)
    with pytest.raises(error):
        ensure_records(cache_path(path.parent, "other", {}), {}, DTYPE, 7, interrupted)
    assert len(list(path.parent.iterdir())) == 2


CHILD = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits that it is ignored
from zoo.data._cache import ensure_records
from zoo.data._generator import Recipe, generate_chunks
path, size = Path(sys.argv[1]), int(sys.argv[2])
recipe = Recipe(0, 1, 6, 75, 5, 10)
print("ready", flush=True)
ensure_records(path, {}, recipe.dtype, size, lambda: generate_chunks(recipe, "train", size, 1))
"""


def start(path: Path, size: int) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(size)], stdout=-1, stderr=-1, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    child = start(tmp_path / "train.npy", 10_000_000)
    deadline = time.monotonic() + 15
    while not any(file.stat().st_size > 1e7 for file in tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    child.send_signal(signal.SIGINT)
    try:
        _, errors = child.communicate(timeout=20)
    finally:
        child.kill()  # it would go on to write 170 GB
    assert child.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_build_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "train.npy"
    children = [start(path, 3_000) for _ in range(2)]
    assert [child.communicate(timeout=30)[1] for child in children] == ["", ""]
    assert len(list(tmp_path.iterdir())) == 2
    note = json.loads(path.with_suffix(".json").read_text())
    assert (path.stat().st_size, zlib.crc32(path.read_bytes())) == (note["bytes"], note["crc32"])
    assert len(open_records(path)) == 3_000
