"""Assignment: hash vectors from another tool, shares, stability; bandits' exact propensities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ConfigError
from tastemaker.experiments.assignment import assign_fixed
from tastemaker.experiments.definition import Course, Experiment, Fixed, Thompson, Variant
from tastemaker.experiments.hashing import bucket, pick
from tastemaker.experiments.posterior import Posterior
from tastemaker.experiments.router import Snapshot, decode, draw, encode

DAY_MS = 86_400_000
VARIANTS = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger", policy={"k": 1}))


def experiment(**fields: object) -> Experiment:
    defaults = {
        "name": "checkout", "hypothesis": "h", "salt": "s1", "variants": VARIANTS,
        "allocation": Fixed(weights=(0.5, 0.5)),
    }  # fmt: skip
    return Experiment(**defaults | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("salt", "scope", "unit", "digest_start"),
    [
        # printf 's1\0checkout\0user-1' | sha256sum
        ("s1", "checkout", "user-1", 0x7E63E19DD1F58FF0),
        ("s1", "checkout", "ü", None),
    ],
)
def test_bucket_is_the_documented_hash(salt: str, scope: str, unit: str, digest_start: int | None) -> None:
    vectors = {"user-1": 0.4937115679076297, "ü": 0.6962507595302515}
    assert bucket(salt, scope, unit) == vectors[unit]
    if digest_start is not None:
        assert bucket(salt, scope, unit) == (digest_start >> 11) / 2**53


@given(st.text(max_size=20), st.text(max_size=20))
def test_bucket_lies_in_the_unit_interval_and_depends_on_the_salt(unit: str, other: str) -> None:
    unit, other = (text.encode(errors="ignore").decode() for text in (unit, other))
    assert 0 <= bucket("s", "x", unit) < 1
    assert (bucket("s", "x", unit) == bucket("s", "x", other)) == (unit == other)
    assert bucket("s", "x", unit) != bucket("t", "x", unit)


def test_a_fixed_split_gives_each_variant_its_share_and_is_stable() -> None:
    uneven = experiment(allocation=Fixed(weights=(0.8, 0.2)))
    units = [f"user-{i}" for i in range(20_000)]
    first = [assign_fixed(uneven, unit) for unit in units]
    share = np.mean([a.variant == "b" for a in first])
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 20_000))  # four standard deviations
    assert {a.propensity for a in first if a.variant == "b"} == {0.2}
    assert first[0].propensities == (0.8, 0.2)
    assert [a.variant for a in first] == [assign_fixed(uneven, unit).variant for unit in units]


def test_two_experiments_split_independently() -> None:
    one, two = experiment(name="one"), experiment(name="two")
    units = [f"user-{i}" for i in range(10_000)]
    same = np.mean([assign_fixed(one, u).variant == assign_fixed(two, u).variant for u in units])
    assert same == pytest.approx(0.5, abs=0.02)  # four standard deviations


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0, 1, exclude_max=True))
def test_pick_finds_the_interval_that_holds_the_point(raw: list[float], point: float) -> None:
    shares = [x / sum(raw) for x in raw]
    place = pick(shares, point)
    assert sum(shares[:place]) - 1e-12 <= point <= sum(shares[: place + 1]) + 1e-12


def test_a_draw_depends_on_the_snapshot_the_epoch_and_the_unit_alone() -> None:
    bandit = experiment(allocation=Thompson(floor=0.1))
    known = Posterior({"a": 0, "b": 1}, {"a": 1, "b": 0}, 2)  # w = 1/6, 5/6: p = 0.1 + 0.8 w
    one = draw(bandit, known, "user-1", 3 * DAY_MS + 5)
    assert one == draw(bandit, known, "user-1", 4 * DAY_MS - 1)
    assert one.epoch == 3
    assert one.policy_version == "thompson-2"
    assert one.propensities == pytest.approx((0.1 + 0.8 / 6, 0.1 + 4 / 6), abs=1e-9)
    assert one.propensity == one.propensities[("a", "b").index(one.variant)]
    # bucket("s1", "checkout:3", "user-1") is 0.823: beyond the first 0.233
    assert one.variant == "b"
    later = [draw(bandit, known, "user-1", day * DAY_MS).variant for day in range(50)]
    assert set(later) == {"a", "b"}


def test_draws_follow_their_propensity() -> None:
    bandit = experiment(allocation=Thompson(floor=0.1))
    known = Posterior({"b": 1}, {"a": 1}, 2)
    share = np.mean([draw(bandit, known, f"u{i}", 0).variant == "b" for i in range(5000)])
    assert share == pytest.approx(0.1 + 4 / 6, abs=4 * np.sqrt(0.77 * 0.23 / 5000))


def test_an_assignment_survives_being_kept() -> None:
    bandit = experiment(allocation=Thompson())
    one = draw(bandit, Posterior(), "user-9", 0)
    back = decode(encode(one), bandit, "user-9")
    assert back is not None
    assert back == one
    assert back.policy == one.policy
    anew = bandit.model_copy(update={"course": Course(generation=1)})
    assert decode(encode(one), anew, "user-9") is None


def test_an_assignment_that_an_earlier_release_kept_is_read() -> None:
    kept = (
        '{"experiment":"checkout","variant":"b","alias":"challenger","propensity":0.25,"propensities":[0.75,0.25],'
        '"policy_version":"thompson-7","policy_hash":"h","epoch":3}'
    )
    back = decode(kept, experiment(allocation=Thompson(), layer="front"), "user-9")
    assert back is not None
    assert (back.variant, back.unit, back.layer, back.propensities) == ("b", "user-9", "front", (0.75, 0.25))
    assert back.policy == VARIANTS[1].policy


def test_only_a_running_experiment_of_the_requests_origin_is_found() -> None:
    live, simulated = experiment(name="live"), experiment(name="simulated", origin="simulator")
    stopped = experiment(name="stopped", state="stopped", origin="replay")
    snapshot = Snapshot((live, simulated, stopped))
    assert list(snapshot.open("live", 0)) == [live]
    assert list(snapshot.open("simulator", 0)) == [simulated]
    assert list(snapshot.open("replay", 0)) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variants": [{"name": "a", "alias": "x"}, {"name": "a", "alias": "y"}]}, "names must differ"),
        ({"allocation": {"kind": "fixed", "weights": [0.5, 0.6]}}, "add up to 1.1"),
        ({"allocation": {"kind": "fixed", "weights": [1.0]}}, "2 positive numbers"),
        ({"allocation": {"kind": "fixed", "weights": [1.2, -0.2]}}, "2 positive numbers"),
        ({"allocation": {"kind": "thompson", "prior": [0, 1]}}, "prior.0"),
        ({"allocation": {"kind": "greedy"}}, "greedy"),
        ({"name": "Bad Name"}, "name"),
        ({"attribution_window_seconds": 0}, "attribution_window_seconds"),
        ({"colour": "red"}, "unknown key colour"),
    ],
)
def test_an_ill_defined_experiment_is_refused(fields: dict[str, object], message: str) -> None:
    content = experiment().model_dump(mode="json") | fields
    with pytest.raises(ConfigError, match=message):
        Experiment.parse(content, "experiment.yaml")


def test_a_definition_comes_back_from_json() -> None:
    for one in (experiment(), experiment(allocation=Thompson(floor=0.1), origin="simulator")):
        assert Experiment.model_validate_json(one.model_dump_json()) == one


def test_the_policy_hash_changes_with_alias_and_policy_alone() -> None:
    one = experiment()
    renamed = experiment(name="other", hypothesis="other")
    changed = experiment(variants=(VARIANTS[0], VARIANTS[1].model_copy(update={"policy": {"k": 2}})))
    assert one.policy_hash("b") == renamed.policy_hash("b")
    assert one.policy_hash("b") != changed.policy_hash("b")
    assert one.policy_hash("a") == changed.policy_hash("a")
