"""What the history of aliases says: of any sequence of moves, and of moves that MLflow's own client made."""

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.bundle.manifest import BundleRef
from tastemaker.config import Settings
from tastemaker.errors import RegistryError
from tastemaker.registry.client import Registry
from tastemaker.registry.history import (
    AliasMove,
    all_live_at,
    live_at,
    outside_moves,
    read_moves,
    rollback_target,
    tag_of,
)

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

ALIASES = ("champion", "shadow")
STEPS = st.lists(
    st.tuples(
        st.integers(1, 50),  # milliseconds until it
        st.sampled_from(["set", "rollback", "outside", "look"]),
        st.sampled_from(ALIASES),
        st.one_of(st.none(), st.integers(1, 4)),
    ),
    max_size=30,
)


class Model:
    """A registry of aliases as they really are, whose history is written like the real one's."""

    def __init__(self):
        self.now_ms, self.tags, self.aliases = 1000, {}, {}
        self.seen = [(0, {})]
        """What was live and known from each time on."""

    @property
    def moves(self):
        return read_moves(self.tags)

    def keep(self, move, mark):
        name, text = tag_of(move, mark)
        self.tags[name] = text

    def look(self):
        for move, mark in outside_moves(self.moves, self.aliases, self.now_ms):
            self.keep(move, mark)
            self.now_ms = max(self.now_ms, move.timestamp_ms)
        self.seen.append((self.now_ms, dict(self.aliases)))

    def point(self, alias, version, kind):
        self.look()
        self.now_ms += 1
        previous = self.aliases.get(alias)
        move = AliasMove(self.now_ms, alias, version, previous, "ann", "", kind)
        self.keep(move, f"{len(self.tags):016d}")
        self.name(alias, version)
        self.seen.append((self.now_ms, dict(self.aliases)))

    def name(self, alias, version):
        self.aliases = {**self.aliases, alias: version}
        if version is None:
            del self.aliases[alias]

    def step(self, wait_ms, kind, alias, version):
        self.now_ms += wait_ms
        if kind == "outside":
            self.name(alias, version)
        elif kind == "look":
            self.look()
        elif kind == "set":
            self.point(alias, version, "set")
        else:
            self.look()
            if (back := rollback_target(self.moves, alias)) is not None:
                self.point(alias, back, "rollback")


def played(steps):
    model = Model()
    for step in steps:
        model.step(*step)
    model.look()
    return model


@given(STEPS, st.data())
def test_the_history_says_at_every_time_what_was_live_as_far_as_anybody_had_seen(steps, data):
    model = played(steps)
    time_ms = data.draw(st.integers(0, model.now_ms + 1))
    expected = [aliases for since_ms, aliases in model.seen if since_ms <= time_ms][-1]
    assert {alias: move.version for alias, move in all_live_at(model.moves, time_ms).items()} == expected
    for alias in ALIASES:
        move = live_at(model.moves, alias, time_ms)
        assert (move.version if move else None) == expected.get(alias)


@given(STEPS)
def test_each_move_names_what_was_before_it_and_times_only_grow(steps):
    moves = played(steps).moves
    assert all(one.timestamp_ms < other.timestamp_ms for one, other in pairwise(moves))
    for alias in ALIASES:
        named = [None, *(move.version for move in moves if move.alias == alias)]
        assert [move.previous for move in moves if move.alias == alias] == named[:-1]


@given(STEPS)
def test_whoever_else_looks_finds_nothing_more_and_a_move_that_two_saw_is_there_once(steps):
    model = Model()
    for step in steps:
        model.step(*step)
    both = [outside_moves(model.moves, model.aliases, model.now_ms + late) for late in (0, 7)]
    for found in both:
        for move, mark in found:
            model.keep(move, mark)
    assert len(model.moves) == len(read_moves(model.tags))
    assert [m for m in model.moves if m.kind == "outside"][-len(both[0]) :] == [
        m for m, _ in both[0]
    ] or not both[0]
    assert outside_moves(model.moves, model.aliases, model.now_ms) == []


@given(STEPS)
def test_rollbacks_one_after_the_other_walk_back_to_the_first_version(steps):
    model = played(steps)
    walked = [model.aliases.get("champion")]
    while (back := rollback_target(model.moves, "champion")) is not None:
        model.point("champion", back, "rollback")
        assert back != walked[-1]
        walked.append(back)
        assert len(walked) <= len(steps) + 2
    assert rollback_target(model.moves, "champion") is None


