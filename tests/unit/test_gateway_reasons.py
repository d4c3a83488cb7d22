"""What an answer says of why an item is there: by who proposed it, and what was known of the user."""

import numpy as np
import pytest
from gateway_world import World, candidates, make_face

from tastemaker import telemetry
from tastemaker.features.user_state import UserState
from tastemaker.types import Query
from tastemaker_services.gateway import records
from tastemaker_services.gateway.answers import fits_of, items_of
from tastemaker_services.gateway.users import User

PERSONAL, POPULAR, FRESH, PINNED = 1, 2, 4, 8
"""Bits of the fake bundle's sources `two_tower` and `popular`, and of those that every bundle has."""
NEW = User([], UserState(), b"v1")
KNOWN = User(["i1"], UserState(), b"v1")


def query(*rows: int) -> Query:
    return Query(np.array(rows, np.int32))


@pytest.mark.parametrize(
    ("sources", "history", "user", "reason"),
    [
        (PERSONAL, [1], KNOWN, "fits the history"),
        (PERSONAL | POPULAR, [1], KNOWN, "fits the history"),
        (POPULAR, [1], KNOWN, "popular now"),
        (FRESH, [1], KNOWN, "new here"),
        (FRESH | PERSONAL, [1], KNOWN, "fits the history"),
        (PINNED | PERSONAL, [1], KNOWN, "pinned"),
        (PERSONAL, [1], NEW, "fits the history"),  # of the session alone
        (PERSONAL, [1], None, "fits the history"),
        (PERSONAL, [], NEW, "for somebody new"),
        (PERSONAL | POPULAR, [], NEW, "for somebody new"),
        (POPULAR, [], NEW, "popular now"),
        (PERSONAL, [], KNOWN, "popular now"),  # the bundle knows none of what they took
        (PERSONAL, [], None, "popular now"),  # they may be known: nothing could be read
        (PINNED, [], None, "pinned"),
        (0, [1], KNOWN, "what the caller says"),
    ],
)
def test_reasons_by_sources_and_history(
    sources: int, history: list[int], user: User | None, reason: str
) -> None:
    slate = candidates([3], sources)
    (item,) = items_of(make_face(), slate, "what the caller says", fits=fits_of(query(*history), user))
    assert item["reason"] == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [("editorial", "picked by editors"), ("nearby", "near you"), ("als", "fits the history")],
)
@pytest.mark.parametrize("beside", ["popular", "trending"])
def test_sources_that_speak_for_themselves(name: str, beside: str, reason: str) -> None:
    face = make_face()
    face.source_names = (name, beside)
    reasons = {item["reason"] for item in items_of(face, candidates([3], 3), "?", fits="fits the history")}
    assert reasons == {reason}


def test_a_known_user_of_whom_nothing_can_be_read_is_not_called_new() -> None:
    world = World()
    world.state_is_down = True
    answer = world.recommend("old")
    assert "no-history" in answer["degraded"]
    assert {item["reason"] for item in answer["items"]} == {"popular now"}


def test_a_record_that_cannot_be_made_counts_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no record")

    world = World()
    dropped = telemetry.DECISIONS.labels("default", "dropped")
    before = dropped._value.get()
    monkeypatch.setattr(records, "decision_of", fail)
    assert world.recommend("old")["items"]
    assert dropped._value.get() == before + 1
