"""What goes to stdout."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tastemaker import terminal
from tastemaker.terminal import print_json, print_table


def test_json_has_null_for_what_is_no_number(capsys):
    print_json({"a": [1.5, float("nan")], "b": {"c": (np.float64("inf"), 2, True, None, "NaN")}})
    said = json.loads(
        capsys.readouterr().out, parse_constant=lambda word: 1 / 0
    )  # fails for NaN and Infinity
    assert said == {"a": [1.5, None], "b": {"c": [None, 2, True, None, "NaN"]}}


def test_a_table_cuts_nothing_off(capsys):
    """A sentence that is wider than the line goes on below; the numbers beside it keep their own line."""
    why = "rewarded_requests of calm is 0.1947, must be at least 0.4814 (0.95 times the control's 0.5068)"
    print_table("Changes", ["at", "version", "reason"], [["2026-11-26", 12, why]], to=Console(width=80))
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert lines[0][1:3] == [" 2026-11-26 ", "      12 "]
    assert " ".join(" ".join(line[3].split()) for line in lines) == why


NUMBERS = [1_234_567 + i for i in range(7)]


def told(capsys, columns, rows, title="T", width=80):
    """What the console of commands prints into a window so wide: the cells of each column, put together again."""
    terminal.console.width, kept = width, terminal.console.width
    try:
        print_table(title, columns, rows)
    finally:
        terminal.console.width = kept
    said = capsys.readouterr().out
    lines = [line.strip("│").split("│") for line in said.splitlines() if line.startswith("│")]
    return said, [[cell.strip() for cell in column] for column in zip(*lines, strict=True)]


@pytest.mark.parametrize(
    "why", ["few users so far: ask again in an hour", "rewarded_requests is 0.1947, must be at least 0.4814"]
)
def test_numbers_beside_a_sentence_stay_whole_in_a_narrow_window(capsys, why):
    """Seven numbers of seven digits are 7 * (7 + 3) of 80 columns: what is left is too narrow for the sentence's words."""
    columns = [*(f"n{i}" for i in range(7)), "reason"]
    _, found = told(capsys, columns, [[*NUMBERS, why]])
    assert [[cell for cell in column if cell] for column in found[:7]] == [[str(n)] for n in NUMBERS]
    assert "".join("".join(found[7]).split()) == "".join(why.split())


@given(st.lists(st.text("ab1 ,.[]/:", max_size=60), min_size=1, max_size=9), st.integers(20, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_letter_of_a_table_is_printed(capsys, cells, width):
    _, found = told(capsys, ["c"] * len(cells), [cells], width=width)
    assert ["".join("".join(column).split()) for column in found] == ["".join(cell.split()) for cell in cells]


def test_brackets_and_colons_are_no_markup(capsys):
    said, found = told(capsys, ["at", "[bold]"], [["[/tmp/log]", ":smile: [red]x[/red]"]], title="[/of] 1")
    assert said.startswith("[/of] 1\n")
    assert "[bold]" in said
    assert found == [["[/tmp/log]"], [":smile: [red]x[/red]"]]
