"""What is kept of large files: known by file and parameters, made again after any damage."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from zoo.data._clevr_cache import cached_arrays

ARRAYS = {"a": np.arange(3, dtype=np.int16), "b": np.array(["x"])}


class Reader:
    """Counts how often the source was read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.times = folder / "cache", folder / "source.json", 0
        self.source.write_text("one")

    def __call__(self, **parameters):
        return cached_arrays(self.folder, "kind", self.source, parameters, self._read)

    def _read(self):
        self.times += 1
        return ARRAYS


@pytest.fixture
def reader(tmp_path):
    return Reader(tmp_path)


def assert_made_again(reader, file, damaged):
    """Puts damaged content into a cache file and asks for it."""
    file.write_bytes(damaged)
    times = reader.times
    with pytest.warns(UserWarning, match=r"cache file .*kind_.*\.npz is damaged .* made again"):
        found = reader()
    assert reader.times == times + 1
    assert_same(found)


def assert_same(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_arrays_come_back_from_the_cache_without_a_warning(reader):
    reader()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(reader())
    assert reader.times == 1


def test_a_file_with_any_byte_changed_or_lost_is_made_again(reader, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds of them
    reader()
    (file,) = reader.folder.iterdir()
    whole = file.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF if place % 2 else 0x08
        assert_made_again(reader, file, bytes(flipped))
    for end in (*range(0, len(whole), 40), len(whole) - 1):
        assert_made_again(reader, file, whole[:end])
    assert_made_again(reader, file, whole + b"x")
    assert list(reader.folder.iterdir()) == [file]
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "other", [{"names": np.arange(3)}, {**ARRAYS, "a": np.zeros(3)}, {**ARRAYS, "a": np.arange(4, dtype=np.int16)}]
)
def test_a_sound_archive_of_something_else_is_made_again(reader, other):
    reader()
    (file,) = reader.folder.iterdir()
    with file.open("wb") as stream:
        np.savez(stream, **other)
    assert_made_again(reader, file, file.read_bytes())


def test_the_cache_of_another_file_under_its_name_is_made_again(reader):
    reader()
    (file,) = reader.folder.iterdir()
    cached_arrays(reader.folder, "other", reader.source, {}, lambda: {"c": np.zeros(2)})
    assert_made_again(reader, file, next(reader.folder.glob("other*")).read_bytes())


def test_a_file_that_can_not_be_read_is_made_again(reader, monkeypatch):
    reader()

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.warns(UserWarning, match="is damaged .* made again"):
        assert_same(reader())
    assert reader.times == 2


def test_another_time_of_change_size_path_or_parameter_is_another_entry(reader, tmp_path):
    reader(format=1)
    status = reader.source.stat()
    reader.source.write_text("two")  # as many bytes
    os.utime(reader.source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    reader(format=1)
    assert reader.times == 2
    reader.source.write_text("three")
    os.utime(reader.source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    reader(format=1)
    assert reader.times == 3
    reader(format=2)
    assert reader.times == 4
    moved = tmp_path / "moved.json"
    reader.source = reader.source.rename(moved)
    reader(format=2)
    assert reader.times == 5
    reader(format=2)
    assert (reader.times, len(list(reader.folder.iterdir()))) == (5, 5)


def test_nothing_is_kept_where_reading_fails(reader):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached_arrays(reader.folder, "kind", reader.source, {}, fail)
    assert not reader.folder.exists()
