"""How experiments are written down: read again as they were, by the release before too, and refused where they are damaged."""

import json
from typing import Any

import pytest
from experiment_log import experiment

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import Adaptive, LinThompson, LinUcb, Thompson
from tastemaker.experiments.kept import decode_experiment, encode_experiment


@pytest.mark.parametrize(
    "policy", [LinUcb(encoding=1), LinUcb(encoding=2), LinThompson(encoding=1), Thompson()]
)
def test_the_release_before_reads_what_it_could_have_written_itself(policy: Adaptive) -> None:
    kept = encode_experiment(experiment(allocation=policy))
    assert ("encoding" in json.loads(kept)["allocation"]) == (getattr(policy, "encoding", 1) == 2)
    assert decode_experiment("e", kept) == experiment(allocation=policy)


@pytest.mark.parametrize(
    "allocation", [None, [], "fixed", {}, {"kind": 3}, {"kind": None}, {"kind": ["lin-ucb"]}]
)
def test_a_damaged_experiment_is_said(allocation: Any) -> None:
    tree = json.loads(encode_experiment(experiment(allocation=Thompson())))
    for text in (json.dumps(tree | {"allocation": allocation}), json.dumps([allocation]), "{"):
        with pytest.raises(ExperimentError, match="experiment e cannot be read"):
            decode_experiment("e", text)
