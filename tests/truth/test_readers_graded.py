from __future__ import annotations

import json

import pytest

from zoo.truth.readers import read_graded

GAINS = {"q0": {"a": 3.0, "b": 0.5}, "q1": {"b": 0.0, "c": 1.0}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("truth.json", json.dumps(GAINS)),
        ("truth.csv", "query,item,gain\nq0,a,3\nq0,b,.5\n\nq1,b,0\nq1,c,1e0\n"),
        ("bom.csv", "\ufeffquery,item,gain\r\nq0,a,3\r\nq0,b,.5\r\nq1,b,0\r\nq1,c,1\r\n"),
        ("truth.qrels", "q0 0 a 3\nq0\t0\tb\t0.5\n\nq1 Q0 b 0\n  q1 0 c 1\n"),
        ("truth.txt", "q0 0 a 3\nq1 0 b 0\nq0 0 b 0.5\nq1 0 c 1\n"),
    ],
)
def test_the_three_forms(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    lists = read_graded(tmp_path / name)
    assert dict(zip(lists.query_ids, lists.gains, strict=True)) == GAINS


def test_csv_may_quote(tmp_path):
    (tmp_path / "truth.csv").write_text('query,item,gain\n"q, 0","a b",2\n')
    assert read_graded(tmp_path / "truth.csv").gains == ({"a b": 2.0},)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "[1]", "graded JSON must read"),
        ("t.json", '{"q": {"a": "3"}}', "query 'q': the gain of 'a' must be a number ≥ 0, got '3'"),
        ("t.json", '{"q": {"a": 1, "a": 2}}', "got 'a' twice"),
        ("t.json", '{"q": {"a": NaN}}', "query 'q': the gain of 'a'"),
        ("t.json", "{}", "at least one query"),
        ("t.csv", "", "the header must be query,item,gain, got ''"),
        ("t.csv", "query,gain,item\nq,1,a\n", "got 'query,gain,item'"),
        ("t.csv", "query,item,gain\n", "at least one query"),
        ("t.csv", "query,item,gain\nq,a\n", "line 2: query,item,gain are needed, got 'q,a'"),
        ("t.csv", "query,item,gain\nq,a,-1\n", "query 'q': the gain of 'a' must be a number ≥ 0, got -1.0"),
        ("t.csv", "query,item,gain\nq,a,x\n", "line 2: the gain must be a number, got 'x'"),
        ("t.qrels", "q 0 a 1\nq 0 a 1\n", "line 2: query 'q' judges 'a' twice"),
        ("t.qrels", "q 0 a\n", "line 1: 'query 0 item gain' is needed, got 'q 0 a'"),
        ("t.qrels", "q 0 a inf\n", "query 'q': the gain of 'a'"),
        ("t.qrels", "", "at least one query"),
    ],
)
def test_damaged_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_graded(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.qrels").write_bytes(b"\xff\xfe\x00q")
    with pytest.raises(ValueError, match=r"t\.qrels: 'utf-8' codec can't decode"):
        read_graded(tmp_path / "t.qrels")
    with pytest.raises(FileNotFoundError):
        read_graded(tmp_path / "absent.csv")
