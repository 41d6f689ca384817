"""`zoo rerank`: the order is the model's own, whatever form the hits come in, and what doesn't fit is told."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from photo_runs import run

import zoo
from zoo.checkpoints import save_weights
from zoo.commands import _hit_files
from zoo.commands import rerank as verb
from zoo.registry import UsageError

SIZES = {"dimension": 8, "projection": 6, "anchors": 3, "hits": 5, "projection_hits": 4, "width": 8, "heads": 2}
QUERIES, HITS, DIMENSION = 4, 7, 8


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Writes two tiny models: one of looks alone, one that reads headings as well."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, affinities in (("looks", []), ("heading", ["heading"])):
        save_weights(zoo.create_model("gnn_rerank", **SIZES, affinities=affinities), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def vectors(tmp_path):
    """Writes queries.npy and hits.npy, and returns both arrays."""
    generator = np.random.default_rng(0)
    queries = generator.normal(size=(QUERIES, DIMENSION)).astype(np.float32)
    hits = generator.normal(size=(QUERIES, HITS, DIMENSION)).astype(np.float32)
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "hits.npy", hits)
    return queries, hits


@pytest.fixture
def reranked(tmp_path):
    """Runs the command in this process on files of tmp_path, and returns order and scores."""

    def rerank(*words, files=("queries.npy", "hits.npy")):
        names = ",".join(str(tmp_path / name) for name in files)
        run("rerank", tmp_path, f"files=[{names}]", *words)
        return np.load(tmp_path / "run/order.npy"), np.load(tmp_path / "run/scores.npy")

    return rerank


def by(weights, name):
    return f"reranker.gnn_rerank.weights={weights / name}.safetensors"


def own(weights, name, queries, hits, columns=None):
    """Returns what the model itself makes of each query."""
    model = zoo.load_model(str(weights / f"{name}.safetensors"))
    described = [{key: column[q] for key, column in (columns or {}).items()} for q in range(len(queries))]
    found = [model.rerank(queries[q], hits[q], described[q]) for q in range(len(queries))]
    return [torch.stack(parts).numpy() for parts in zip(*found, strict=True)]


def same(found, expected):
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float32
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


# The order


def test_the_order_is_the_models_own(weights, vectors, reranked, tmp_path):
    found = reranked(by(weights, "looks"))
    same(found, own(weights, "looks", *vectors))
    assert (np.diff(found[1], axis=1) <= 0).all()
    assert not np.array_equal(found[0], np.tile(np.arange(HITS), (QUERIES, 1)))
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["reranker"]["gnn_rerank"]["weights"].endswith("looks.safetensors")
    assert results["shapes"] == {"queries": [QUERIES, DIMENSION], "hits": [QUERIES, HITS, DIMENSION]}
    assert {"order.npy", "scores.npy", "results.json"} == {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("name", ["superglobal", "aqe", "alpha_qe", "dba"])
def test_rerankers_that_are_not_trained_order_as_when_called(vectors, reranked, name):
    order, scores = reranked(f"reranker={name}")
    reranker = zoo.create("reranker", name)
    for q, (query, hits) in enumerate(zip(*vectors, strict=True)):
        ranking = reranker(query, hits)
        assert order[q].tolist() == ranking.ids
        np.testing.assert_allclose(scores[q], ranking.scores, atol=1e-6)


def test_several_work_one_after_the_other(weights, vectors, reranked):
    order, scores = reranked("reranker=[gnn_rerank,aqe]", by(weights, "looks"), "reranker.aqe.k=2")
    first, _ = own(weights, "looks", *vectors)
    for q, (query, hits) in enumerate(zip(*vectors, strict=True)):
        ranking = zoo.create("reranker", "aqe", k=2)(query, hits[first[q]])
        assert order[q].tolist() == first[q][ranking.ids].tolist()
        np.testing.assert_allclose(scores[q], ranking.scores, atol=1e-6)
    alone, _ = reranked("reranker=[aqe]", "reranker.aqe.k=2")
    assert not np.array_equal(order, alone)


def test_a_fusion_finds_scores_of_earlier_stages_and_columns(vectors, reranked, tmp_path):
    distance = np.random.default_rng(1).normal(size=(QUERIES, HITS))
    np.savez(tmp_path / "known.npz", near=-distance)
    words = ["reranker=[superglobal,rank_fusion]", f"metadata={tmp_path / 'known.npz'}"]
    order, _ = reranked(*words, "reranker.rank_fusion.keys=[near]")
    np.testing.assert_array_equal(order, np.argsort(distance, axis=1))
    order, _ = reranked(*words, "reranker.rank_fusion.keys=[superglobal]")
    np.testing.assert_array_equal(order, reranked("reranker=superglobal")[0])


# What is known of the hits


def test_metadata_of_all_forms_say_the_same(weights, vectors, reranked, tmp_path):
    queries, hits = vectors
    heading = np.random.default_rng(2).uniform(0, 360, (QUERIES, HITS)).round(3)
    expected = own(weights, "heading", queries, hits, {"heading": heading})
    assert not np.array_equal(expected[0], own(weights, "heading", queries, hits, {"heading": 0 * heading})[0])
    np.savez(tmp_path / "known.npz", heading=heading, label=np.full((QUERIES, HITS), "x"))
    with (tmp_path / "known.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "heading", "place"])
        rows.writerows([f"é {number}", angle, "here, there"] for number, angle in enumerate(heading.ravel()))
    for name in ("known.npz", "known.csv"):
        same(reranked(by(weights, "heading"), f"metadata={tmp_path / name}"), expected)
    np.savez(tmp_path / "all.npz", queries=queries, hits=hits, heading=heading)
    same(reranked(by(weights, "heading"), files=["all.npz"]), expected)


def test_the_table_names_hits_and_their_old_ranks(weights, vectors, reranked, tmp_path, capsys):
    names = np.array([[f"img{q}-{k}" for k in range(HITS)] for q in range(QUERIES)])
    np.savez(tmp_path / "names.npz", id=names)
    order, scores = reranked(by(weights, "looks"), f"metadata={tmp_path / 'names.npz'}")
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line] for line in lines]
    expected = [
        [str(q), str(rank + 1), str(order[q, rank] + 1), f"{scores[q, rank]:#.4g}", names[q, order[q, rank]]]
        for q in range(verb._QUERIES)
        for rank in range(verb._HITS)
    ]
    assert cells == expected
    reranked(by(weights, "looks"))
    assert "img" not in capsys.readouterr().out


def test_a_column_with_a_gap_is_told_of_and_can_not_be_used(weights, vectors, reranked, tmp_path, caplog):
    rows = ["heading", *map(str, range(QUERIES * HITS))]
    rows[3] = "north"
    (tmp_path / "known.csv").write_text("\n".join(rows))
    with pytest.raises(UsageError, match="query 0: metadata heading must be finite"):
        reranked(by(weights, "heading"), f"metadata={tmp_path / 'known.csv'}")
    assert "column heading isn't all numbers: row 3 has 'north'" in caplog.text
    caplog.set_level("INFO", logger="zoo")
    reranked(by(weights, "looks"), f"metadata={tmp_path / 'known.csv'}")
    assert "metadata counts for nothing" in caplog.text
    with pytest.raises(UsageError, match=r"metadata must hold heading .*: name a file that has them, metadata=hits"):
        reranked(by(weights, "heading"))


# Other shapes and types


def test_one_query_and_one_hit_may_come_alone(weights, vectors, reranked, tmp_path, capsys):
    queries, hits = vectors
    heading = np.arange(0.0, 70.0, 10)
    expected = own(weights, "heading", queries[:1], hits[:1], {"heading": heading[None]})
    np.save(tmp_path / "query.npy", queries[0])
    np.save(tmp_path / "list.npy", hits[0])
    np.savez(tmp_path / "known.npz", heading=heading, id=np.arange(HITS))
    words = [by(weights, "heading"), f"metadata={tmp_path / 'known.npz'}"]
    same(reranked(*words, files=["query.npy", "list.npy"]), expected)
    np.save(tmp_path / "list.npy", hits[0, :1])
    np.savez(tmp_path / "known.npz", heading=heading[:1])
    order, scores = reranked(*words, files=["query.npy", "list.npy"])
    assert (order.tolist(), scores.shape) == ([[0]], (1, 1))


@pytest.mark.parametrize("kind", ["float16", ">f4", "float64", "int8"])
def test_any_real_type_will_do(weights, reranked, tmp_path, kind):
    generator = np.random.default_rng(3)
    arrays = [(8 * generator.normal(size=shape)).round().astype(kind) for shape in ((2, 8), (2, 5, 8))]
    for name, array in zip(("queries", "hits"), arrays, strict=True):
        np.save(tmp_path / f"{name}.npy", np.asfortranarray(array))
    same(reranked(by(weights, "looks")), own(weights, "looks", *(array.astype(np.float32) for array in arrays)))


def test_files_are_mapped_and_only_read(weights, vectors, reranked, tmp_path):
    lists = _hit_files.read_hit_lists([str(tmp_path / "queries.npy"), str(tmp_path / "hits.npy")], None)
    assert isinstance(lists.hits, np.memmap)
    before = (tmp_path / "hits.npy").read_bytes()
    for part in lists.vectors(0):
        part += 1
    assert (tmp_path / "hits.npy").read_bytes() == before


# What doesn't fit


@pytest.mark.parametrize(
    ("queries", "hits", "message"),
    [
        ((3, 8), (4, 5, 8), r"hits must be those of each query, .* got \(3, 8\) and \(4, 5, 8\)"),
        ((3, 8), (5, 8), r"hits must be those of each query, .* got \(3, 8\) and \(5, 8\)"),
        ((3, 8), (3, 5, 6), r"must have the same D, got \(3, 8\) and \(3, 5, 6\)"),
        ((3, 5, 8), (3, 8), r"queries must be \(Q, D\) or \(D,\), .* got \(3, 5, 8\) and \(3, 8\)"),
        ((0, 8), (0, 5, 8), r"at least one query with one hit, got \(0, 8\) and \(0, 5, 8\)"),
        ((3, 8), (3, 0, 8), r"at least one query with one hit, got \(3, 8\) and \(3, 0, 8\)"),
        ((3, 6), (3, 5, 6), r"query 0: hits must be \(N, 8\), as in training, got \(5, 6\)"),
    ],
)
def test_shapes_that_do_not_fit_are_told(weights, reranked, tmp_path, queries, hits, message):
    np.save(tmp_path / "queries.npy", np.ones(queries, np.float32))
    np.save(tmp_path / "hits.npy", np.ones(hits, np.float32))
    with pytest.raises(UsageError, match=message):
        reranked(by(weights, "looks"))
    assert not (tmp_path / "run/order.npy").exists()


@pytest.mark.parametrize(("name", "bad"), [("queries", np.nan), ("hits", np.inf)])
def test_numbers_must_be_finite(weights, vectors, reranked, tmp_path, name, bad):
    array = dict(zip(("queries", "hits"), vectors, strict=True))[name]
    array[2, ..., 3] = bad
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(UsageError, match=f"{name} must be finite, those of query 2 hold NaN or infinite values"):
        reranked(by(weights, "looks"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"heading": np.ones((QUERIES, HITS - 1))}, r"metadata heading must be one .* = \(4, 7\), got \(4, 6\)"),
        ({"heading": np.ones(HITS)}, r"metadata heading must be one value a hit, \(Q, K\) = \(4, 7\), got \(7,\)"),
        ({"speed": np.ones((QUERIES, HITS))}, "query 0: metadata must hold heading of every hit, heading is missing"),
        ({"heading": np.full((QUERIES, HITS), np.nan)}, "query 0: metadata heading must be finite"),
        ({"id": np.ones((QUERIES, HITS))}, "metadata id must be texts or whole numbers, got float64"),
        ("heading\n" + "1\n" * 27, r"one row for each hit, in order, 4 x 7 = 28, got 27"),
        ("a,heading\n" + "1,2\n" * 27 + "1\n", "2 cells in every row, row 28 has 1"),
        ("a,a\n" + "1,2\n" * 28, "a line of different names, got a,a"),
        ("", "a line of different names, got none"),
        (b"\xff\xfe\xff", "can't be read as CSV in UTF-8"),
    ],
)
def test_metadata_that_does_not_fit_is_told(weights, vectors, reranked, tmp_path, content, message):
    path = tmp_path / ("known.npz" if isinstance(content, dict) else "known.csv")
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        reranked(by(weights, "heading"), f"metadata={path}")


def test_files_that_can_not_be_read_are_told(weights, vectors, reranked, tmp_path):
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "text.npz").write_text("1 2 3")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "texts.npy", np.array(["a"]))
    np.savez(tmp_path / "half.npz", queries=np.ones(8))
    np.savez(tmp_path / "twice.npz", queries=vectors[0], hits=vectors[1], a=np.ones((QUERIES, HITS)))
    np.savez(tmp_path / "known.npz", a=np.ones((QUERIES, HITS)))
    for files, message in (
        (["absent.npy", "hits.npy"], "queries '.*absent.npy': no such file"),
        (["queries.npy", "text.npy"], "hits '.*text.npy' isn't a readable .npy file"),
        (["queries.npy", "objects.npy"], "hits '.*objects.npy' isn't a readable .npy file"),
        (["texts.npy", "hits.npy"], "queries must be real numbers, got <U1"),
        (["text.npz"], "files '.*text.npz' isn't a readable .npz file"),
        (["half.npz"], "half.npz must hold the arrays queries and hits, got queries"),
        (["queries.npy"], "files must be queries.npy and hits.npy, or one .npz"),
    ):
        with pytest.raises(UsageError, match=message):
            reranked(by(weights, "looks"), files=files)
    for name, message in (("absent.csv", "no such file"), ("queries.npy", "must be an .npz or a .csv file")):
        with pytest.raises(UsageError, match=message):
            reranked(by(weights, "looks"), f"metadata={tmp_path / name}")
    with pytest.raises(UsageError, match=r"holds a, which .*twice.npz holds too"):
        reranked(by(weights, "looks"), f"metadata={tmp_path / 'known.npz'}", files=["twice.npz"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("reranker=none", "reranker must name at least one"),
        ("reranker=r_match", "reranker r_match needs local_map, zoo rerank has vectors alone: use zoo search"),
        ("reranker=gnn_rerank", "reranker 'gnn_rerank' has no default for what only you can know"),
        ("out=queries.npy/here", "out: the folder can't be made"),
    ],
)
def test_rerankers_and_folders_that_will_not_do_are_told(vectors, reranked, tmp_path, monkeypatch, word, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        reranked(*([word] if word.startswith("reranker") else ["reranker=superglobal", word]))


# Interruptions


def test_an_interrupted_run_writes_nothing(vectors, reranked, tmp_path, monkeypatch):
    real, calls = np.save, []

    def save(file, array):
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(file, array)

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(KeyboardInterrupt):
        reranked("reranker=superglobal")
    assert list((tmp_path / "run").iterdir()) == []


# As a user types it


def test_the_command_takes_files_with_any_name(command, weights, vectors, tmp_path):
    queries, hits = vectors
    np.savez(tmp_path / "my hits, (1)=a.npz", queries=queries, hits=hits)
    done = command("zoo", "rerank", "my hits, (1)=a.npz", by(weights, "looks"), "out=here")
    assert "queries: 4, hits of each: 7, D: 8, re-ranked in " in done.stdout
    same([np.load(tmp_path / "here" / f"{name}.npy") for name in ("order", "scores")], own(weights, "looks", *vectors))
    assert json.loads((tmp_path / "here/results.json").read_text())["command"][:2] == ["zoo", "rerank"]


def test_weights_that_are_not_there_end_in_one_line(command, vectors, tmp_path):
    words = ["reranker=gnn_rerank", "reranker.gnn_rerank.weights=nowhere.safetensors"]
    done = command("zoo-rerank", "queries.npy", "hits.npy", *words, code=2)
    assert done.stderr == "zoo: weights 'nowhere.safetensors': no such file\n"
    assert not list(tmp_path.rglob(".hydra"))
