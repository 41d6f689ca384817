"""Stored distances: runs that are killed go on where they stopped, and two at once do no harm."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import numba
import numpy as np
import pytest
from truth_helpers import random_graph

from zoo.truth import PackedGraphs, edit_distances, kernels, pairs

# A run in a process of its own that says which block it computes, and dies in the way asked for after `last` of them.
RUN = """
import os, signal, sys, threading
folder, last, how, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
import numba
numba.config.NUMBA_NUM_THREADS = threads
from zoo.truth import edit_distances, kernels, pairs
from zoo.truth.sampling import sample_clevr_graphs
pairs.PAIRS_PER_BLOCK["authors"] = 50
real, lock, calls = kernels.authors_block, threading.Lock(), []

def counted(*arguments):
    with lock:
        calls.append(1)
        if len(calls) > last:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt if how == "interrupt" else OSError(28, "No space left on device")
    real(*arguments)
    os.write(1, (" ".join(map(str, arguments[3:7])) + chr(10)).encode())  # print may mix two threads' lines

kernels.authors_block = counted
graphs = sample_clevr_graphs(60, seed=1)
edit_distances(graphs[:20], graphs, method="authors", cache=folder)
print("done")
"""


def run(folder, last=10**6, how="kill", threads=1):
    """The blocks that a run computed, and whether it came to its end."""
    words = [sys.executable, "-c", RUN, str(folder), str(last), how, str(threads)]
    lines = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False).stdout.splitlines()
    return [line for line in lines if line != "done"], "done" in lines


def names(folder):
    return sorted(path.name.partition(".")[2] for path in folder.iterdir())


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The file that an undisturbed run writes, and the blocks that it computes."""
    folder = tmp_path_factory.mktemp("whole")
    blocks, done = run(folder)
    assert done
    assert len(blocks) == len(set(blocks)) == 40
    assert names(folder) == ["json", "npy"]
    return next(folder.glob("*.npy")).read_bytes(), blocks


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a run leaves that was killed after 12 blocks."""
    folder = tmp_path_factory.mktemp("killed")
    run(folder, 12)
    return folder


@pytest.mark.parametrize(("how", "threads"), [("kill", 1), ("kill", 2), ("interrupt", 2), ("full", 1)])
def test_a_run_that_died_goes_on_where_it_stopped(tmp_path, expected, how, threads):
    computed = []
    for last in (1, 9, 23):
        blocks, done = run(tmp_path, last - len(computed), how, threads)
        assert not done
        assert names(tmp_path) == ["npy.journal", "npy.partial"]
        computed += blocks
    blocks, done = run(tmp_path)
    computed += blocks
    assert done
    assert sorted(set(computed)) == sorted(expected[1])
    # With two threads a kill can strike between a block's end and its line in the journal, or in mid-block.
    assert len(computed) - len(set(computed)) <= (3 if threads > 1 else 0)
    assert next(tmp_path.glob("*.npy")).read_bytes() == expected[0]
    assert names(tmp_path) == ["json", "npy"]


def test_a_run_that_dies_before_its_first_block_leaves_nothing(tmp_path):
    assert run(tmp_path / "new", 0, "interrupt") == ([], False)
    assert list((tmp_path / "new").iterdir()) == []


def tear_last_line(journal, partial):
    journal.write_bytes(journal.read_bytes()[:-3])


def add_half_a_line(journal, partial):
    journal.write_bytes(journal.read_bytes() + b"19 20 3")


def change_a_stored_value(journal, partial):
    content = bytearray(partial.read_bytes())
    content[140] ^= 1
    partial.write_bytes(content)


def lose_the_matrix(journal, partial):
    partial.unlink()


def cut_the_matrix(journal, partial):
    partial.write_bytes(partial.read_bytes()[:-8])


def change_the_header(journal, partial):
    journal.write_bytes(journal.read_bytes().replace(b'"key": "', b'"key": "0'))


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (tear_last_line, 11),
        (add_half_a_line, 12),
        (change_a_stored_value, 11),
        (lose_the_matrix, 0),
        (cut_the_matrix, 0),
        (change_the_header, 0),
    ],
)
def test_what_was_damaged_meanwhile_is_computed_again(tmp_path, killed, expected, damage, kept):
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    damage(next(tmp_path.glob("*.journal")), next(tmp_path.glob("*.partial")))
    blocks, done = run(tmp_path)
    assert done
    assert len(blocks) == 40 - kept
    assert next(tmp_path.glob("*.npy")).read_bytes() == expected[0]


def test_two_processes_share_one_run(tmp_path, expected):
    words = [sys.executable, "-c", RUN, str(tmp_path), str(10**6), "kill", "1"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    shown = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("done" in lines for lines in shown)
    computed = [line for lines in shown for line in lines if line != "done"]
    assert sorted(computed) == sorted(expected[1])
    assert next(tmp_path.glob("*.npy")).read_bytes() == expected[0]
    assert names(tmp_path) == ["json", "npy"]


WAITING = """
import sys
from pathlib import Path
import numpy as np
from zoo.truth.cache import MatrixFile

def fill(done, write):
    print("filling", len(done), flush=True)
    if sys.argv[2] == "first":
        write((0, 1, 0, 3), np.ones((1, 3)))
        print("wrote", flush=True)
        sys.stdin.read()
    write((1, 2, 0, 3), np.ones((1, 3)))

