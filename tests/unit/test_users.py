"""Profiles and rows of users; the words of groups; which ids are one user."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError
from tastemaker.users.merged import Merge, MergedUsers
from tastemaker.users.profile import (
    MOST_BYTES,
    Demographics,
    Location,
    Onboarding,
    Profile,
    ProfileRow,
    demographic_group,
)
from tastemaker.users.rows import parse_users

ID = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20)
WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ROWS = st.builds(
    ProfileRow,
    user_id=ID,
    demographics=st.none() | st.builds(Demographics, age=st.none() | st.integers(0, 130), gender=st.none() | WORD,
                                       more=st.dictionaries(WORD, WORD, max_size=3)),
    location=st.none() | st.builds(Location, lat=st.floats(-90, 90), lon=st.floats(-180, 180)),
    onboarding=st.none() | st.builds(Onboarding, liked=st.lists(ID, max_size=4).map(tuple), text=WORD),
    personalise=st.none() | st.booleans(),
)  # fmt: skip


@given(ROWS)
def test_what_is_kept_of_a_row_is_what_it_said(row: ProfileRow) -> None:
    (again,), rejected = parse_users([json.loads(row.model_dump_json())])
    assert (again, rejected) == (row, [])
    profile = Profile.decode({name: text for name, text in row.parts().items() if text is not None})
    assert profile.demographics == (row.demographics or Demographics())
    assert profile.location == row.location
    assert profile.onboarding == (row.onboarding or Onboarding())
    assert profile.personalise == (row.personalise is not False)


def test_a_row_names_what_it_changes() -> None:
    (row,), _ = parse_users([{"user_id": "a", "location": None, "personalise": True}])
    assert row.parts() == {"location": None, "personalise": "true"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (7, "the row is a int, must be an object"),
        ({}, "user_id is missing"),
        ({"user_id": ""}, "user_id is empty"),
        ({"user_id": "u" * 257}, "user_id has 257 characters, at most 256 are allowed"),
        ({"user_id": "u\t"}, "must be without control characters and not blank"),
        ({"user_id": "u", "age": 3}, "age is no field of a user"),
        ({"user_id": "u", "personalise": "no"}, "personalise is 'no'"),
        ({"user_id": "u", "demographics": {"age": 131}}, "demographics.age is 131"),
        ({"user_id": "u", "demographics": {"age": 3, "birth_year": 1990}}, "age or birth_year, not both"),
        ({"user_id": "u", "demographics": {"height": 3}}, "demographics.height is unknown"),
        ({"user_id": "u", "demographics": {"more": {str(n): "" for n in range(33)}}}, "demographics.more is"),
        ({"user_id": "u", "location": {"lat": 91, "lon": 0}}, "location.lat is 91"),
        ({"user_id": "u", "location": {"lat": float("nan"), "lon": 0}}, "location.lat is nan"),
        ({"user_id": "u", "location": {"lat": 1}}, "location.lon is missing"),
        ({"user_id": "u", "onboarding": {"liked": ["i"] * 201}}, "onboarding.liked is"),
        ({"user_id": "u", "onboarding": {"liked": [""]}}, "onboarding.liked.0 is empty"),
        ({"user_id": "u", "onboarding": {"text": "\ud800"}}, "onboarding.text is"),
        ({"user_id": "u", "onboarding": {"liked": ["i" * 256] * 200}}, f"at most {MOST_BYTES} are allowed"),
        ({"user_id": "good"}, "user_id stands already at row 0 of this batch"),
    ],
)
def test_a_bad_row_is_told_why_and_its_neighbours_are_kept(row: Any, reason: str) -> None:
    users, rejected = parse_users([{"user_id": "good"}, row, {"user_id": "other"}])
    assert [user.user_id for user in users] == ["good", "other"]
    assert [one.position for one in rejected] == [1]
    assert reason in rejected[0].reason
    json.dumps(rejected).encode()


@pytest.mark.parametrize(
    "kept", [{"schema": "2"}, {"personalise": "maybe"}, {"location": "[]"}, {"schema": "x"}]
)
def test_a_profile_of_another_release_says_so(kept: dict[str, str]) -> None:
    with pytest.raises(CompatibilityError, match="a user's profile"):
        Profile.decode(kept)


@given(st.integers(0, 130), st.none() | WORD)
def test_the_year_of_birth_and_the_age_are_of_one_group(age: int, gender: str | None) -> None:
    now_ms = 1_750_000_000_000  # in 2025
    by_age = demographic_group(Demographics(age=age, gender=gender), now_ms)
    assert by_age == demographic_group(Demographics(birth_year=2025 - age, gender=gender), now_ms)


@settings(deadline=None)  # the first use of Arrow takes its time
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_ids_are_one_user_where_a_chain_of_merges_leads_from_one_to_the_other(pairs: list[Any]) -> None:
    merges, parent = [], {n: n for n in range(10)}

    def root_of(user: int) -> int:
        return user if parent[user] == user else root_of(parent[user])

    for at, (one, other) in enumerate(pairs):  # admitted as `admit` does: roots only, no circles
        if parent[one] == one and one != root_of(other):
            parent[one] = root_of(other)
            merges.append(Merge(str(one), str(parent[one]), at))
    users = MergedUsers(merges)
    for n in range(10):
        root = root_of(n)
        assert users.root(str(n)) == str(root)
        assert users.family(str(n))[-1] == str(root)
        assert str(n) in users.family(str(root))
    table = pa.table({"user_id": pa.array([str(n) for n in range(10)], pa.string())})
    assert users.renamed(table)["user_id"].to_pylist() == [users.root(str(n)) for n in range(10)]
