from __future__ import annotations

import hashlib
import io
import json

import numba
import numpy as np
import pytest
import rich.console
from truth_helpers import random_graph

from zoo.truth import PackedGraphs, distance, edit_distances
from zoo.truth.pairs import PAIRS_PER_BLOCK


@pytest.fixture
def graphs(rng):
    return PackedGraphs.from_graphs([random_graph(rng, int(n)) for n in rng.integers(1, 6, 30)])


@pytest.mark.parametrize("method", ["exact", "bipartite", "authors", "part"])
@pytest.mark.parametrize("pairs", [7, 30, 100])
def test_blocks_on_threads_equal_one_block(graphs, method, pairs, monkeypatch):
    whole = edit_distances(graphs[:9], graphs, method=method)
    assert whole.shape == (9, 30)
    assert whole.dtype == np.float32
    monkeypatch.setitem(PAIRS_PER_BLOCK, method, pairs)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    assert np.array_equal(edit_distances(graphs[:9], graphs, method=method), whole)


def test_progress_is_shown_on_request_only(graphs, monkeypatch, capsys):
    edit_distances(graphs[:2], graphs)
    assert capsys.readouterr() == ("", "")
    stream, console = io.StringIO(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda stderr: console(file=stream, force_terminal=True))
    edit_distances(graphs[:2], graphs, progress=True)
    assert "edit distance" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_result_is_stored_once_and_mapped(graphs, tmp_path, monkeypatch):
    first = edit_distances(graphs[:3], graphs, cache=tmp_path / "new")
    monkeypatch.setattr(distance, "compute_pairs", lambda *_: pytest.fail("computed again"))
    again = edit_distances(list(graphs[:3]), graphs, cache=tmp_path / "new")
    assert np.array_equal(first, again)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == [".json", ".npy"]


def test_every_argument_that_matters_is_in_the_name(graphs, tmp_path):
    edit_distances(graphs[:3], graphs, cache=tmp_path)
    edit_distances(graphs[:3], graphs, nodes="hard", cache=tmp_path)
    edit_distances(graphs[:3], graphs, method="authors", cache=tmp_path)
    edit_distances(graphs[:3], graphs[:29], cache=tmp_path)
    edit_distances(graphs[1:4], graphs, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 5


def damage_bytes(matrix, sidecar):
    content = bytearray(matrix.read_bytes())
    content[-1] ^= 1
    matrix.write_bytes(content)


def damage_length(matrix, sidecar):
    matrix.write_bytes(matrix.read_bytes()[:-8])


def damage_dtype(matrix, sidecar):
    np.save(matrix, np.load(matrix).astype(np.float64))
    forge_checksum(matrix, sidecar)


def damage_shape(matrix, sidecar):
    np.save(matrix, np.load(matrix)[:, :-1])
    forge_checksum(matrix, sidecar)


def damage_header(matrix, sidecar):
    matrix.write_bytes(b"no matrix")
    forge_checksum(matrix, sidecar)


def forge_checksum(matrix, sidecar):
    record = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**record, "sha256": hashlib.sha256(matrix.read_bytes()).hexdigest()}))


def damage_sidecar(matrix, sidecar):
    sidecar.write_text("{")


def damage_missing(matrix, sidecar):
    sidecar.unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_bytes, damage_length, damage_dtype, damage_shape, damage_header, damage_sidecar, damage_missing],
)
def test_damaged_files_are_computed_again(graphs, tmp_path, damage):
    first = np.array(edit_distances(graphs[:3], graphs, cache=tmp_path))
    (matrix,), (sidecar,) = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    damage(matrix, sidecar)
    assert np.array_equal(edit_distances(graphs[:3], graphs, cache=tmp_path), first)
    record = json.loads(sidecar.read_text())
    assert record["shape"] == [3, 30]
    assert np.array_equal(np.load(matrix), first)


def test_kernels_compile_where_no_cache_can_be_written():
    from zoo.truth.kernels import compiled

    space = {}
    exec("def double(x):\n    return 2 * x", space)  # numba finds no place for the cache of code without a file
    assert compiled(space["double"])(4) == 8
