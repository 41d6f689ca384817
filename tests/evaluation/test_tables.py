"""Tables in every form; whatever a name holds arrives as text."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.evaluation.tables import Table

HOSTILE = ["[bold]x[/]", "a|b", "5 % & #1_$~^\\{}", "<script>", "line\nbreak", 'say "hi", ok', "*", ""]
TABLE = Table(
    "Runs of_a kind",
    ["run", "map|x"],
    [[name, f"0.{number}"] for number, name in enumerate(HOSTILE)],
    frozenset({(1, 1)}),
    ["A note: 95 %."],
)


def test_markdown_has_one_line_per_row_and_equally_many_cells():
    lines = [line for line in TABLE.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(HOSTILE)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert lines[3] == "| a\\|b | **0.1** |"
    assert TABLE.markdown().startswith("### Runs of_a kind\n\n|")
    assert TABLE.markdown().endswith("\n\n- A note: 95 %.\n")


def test_markdown_without_bold_and_notes_ends_with_the_last_row():
    assert Table("T", ["a"], [["b"]]).markdown() == "### T\n\n| a |\n| --- |\n| b |\n"


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=2)))
def test_csv_gives_back_every_cell(rows):
    text = Table("T", ["a", "b"], rows, frozenset({(0, 0)}), ["note"]).csv()
    expected = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a", "b"], *expected]


def test_latex_escapes_what_means_something_to_it():
    text = TABLE.latex()
    assert r"5 \% \& \#1\_\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}" in text
    assert r"a\textbar{}b & \textbf{0.1} \\" in text
    assert r"\caption{Runs of\_a kind. A note: 95 \%.}" in text
    assert r"\begin{tabular}{lr}" in text
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}\n") == 1


@given(st.text(max_size=20))
def test_latex_is_balanced_whatever_a_cell_holds(name):
    text = Table(name, [name], [[name], [name]], frozenset({(0, 0)}), [name]).latex()
    bare = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "%" not in bare.removeprefix("%")
    body = text.split("\\midrule\n")[1].split("\n\\bottomrule")[0].split("\n")
    assert len(body) == 2
    assert not any(line.startswith(("[", "*")) for line in body)


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name])
def test_a_terminal_shows_names_as_they_are(name):
    assert name in TABLE.text()


def test_printed_cells_are_bold_in_a_terminal_only(capsys, monkeypatch):
    Table("T", ["run", "map"], [["a", "0.1"], ["b", "0.2"]], {(1, 1)}).print()
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    Table("T", ["run", "map"], [["a", "0.1"], ["b", "0.2"]], {(1, 1)}).print()
    shown = capsys.readouterr().out
    assert "\x1b[1m0.2\x1b[0m" in shown
    assert "\x1b[1m0.1" not in shown


def test_a_wide_table_is_not_wrapped():
    table = Table("T", [f"metric number {number}" for number in range(15)], [["0.123 ± 0.456"] * 15])
    assert "│ " + " │ ".join(f"{'0.123 ± 0.456':>{len(header)}}" for header in table.headers[1:]) in table.text()
