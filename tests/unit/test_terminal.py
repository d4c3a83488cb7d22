"""What goes to stdout."""

import json

import numpy as np
from rich.console import Console

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
