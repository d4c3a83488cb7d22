"""What a request's variants change about the stages, as its query carries it."""

import json
import logging
from functools import lru_cache

from tastemaker.errors import ConfigError
from tastemaker.experiments.assigned import Assigned
from tastemaker.stages.policy import merged, policy_text
from tastemaker_services.gateway.run import Run

log = logging.getLogger(__name__)


def policy_for(run: Run, assigned: Assigned) -> str:
    """The text of the variants' policies, which no two layers' experiments have a stage in common of; empty outside of experiments.

    One that this release cannot read, of an experiment that an earlier one began, changes nothing: the request says so.
    """
    texts = []
    for assignment in assigned.in_effect:
        try:
            texts.append(policy_text(assignment.policy))
        except ConfigError as error:
            run.fall_to("no-policy")
            _warn(f"experiment {assignment.experiment}, variant {assignment.variant}: {error}")
    return _together(tuple(text for text in texts if text))


@lru_cache(256)
def _together(texts: tuple[str, ...]) -> str:
    """One text of several, equal for equal ones in any order of layers.

    >>> _together(('{"until":"rank"}', '{"source_weights":{"popular":2.0}}'))
    '{"source_weights":{"popular":2.0},"until":"rank"}'
    """
    if len(texts) < 2:
        return "".join(texts)
    everything: dict[str, object] = {}
    for text in texts:
        everything = merged(everything, json.loads(text))
    return policy_text(everything)


@lru_cache(64)
def _warn(text: str) -> None:
    log.warning("a policy changes nothing: %s (further requests are only counted)", text)
