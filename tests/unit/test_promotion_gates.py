"""What each gate that looks at bundles lets pass and what it refuses, and why."""

import numpy as np
import pytest
from promotable import BASE, ITEM_IDS, USERS, case, write_bundle
from scipy import stats

from tastemaker.bundle.store import BundleStore
from tastemaker.home import Home
from tastemaker.promotion.bundle_gates import contents, index, integrity
from tastemaker.promotion.exposure_gate import exposure
from tastemaker.promotion.gate import Gate, GateResult
from tastemaker.promotion.offline_gates import calibration, offline, paired_difference, segments

HAD = np.array([0, 5, 30, 80] * (USERS // 4))
"""Each bucket has 50 users."""


@pytest.fixture
def store(tmp_path):
    return BundleStore(tmp_path / "bundles")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home.make(tmp_path_factory.mktemp("home") / "home")


def test_a_first_bundle_passes_and_says_what_was_not_looked_at(store, home):
    first = case(store, home, write_bundle(store))
    results = [gate(first) for gate in (integrity, contents, index, offline, segments, exposure)]
    assert {result.name: result.outcome for result in results} == {
        "integrity": "passed", "contents": "passed", "index": "passed",
        "offline": "not applicable", "segments": "not applicable", "exposure": "not applicable",
    }  # fmt: skip
    assert (results[2].value, results[2].limit) == (1.0, 1.0)
    assert {result.reason for result in results[3:]} == {"there is no other champion to compare with"}


def test_weights_that_are_not_finite_are_refused(store, home):
    result = contents(case(store, home, write_bundle(store, weight=np.nan)))
    assert (result.outcome, result.value) == ("refused", 1.0)
    assert result.reason == "item_tower.safetensors: w is not finite"


def test_an_item_named_twice_is_refused(store, home):
    result = contents(case(store, home, write_bundle(store, ids=["a"] * 50)))
    assert (result.outcome, result.reason) == ("refused", "items.parquet names an item twice")


def test_an_approximate_index_may_miss_a_tenth_or_what_the_settings_say(store, home):
    bundle = write_bundle(store, kind="hnsw")
    result = index(case(store, home, bundle))
    assert (result.outcome, result.limit) == ("passed", 0.9)
    hasty = write_bundle(store, kind="ivf-flat", effort={"nlist": 8, "nprobe": 1})  # finds 9 of 10
    assert index(case(store, home, hasty, recall=0.8)).outcome == "passed"
    result = index(case(store, home, hasty, recall=0.99))
    assert (result.outcome, result.limit, result.reason) == ("refused", 0.99, "ivf-flat, 50 queries at 10")


def test_a_bundle_that_is_worse_for_certain_is_refused(store, home):
    champion = write_bundle(store)
    result = offline(case(store, home, write_bundle(store, ndcg=BASE - 0.1), champion))
    assert result.outcome == "refused"
    assert result.value == pytest.approx(-0.1, abs=1e-12)  # float64 means
    assert result.limit == pytest.approx(-0.01 * BASE.mean(), abs=1e-12)
    assert (
        result.reason
        == "ndcg@10 -0.1000 [-0.1000, -0.1000] over 200 users against the champion, of publishing"
    )
    tolerant = case(store, home, write_bundle(store, ndcg=BASE - 0.1), champion, loss=0.5)
    assert offline(tolerant).outcome == "passed"


@pytest.mark.parametrize("loss", [-0.2, 0.0, 0.004])
def test_a_bundle_that_may_be_as_good_passes(store, home, loss):
    # The tolerated loss is 0.01 * 0.5; the users are paired by id, whatever their order in the table.
    order = np.random.default_rng(2).permutation(USERS)
    ndcg = BASE - loss + np.random.default_rng(3).normal(0, 0.001, USERS)
    candidate = write_bundle(store, ndcg=ndcg[order], users=[f"u{n}" for n in order])
    assert offline(case(store, home, candidate, write_bundle(store))).outcome == "passed"


def test_a_loss_within_the_noise_passes(store, home):
    noise = np.tile([-0.5, 0.5], USERS // 2)  # standard error 0.5 / sqrt(200) = 0.035, more than the loss
    candidate = write_bundle(store, ndcg=BASE - 0.02 + noise)
    result = offline(case(store, home, candidate, write_bundle(store)))
    assert result.outcome == "passed"
    assert result.value == pytest.approx(-0.02, abs=1e-12)  # float64 means


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (
            {"fingerprint": "g"},
            "the champion was evaluated on other data, and the bundle does not say how its own was split",
        ),
        ({"ndcg": None}, "fewer than 30 users with ndcg@10 in both"),
        ({"users": [f"v{n}" for n in range(USERS)]}, "fewer than 30 users with ndcg@10 in both"),
    ],
)
def test_a_gate_without_data_says_that_it_does_not_apply(store, home, champion, reason):
    asked = case(store, home, write_bundle(store, ndcg=BASE - 0.5), write_bundle(store, **champion))
    for gate in (offline, segments):
        result = gate(asked)
        assert (result.outcome, result.reason) == ("not applicable", reason)


def test_a_loss_of_those_who_are_new_is_refused_though_all_together_gain(store, home):
    ndcg = np.where(HAD == 0, BASE - 0.2, BASE + 0.2)  # a quarter loses, the others gain as much
    candidate = write_bundle(store, ndcg=ndcg, columns={"interactions": HAD})
    asked = case(store, home, candidate, write_bundle(store))
    assert offline(asked).outcome == "passed"
    result = segments(asked)
    assert (result.outcome, result.value) == ("refused", pytest.approx(-0.2, abs=1e-12))
    assert result.limit == pytest.approx(-0.1 * BASE[HAD == 0].mean(), abs=1e-12)
    assert result.reason.startswith("worst of 4: interactions 0, 50 users, ndcg@10 -0.2000 [")
    assert list(result.numbers) == [
        "interactions 0", "interactions 1 to 10", "interactions 11 to 50", "interactions over 50",
    ]  # fmt: skip


def test_segments_are_also_the_values_of_any_text_column_and_small_ones_are_not_looked_at(store, home):
    country = ["ch"] * 100 + ["at"] * 80 + ["li"] * 19 + [None]
    ndcg = BASE - 0.5 * (np.array(country) == "at")
    candidate = write_bundle(store, ndcg=ndcg, columns={"country": country})
    result = segments(case(store, home, candidate, write_bundle(store)))
    assert (result.outcome, list(result.numbers)) == ("refused", ["country at", "country ch"])
    none = write_bundle(store, columns={"interactions": HAD})
    few = segments(case(store, home, none, write_bundle(store, marker="2"), users=60))
    assert (few.outcome, few.reason) == ("not applicable", "the bundles keep no segment of at least 60 users")


def test_a_version_that_is_no_worse_anywhere_is_seldom_refused_for_a_segment(store, home):
    refused = 0
    rng = np.random.default_rng(7)
    champion = write_bundle(store)
    for trial in range(60):
        # each segment loses exactly what is tolerated: the worst that must pass
        ndcg = BASE - 0.1 * BASE + rng.normal(0, 0.05, USERS)
        candidate = write_bundle(store, ndcg=ndcg, columns={"interactions": HAD}, marker=str(trial))
        refused += segments(case(store, home, candidate, champion)).outcome == "refused"
    assert refused <= 6  # at most 2.5% expected, 1.5 of 60; a binomial of 60 is above 6 once in 800


def test_a_segments_interval_is_of_a_level_that_all_segments_share(store, home):
    ndcg = BASE + np.random.default_rng(1).normal(0, 0.05, USERS)
    candidate = write_bundle(store, ndcg=ndcg, columns={"interactions": HAD})
    result = segments(case(store, home, candidate, write_bundle(store)))
    segment = {"0": 0, "1 to 10": 5, "11 to 50": 30, "over 50": 80}
    [had] = [
        had for name, had in segment.items() if result.reason.startswith(f"worst of 4: interactions {name},")
    ]
    low, high = stats.ttest_1samp((ndcg - BASE)[had == HAD], 0.0).confidence_interval(1 - 0.05 / 4)
    assert result.reason.endswith(f"[{low:+.4f}, {high:+.4f}] at level 0.988")


def test_the_long_tail_keeps_half_of_its_share_of_the_lists(store, home):
    even = [20] * 50  # the tail, items 10 to 49, has 80% of 1000 slots; then 10%
    headed = [90] * 10 + [0] * 15 + [4] * 25
    champion = write_bundle(store, lists=even)
    result = exposure(case(store, home, write_bundle(store, lists=headed), champion))
    assert (result.outcome, result.value, result.limit) == ("refused", 0.1, pytest.approx(0.4))
    assert result.reason.startswith("worst of 3: long tail, 10.0% of the slots; under the champion 80.0%")
    assert (
        exposure(case(store, home, write_bundle(store, lists=headed), champion, exposure_loss=0.95)).outcome
        == "passed"
    )
    assert exposure(case(store, home, write_bundle(store, lists=even, marker="2"), champion)).value == 0.8


def test_a_category_keeps_half_of_its_share_whatever_the_order_of_items(store, home):
    champion = write_bundle(store, lists=[20] * 50)  # "new", the second half, has half of the slots
    back = ITEM_IDS[::-1]
    lists = [44] * 25 + [4] * 25  # of i49 to i25, then i24 to i0: as the candidate has it "new" is i24 to i0
    result = exposure(case(store, home, write_bundle(store, ids=back, lists=lists), champion))
    assert (result.outcome, result.value) == ("refused", pytest.approx(100 / 1200))
    assert "category new" in result.reason
    bare = exposure(case(store, home, write_bundle(store), champion))
    assert (bare.outcome, bare.reason) == ("not applicable", "the bundles do not keep what they list")


def test_probabilities_that_are_not_what_happens_are_refused(store, home):
    good, bad = (write_bundle(store, ece=error) for error in (0.02, 0.08))
    result = calibration(case(store, home, bad, good))
    assert (result.outcome, result.value, result.limit) == ("refused", 0.08, 0.05)
    assert result.reason == "expected calibration error 0.0800; the champion's is 0.0200"
    assert calibration(case(store, home, good, bad)).outcome == "passed"
    assert (
        calibration(case(store, home, write_bundle(store, ece=0.05))).outcome == "passed"
    )  # just as much as may be
    assert calibration(case(store, home, write_bundle(store))).reason == "the bundle has no ranker"


def test_the_interval_of_a_paired_difference_covers_the_truth():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        user = rng.normal(0, 10, 60)
        mean, low, high = paired_difference(user + rng.normal(0.5, 1, 60), user)
        assert low < mean < high
        covered += low <= 0.5 <= high
    assert covered >= 88  # 95 expected; a binomial of 100 falls below 88 once in 500


def test_an_answer_stands_for_the_same_things_and_for_a_time(store, home):
    gate = Gate("offline", offline, ("loss",), compares=True)
    one, other = write_bundle(store), write_bundle(store, ndcg=BASE + 0.1)
    key = gate.key(case(store, home, one, other))
    assert gate.key(case(store, home, one, other, segment_loss=0.5)) == key
    assert gate.key(case(store, home, one, other, loss=0.5)) != key
    assert gate.key(case(store, home, one)) != key
    assert gate.key(case(store, home, other, one)) != key
    answer = GateResult(name="offline", outcome="passed", key=key, at_ms=1000)
    hour = 3_600_000
    assert answer.is_valid(key, 1000 + 2 * hour, 2.0)
    assert not answer.is_valid(key, 1001 + 2 * hour, 2.0)
    assert not answer.is_valid("other", 1000, 2.0)
    for outcome in ("refused", "waiting", "not applicable"):
        assert not answer.model_copy(update={"outcome": outcome}).is_valid(key, 1000, 2.0)
