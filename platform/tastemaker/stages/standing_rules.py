"""Business rules of a catalogue that hold at once and for whichever version serves: kept in Redis/Valkey, by name.

They come beside those of the bundle and of a request's variant. Offline evaluation knows none.
"""

import json
import logging
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic import Field, TypeAdapter, ValidationError

from tastemaker.errors import CompatibilityError, UsageError
from tastemaker.stages.business_rules import Rule
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.strict import Strict

if TYPE_CHECKING:
    import redis
    from redis.asyncio import Redis as AsyncRedis

MOST_RULES: Final = 100
MOST_BYTES: Final = 64 * 2**10
"""Of all rules of a catalogue: the log keeps them with every answer."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
log = logging.getLogger(__name__)


class RuleFile(Strict):
    """What a file of rules holds."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=MOST_RULES, description="the rules")]


_RULES: Final = TypeAdapter(tuple[Rule, ...])


def write_rules(client: "redis.Redis", keys: Keys, name: str, rules: RuleFile) -> None:
    """Puts rules in place of those of that name; they hold within a second.

    Raises:
        UsageError: The name cannot be one, or the catalogue would have too many rules.
        StateError: Redis/Valkey cannot be reached.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "name of rules", value=name[:60], limit="1 to 40 of a-z, 0-9 and '-'", mend="choose another name"
        )
    text = json.dumps(plain(rules.rules))
    with state_errors("write rules"):
        kept: Any = client.hgetall(keys.rules)
        others = [other for key, other in kept.items() if key != name]
        num = sum(len(json.loads(other)) for other in others) + len(rules.rules)
        num_bytes = sum(map(len, others)) + len(text)
        if num > MOST_RULES or num_bytes > MOST_BYTES:
            raise UsageError(
                "rules of the catalogue", value=f"{num} in {num_bytes} bytes", limit=f"at most {MOST_RULES} in {MOST_BYTES}",
                mend="remove some, or give items a tag and name the tag",
            )  # fmt: skip
        client.hset(keys.rules, name, text)


def plain(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Rules as JSON values, without what is as by default."""
    return [{"kind": rule.kind} | rule.model_dump(mode="json", exclude_defaults=True) for rule in rules]


def remove_rules(client: "redis.Redis", keys: Keys, name: str) -> bool:
    """Takes the rules of a name away; whether there were any.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("remove rules"):
        return bool(client.hdel(keys.rules, name))


def read_rules(client: "redis.Redis", keys: Keys) -> dict[str, tuple[Rule, ...]]:
    """All rules of a catalogue, by name.

    Raises:
        StateError: Redis/Valkey cannot be reached.
        CompatibilityError: A newer release wrote some.
    """
    with state_errors("read rules"):
        found: Any = client.hgetall(keys.rules)
    return {name: decode(name, text) for name, text in sorted(found.items())}


async def read_texts_async(client: "AsyncRedis", keys: Keys) -> dict[str, str]:
    """All rules of a catalogue by name, as they are kept.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read rules"):
        found = await cast("Awaitable[Any]", client.hgetall(keys.rules))
    return dict(found)


def policy_in(texts: Mapping[str, str]) -> str:
    """All rules of a catalogue, of what is kept by name, as the text of a policy; empty where there are none.

    Of rules that a newer release wrote it warns; the others count.
    """
    rules: list[Any] = []
    for name, text in sorted(texts.items()):
        try:
            rules += plain(decode(name, text))
        except CompatibilityError as error:
            log.warning("%s", error)
    return json.dumps({"reranking": {"rules": rules}}, sort_keys=True, separators=(",", ":")) if rules else ""


def decode(name: str, text: str) -> tuple[Rule, ...]:
    """The rules of a JSON text as it is kept.

    Raises:
        CompatibilityError: It is of another release.
    """
    try:
        return _RULES.validate_json(text)
    except ValidationError as error:
        raise CompatibilityError(
            f"rules {name} cannot be read", mend="write them again with this release"
        ) from error
