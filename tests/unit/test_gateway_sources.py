"""What an answer says of sources, and what sources learn of a request's place."""

import pytest
from gateway_world import World

from tastemaker.users.profile import Location, Profile
from tastemaker_services.web.bodies import check_context
from tastemaker_services.web.problems import Problem

HOME = Location(lat=52.516275, lon=13.377704)


def test_a_missing_source_is_a_rung_and_no_more() -> None:
    world = World()
    complete = world.recommend()
    world.graph.missing_sources = 0b10
    answer = world.recommend()
    assert answer["degraded"] == ["no-source"]
    assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in complete["items"]]


@pytest.mark.parametrize(
    ("profile", "context", "expected"),
    [
        (Profile(location=HOME), {}, "52.52,13.38"),
        (Profile(location=HOME), {"location": "48.86,2.35"}, "48.86,2.35"),
        (Profile(location=HOME, personalise=False), {}, None),
        (Profile(), {}, None),
    ],
    ids=["home", "request", "opted out", "unknown"],
)
def test_a_request_comes_from_where_it_says_or_from_home(
    profile: Profile, context: dict[str, str], expected: str | None
) -> None:
    world = World()
    world.profiles["old"] = profile
    world.recommend(user_id="old", context=context)
    (query,) = {query.context.get("location") for name, _, query in world.graph.queries if name == "retrieve"}
    assert query == expected


def test_a_place_that_is_nowhere_is_refused() -> None:
    check_context({"location": "52.5,13.4"})
    with pytest.raises(Problem, match="location"):
        check_context({"location": "here"})
