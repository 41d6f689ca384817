"""`zoo.files`: tables and names in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.files import BadFile, csv_rows, natural


def table(tmp_path, content):
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    return file


def test_rows_are_read_by_the_names_of_their_columns_and_what_they_lack_is_empty(tmp_path):
    file = table(tmp_path, 'name,note\r\na,"one\r\ntwo"\r\n\r\nb\r\n'.encode("utf-8-sig"))
    assert csv_rows(file, "list") == (
        [{"name": "a", "note": "one\r\ntwo"}, {"name": "b", "note": ""}],
        ["name", "note"],
    )
    assert csv_rows(table(tmp_path, b""), "list") == ([], [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name\na,b,c\n", r"row 1 must have no more cells than columns, got \['b', 'c'\] beyond"),
        (b'name\n"a\n', r"can't be read as CSV in UTF-8 \(unexpected end of data\)"),
        ("name\né\n".encode("latin1"), "can't be read as CSV in UTF-8"),
    ],
)
def test_what_is_no_table_is_named_with_its_file(tmp_path, content, problem):
    with pytest.raises(BadFile, match=rf"list .*table\.csv,? {problem}"):
        csv_rows(table(tmp_path, content), "list")


@given(st.lists(st.tuples(st.text("ab_", max_size=3), st.integers(0, 10**20)), max_size=8))
def test_numbers_in_names_are_sorted_as_numbers(pairs):
    names = [f"{text}{number}" for text, number in pairs]
    assert sorted(names, key=natural) == [f"{text}{number}" for text, number in sorted(pairs)]


def test_names_that_differ_in_zeros_alone_have_one_order():
    assert sorted(["q01", "q2", "q1", "q10", "q001"], key=natural) == ["q001", "q01", "q1", "q2", "q10"]
