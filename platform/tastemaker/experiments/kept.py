"""How experiments are written down, so that the release before reads what it could have written itself."""

import json
from typing import Any, Final

from pydantic import ValidationError

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import Contextual
from tastemaker.experiments.definition import Experiment

_UNSAID: Final = 1
"""The encoding of context by a release that did not write down which; it is not written still, as that release would not read it."""
_ON_CONTEXT: Final = "lin-"
"""What kinds of policies on context begin with."""


def encode_experiment(experiment: Experiment) -> str:
    """JSON that `decode_experiment` reads, and an earlier release too, where it has all that the experiment uses."""
    allocation = experiment.allocation
    if isinstance(allocation, Contextual) and allocation.encoding == _UNSAID:
        return experiment.model_dump_json(exclude={"allocation": {"encoding"}})
    return experiment.model_dump_json()


def decode_experiments(fields: Any) -> tuple[Experiment, ...]:
    """The experiments in the reply to HGETALL, by name.

    Raises:
        ExperimentError: One was written by a newer release, or is damaged.
    """
    return tuple(decode_experiment(name, text) for name, text in sorted(fields.items()))


def decode_experiment(name: str, text: str) -> Experiment:
    """An experiment as it is kept under its name.

    Raises:
        ExperimentError: A newer release wrote it, or it is damaged.
    """
    try:
        return Experiment.model_validate_json(_completed(text))
    except ValidationError as error:
        raise ExperimentError(
            f"experiment {name} cannot be read",
            value=str(error.errors()[0]["loc"]),
            mend="a newer release wrote it: stop it there, or bring this one up to it",
        ) from error


def _completed(text: str) -> str:
    """With what an earlier release did not write down: policies on context go on to encode it as they did."""
    try:
        tree = json.loads(text)
        allocation = tree["allocation"]
        kind = allocation["kind"]
        if not isinstance(kind, str) or not kind.startswith(_ON_CONTEXT) or "encoding" in allocation:
            return text
    except (ValueError, TypeError, KeyError):
        return text  # whoever parses it says what is wrong
    return json.dumps(tree | {"allocation": allocation | {"encoding": _UNSAID}})
