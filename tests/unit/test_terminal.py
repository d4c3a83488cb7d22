"""What goes to stdout."""

import json

import numpy as np

from tastemaker.terminal import print_json


def test_json_has_null_for_what_is_no_number(capsys):
    print_json({"a": [1.5, float("nan")], "b": {"c": (np.float64("inf"), 2, True, None, "NaN")}})
    said = json.loads(
        capsys.readouterr().out, parse_constant=lambda word: 1 / 0
    )  # fails for NaN and Infinity
    assert said == {"a": [1.5, None], "b": {"c": [None, 2, True, None, "NaN"]}}