print(MatrixFile(Path(sys.argv[1]) / "m.npy", (2, 3), "key").read(fill).sum())
"""


def test_a_process_takes_over_from_one_that_was_killed(tmp_path):
    def start(name):
        words = [sys.executable, "-c", WAITING, str(tmp_path), name]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start("first")
    assert first.stdout.readline() == "filling 0\n"
    assert first.stdout.readline() == "wrote\n"
    second = start("second")
    assert second.stderr.readline() == "another process is computing m.npy: waiting for it\n"
    first.kill()
    assert second.communicate(timeout=60)[0] == "filling 1\n6.0\n"
    first.wait()
    assert names(tmp_path) == ["json", "npy"]


@pytest.mark.parametrize("method", ["authors", "bipartite", "exact"])
@pytest.mark.parametrize("part", [7, 30])
def test_a_gallery_in_parts_gives_the_same(tmp_path, method, part, rng, monkeypatch):
    graphs = PackedGraphs.from_graphs([random_graph(rng, int(n), values=3) for n in rng.integers(1, 6, 31)])
    whole = edit_distances(graphs[:5], graphs, method=method)
    monkeypatch.setattr(pairs, "GALLERY_PART", part)
    monkeypatch.setitem(pairs.PAIRS_PER_BLOCK, method, 20)
    assert np.array_equal(edit_distances(graphs[:5], graphs, method=method), whole)
    assert np.array_equal(edit_distances(graphs[:5], graphs, method=method, cache=tmp_path), whole)


def test_the_bar_starts_at_what_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    monkeypatch.setitem(pairs.PAIRS_PER_BLOCK, "authors", 5)
    graphs = PackedGraphs.from_graphs([random_graph(np.random.default_rng(3), 3) for _ in range(20)])
    real, calls = kernels.authors_block, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 31:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(kernels, "authors_block", interrupted)
    for _ in range(2):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            edit_distances(graphs, graphs, method="authors", cache=tmp_path, progress=True)
    assert "75%" in capsys.readouterr().err
    assert len(calls) == 31


def grown(script, *words):
    """Bytes by which the resident memory of a process grew between `before` and the end of a script."""
    script = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"{script}\nprint(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout)


def test_memory_of_the_file_does_not_grow_with_the_matrix(tmp_path):
    """40 million distances, 160 MB, are filled and mapped within a third of that."""
    script = (
        "from zoo.truth.cache import MatrixFile\n"
        "def fill(done, write):\n"
        "    for row in range(400): write((row, row + 1, 0, 100_000), np.full((1, 100_000), row))\n"
        "before = peak()\n"
        "matrix = MatrixFile(Path(sys.argv[1]) / 'm.npy', (400, 100_000), 'key').read(fill)\n"
        "assert matrix[399, 7] == 399"
    )
    assert grown(script, str(tmp_path)) < 160e6 / 3


def test_memory_of_the_computation_does_not_grow_with_the_matrix(tmp_path):
    """24 million distances, 96 MB, are computed within a third of that, the graphs apart."""
    script = (
        "from zoo.truth import PackedGraphs, edit_distances\n"
        "def sets(count):\n"
        "    nodes = np.arange(count)[:, None] % 7\n"
        "    return PackedGraphs(np.arange(count + 1), nodes, np.zeros((count, 1), np.uint64))\n"
        "few, many = sets(400), sets(60_000)\n"
        "edit_distances(few[:1], many, method='authors')\n"
        "before = peak()\n"
        "found = edit_distances(few, many, method='authors', cache=sys.argv[1])\n"
        "assert found.shape == (400, 60_000) and found[3, 3] == 0 and found[3, 4] == 1"
    )
    assert grown(script, str(tmp_path)) < 96e6 / 3


def test_what_a_finished_run_forgot_is_removed(tmp_path, expected):
    """A kill between the last rename and the journal's removal leaves a whole matrix and a journal."""
    run(tmp_path)
    matrix = next(tmp_path.glob("*.npy"))
    journal = matrix.with_name(f"{matrix.name}.journal")
    journal.write_bytes(b"rest")
    assert run(tmp_path) == ([], True)
    assert not journal.exists()
    assert matrix.read_bytes() == expected[0]


@pytest.mark.parametrize(
    "line",
    ["0 99999999 0 99999999 1", "0 21 0 60 1", "0 20 0 61 1", "5 5 0 60 1", "3 2 0 60 1", f"0 {'9' * 5000} 0 1 1"],
)
def test_a_journal_is_read_up_to_a_block_that_cannot_be(tmp_path, killed, expected, line):
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    journal = next(tmp_path.glob("*.journal"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:6], line.encode() + b"\n", *lines[6:]]))
    blocks, done = run(tmp_path)
    assert done
    assert len(blocks) == 40 - 5
    assert next(tmp_path.glob("*.npy")).read_bytes() == expected[0]


HOPELESS = """
import sys
import numpy as np
from zoo.truth import SceneGraph, edit_distance, pairs
pairs.MOST_MAPS["part"] = 1 << 60
rng = np.random.default_rng(0)
edges = [(i, j, 0) for i in range(40) for j in range(40) if i != j and rng.random() < .3]
scene = SceneGraph(np.zeros((40, 1), int), edges)
query = SceneGraph(np.full((10, 1), -1), [(i, j, 0) for i in range(10) for j in range(10) if i != j])
edit_distance(query, SceneGraph([[0]] * 2, []), method="part")
print("ready", flush=True)
edit_distance(query, scene, method="part")
"""


def test_control_c_ends_the_search_of_a_single_pair():
    words = [sys.executable, "-c", HOPELESS]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "ready\n"
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(2)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=5)[1].endswith("KeyboardInterrupt\n")


def test_an_unwritable_folder_names_itself(tmp_path, monkeypatch):
    graphs = [random_graph(np.random.default_rng(3), 3)]
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(OSError, match="file"):
        edit_distances(graphs, graphs, cache=blocked / "cache")
