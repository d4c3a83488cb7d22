"""Rules of the catalogue hold for whichever version serves, from the moment they are written, through real Valkey."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateway_world import World, items, variant

from tastemaker import cli, context
from tastemaker.errors import ConfigError, UsageError
from tastemaker.stages.policy import beside, hard_rules_of, policy_of
from tastemaker.stages.standing_rules import (
    MOST_RULES,
    RuleFile,
    decode,
    policy_in,
    read_rules,
    remove_rules,
    write_rules,
)
from tastemaker.state.connection import connect_async
from tastemaker_services.gateway.standing import StandingRules

BLOCK = {"kind": "block", "match": {"item_ids": ["i5"]}}
PIN = {"kind": "pin", "match": {"item_ids": ["i7"]}, "rank": 1, "when": {"devices": ["tv"]}}


def rules(*written: dict[str, object]) -> RuleFile:
    return RuleFile.parse({"rules": list(written)}, "rules.yaml")


def test_what_is_written_is_read_and_can_be_taken_away(state: Any) -> None:
    write_rules(state.client, state.keys, "law", rules(BLOCK))
    write_rules(state.client, state.keys, "promo", rules(PIN, BLOCK))
    found = read_rules(state.client, state.keys)
    assert {name: [rule.kind for rule in own] for name, own in found.items()} == {
        "law": ["block"],
        "promo": ["pin", "block"],
    }
    assert found["law"] == rules(BLOCK).rules
    assert remove_rules(state.client, state.keys, "promo")
    assert not remove_rules(state.client, state.keys, "promo")
    assert list(read_rules(state.client, state.keys)) == ["law"]


def test_too_many_and_ill_named_rules_are_refused(state: Any) -> None:
    write_rules(state.client, state.keys, "all", rules(*[BLOCK] * MOST_RULES))
    with pytest.raises(UsageError, match=r"rules of the catalogue.*101 in .*at most 100"):
        write_rules(state.client, state.keys, "more", rules(BLOCK))
    write_rules(state.client, state.keys, "all", rules(BLOCK))
    long = {"kind": "block", "match": {"item_ids": [f"item-{i:0100}" for i in range(700)]}}
    with pytest.raises(UsageError, match=r"rules of the catalogue.*give items a tag"):
        write_rules(state.client, state.keys, "more", rules(long))
    with pytest.raises(UsageError, match="name of rules"):
        write_rules(state.client, state.keys, "No Name", rules(BLOCK))
    with pytest.raises(ConfigError, match="rules"):
        rules({"kind": "block", "match": {"colour": "red"}})


def test_a_gateway_follows_them_and_keeps_the_last_while_valkey_is_away(state: Any) -> None:
    async def follow() -> list[str]:
        connection = connect_async(state.url)
        standing = StandingRules(connection, state.keys)
        seen = [standing.policy()]
        for change in (
            lambda: write_rules(state.client, state.keys, "law", rules(BLOCK)),
            lambda: remove_rules(state.client, state.keys, "law"),
        ):
            change()
            await standing.read()
            seen.append(standing.policy())
        write_rules(state.client, state.keys, "law", rules(BLOCK))
        await standing.read()
        standing._client = connect_async("redis://127.0.0.1:1")
        await standing.read()
        await connection.aclose()
        return [*seen, standing.policy()]

    empty, written, removed, last = asyncio.run(follow())
    assert empty == removed == ""
    assert [rule.kind for rule in hard_rules_of(written)] == ["block"]
    assert last == written


def test_standing_rules_and_a_variants_hold_together() -> None:
    world = World()
    world.standing = policy_in({"law": json.dumps([BLOCK])})
    assert "i5" not in items(world.recommend("nobody", k=9))
    own = {"kind": "block", "match": {"item_ids": ["i6"]}}
    world.assignment = variant(policy={"reranking": {"rules": [own], "keep_top": 1}, "until": "rank"})
    assert not {"i5", "i6"} & set(items(world.recommend("nobody", k=9)))
    both = beside(policy_of(world.graph.queries[-1][2].policy).dump(), "")
    assert policy_of(both).until == "rank"


def test_rules_that_nobody_can_read_leave_the_others(caplog: pytest.LogCaptureFixture) -> None:
    text = policy_in({"a": '[{"kind":"hide"}]', "b": json.dumps([BLOCK])})
    assert [rule.kind for rule in hard_rules_of(text)] == ["block"]
    assert "rules a cannot be read" in caplog.text
    assert len(decode("b", json.dumps([BLOCK]))) == 1


def test_the_command_writes_lists_and_removes(state: Any, tmp_path: Path) -> None:
    file = tmp_path / "law.yaml"
    file.write_text("rules:\n  - {kind: block, match: {categories: [gambling]}, when: {countries: [DE]}}\n")
    context.use(state.settings)
    cli.invoke(["rules", "set", "law", "--file", str(file)])
    [shown] = cli.invoke(["rules", "list", "--json"])
    assert (shown["name"], shown["kind"], shown["when"]) == ("law", "block", {"countries": ["DE"]})
    cli.invoke(["rules", "remove", "law"])
    with pytest.raises(UsageError, match="there are no rules"):
        cli.invoke(["rules", "remove", "law"])
