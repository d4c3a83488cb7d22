"""What a request's variant changes about the stages, as its query carries it."""

import logging
from functools import lru_cache

from tastemaker.errors import ConfigError
from tastemaker.experiments.assignment import Assignment
from tastemaker.stages.policy import policy_text
from tastemaker_services.run import Run

log = logging.getLogger(__name__)


def policy_for(run: Run, assignment: Assignment | None) -> str:
    """The text of the variant's policy; empty outside of experiments.

    One that this release cannot read, of an experiment that an earlier one began, changes nothing: the request says so.
    """
    if assignment is None:
        return ""
    try:
        return policy_text(assignment.policy)
    except ConfigError as error:
        run.fall_to("no-policy")
        _warn(f"experiment {assignment.experiment}, variant {assignment.variant}: {error}")
        return ""


@lru_cache(64)
def _warn(text: str) -> None:
    log.warning("a policy changes nothing: %s (further requests are only counted)", text)