@pytest.fixture(scope="module")
def registry(tmp_path_factory, make_home):
    return Registry(Settings(), make_home(tmp_path_factory.mktemp("h") / "home"))


@pytest.fixture
def catalogue(registry, request):
    """A catalogue of three versions, of this test alone, whose champion is version 1."""
    name = f"h-{abs(hash(request.node.name)) % 10**8}"
    for n in (1, 2, 3):
        sha256 = f"{n:064x}"
        registry.publish(name, BundleRef(f"manifests/default/{sha256[:12]}.json", sha256), {})
    registry.set_alias(name, "champion", 1, "ann", "first")
    return name


def test_moves_by_mlflows_own_client_are_kept_once_as_moved_outside(registry, catalogue):
    client = registry._client
    client.set_registered_model_alias(catalogue, "champion", "2")
    client.set_registered_model_alias(catalogue, "shadow", "3")
    seen = registry.note_outside_moves(catalogue)
    assert [(m.alias, m.version, m.previous, m.actor, m.kind) for m in seen] == [
        ("champion", 2, 1, "mlflow", "outside"), ("shadow", 3, None, "mlflow", "outside"),
    ]  # fmt: skip
    assert registry.note_outside_moves(catalogue) == []
    assert registry.history(catalogue)[1:] == seen
    client.delete_registered_model_alias(catalogue, "shadow")
    [gone] = registry.note_outside_moves(catalogue)
    assert (gone.alias, gone.version, gone.previous) == ("shadow", None, 3)
    now_ms = time.time_ns() // 1_000_000 + 1
    assert {alias: m.version for alias, m in all_live_at(registry.history(catalogue), now_ms).items()} == {
        "champion": 2
    }


def test_a_rollback_goes_back_from_what_mlflow_was_told_though_nobody_had_seen_it(registry, catalogue):
    registry.set_alias(catalogue, "champion", 2, "ann", "better")
    registry._client.set_registered_model_alias(catalogue, "champion", "3")
    assert registry.rollback(catalogue, "champion", "bob").number == 2
    assert [(m.version, m.previous, m.kind) for m in registry.history(catalogue)] == [
        (1, None, "set"), (2, 1, "set"), (3, 2, "outside"), (2, 3, "rollback"),
    ]  # fmt: skip


def test_a_removed_alias_is_in_the_history_and_may_be_rolled_back(registry, catalogue):
    assert registry.remove_alias(catalogue, "shadow", "ann", "") is None
    move = registry.remove_alias(catalogue, "champion", "ann", "no more")
    assert (move.version, move.previous, registry.aliases(catalogue)) == (None, 1, {})
    assert registry.rollback(catalogue, "champion").number == 1


def test_an_alias_moves_only_where_others_name_what_was_expected(registry, catalogue):
    with pytest.raises(
        RegistryError, match="version of alias champion, is 1, must be 2: it was moved meanwhile"
    ):
        registry.set_alias(catalogue, "shadow", 3, "ann", "", expected={"champion": 2})
    with pytest.raises(RegistryError, match="version of alias champion, is 1, must be none"):
        registry.set_alias(catalogue, "shadow", 3, "ann", "", expected={"champion": None})
    registry.set_alias(catalogue, "shadow", 3, "ann", "", expected={"champion": 1, "challenger": None})
    assert registry.aliases(catalogue)["shadow"].number == 3


def test_a_version_that_was_made_in_mlflow_is_no_bundle(registry, catalogue):
    version = registry._client.create_model_version(catalogue, "file:///elsewhere")
    registry._client.set_registered_model_alias(catalogue, "shadow", version.version)
    assert [v.number for v in registry.versions(catalogue)] == [1, 2, 3]
    assert registry.named(catalogue)["shadow"] is None
    assert list(registry.aliases(catalogue)) == ["champion"]
    [move] = registry.note_outside_moves(catalogue)
    assert (move.alias, move.version) == ("shadow", int(version.version))
    with pytest.raises(RegistryError, match="has no version or alias shadow"):
        registry.version(catalogue, "shadow")


def test_moves_of_an_earlier_release_are_read():
    move = AliasMove(5, "champion", 1, None, "ann", "first")
    name, text = tag_of(move, "0" * 8)
    assert read_moves({name: text, "other": "x"}) == [move]
    assert read_moves({name: text, tag_of(replace(move, timestamp_ms=9), "0" * 8)[0]: text}) == [move]
