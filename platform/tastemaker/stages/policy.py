"""What a variant of an experiment changes about the stages of its bundle."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from tastemaker.stages.business_rules import Hard, hard
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.strict import Strict

_KEPT: Final = 256
_RULES: Final = "rules"
Weight = Annotated[float, Field(ge=0, le=1000)]


class StagePolicy(Strict):
    """Only what differs from the bundle's own config. Whatever it says, hard rules stay."""

    until: Literal["retrieve", "rank", "rerank"] = Field("rerank", description="last stage that runs")
    reranking: dict[str, Any] = Field(
        {},
        description="keys of the bundle's `reranking` with other values, null for off; `rules` come beside the bundle's",
    )
    source_weights: dict[str, Weight] = Field(
        {}, description="weight of retrieval sources in the merged score by name; others keep theirs"
    )

    @classmethod
    def of(cls, policy: Mapping[str, Any] | None, origin: str = "policy") -> Self:
        """The policy that a variant spells out; none changes nothing.

        Args:
            policy: As read from JSON.
            origin: Names it in errors.

        Raises:
            ConfigError: A key is unknown or a value is wrong.
        """
        found = cls.parse(policy or {}, origin)
        RerankingConfig.parse(merged({}, found.reranking), f"{origin}: reranking")
        return found

    def dump(self) -> str:
        """Its text as a query carries it, equal for equal policies; empty where it changes nothing."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(given, sort_keys=True, separators=(",", ":")) if given else ""

    def reranking_over(self, config: RerankingConfig) -> RerankingConfig:
        """The bundle's config with what the policy changes.

        Raises:
            ConfigError: They do not fit together.
        """
        if not self.reranking:
            return config
        return RerankingConfig.parse(
            merged(config.model_dump(mode="json"), self.reranking), "policy: reranking"
        )

    @property
    def hard_rules(self) -> tuple[Hard, ...]:
        """Blocks and filters that it adds to the bundle's."""
        if _RULES not in self.reranking:
            return ()
        return hard(RerankingConfig.parse({_RULES: self.reranking[_RULES]}, "policy: reranking").rules)


@lru_cache(_KEPT)
def policy_of(text: str) -> StagePolicy:
    """What `StagePolicy.dump` gave.

    Raises:
        ConfigError: It is of another release.
    """
    return StagePolicy.of(json.loads(text) if text else None)


def policy_text(policy: Mapping[str, Any] | None) -> str:
    """What a query carries of a variant's policy as read from JSON.

    Raises:
        ConfigError: See `StagePolicy.of`.
    """
    return _canonical(json.dumps(policy, sort_keys=True)) if policy else ""


@lru_cache(_KEPT)
def _canonical(text: str) -> str:
    return policy_of(text).dump()


@lru_cache(_KEPT)
def beside(text: str, rules: str) -> str:
    """The text of a policy with the rules of another in front of its own.

    >>> beside("", "") + beside('{"until":"rank"}', "")
    '{"until":"rank"}'
    """
    if not rules or not text:
        return text or rules
    own, others = json.loads(text), json.loads(rules)
    both = merged({_RULES: others["reranking"][_RULES]}, own.get("reranking", {}))
    return json.dumps(own | {"reranking": both}, sort_keys=True, separators=(",", ":"))


@lru_cache(_KEPT)
def hard_rules_of(text: str) -> tuple[Hard, ...]:
    """See `StagePolicy.hard_rules`."""
    return policy_of(text).hard_rules


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config's JSON with changes, key by key at every depth; lists are replaced, but `rules` are added to.

    >>> merged({"mmr": {"weight": 0.7, "head": 50}, "spread": None}, {"mmr": {"weight": 0.5}, "spread": {}})
    {'mmr': {'weight': 0.5, 'head': 50}, 'spread': {}}
    """
    result = dict(config)
    for key, value in changes.items():
        own = result.get(key)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            result[key] = merged(own, value)
        elif key == _RULES and isinstance(own, list) and isinstance(value, list):
            result[key] = [*own, *value]
        else:
            result[key] = value
    return result
