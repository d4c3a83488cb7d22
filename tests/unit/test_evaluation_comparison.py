"""A plan from file to figures and page."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.data.schema import INTERACTIONS_SCHEMA, Dataset, build_dataset
from tastemaker.data.tables import items_table
from tastemaker.errors import DataError, UsageError
from tastemaker.evaluation.comparison import _together, compare
from tastemaker.evaluation.comparison_page import metric_names, render
from tastemaker.evaluation.measuring import Measured, measure
from tastemaker.evaluation.offline import Evaluation
from tastemaker.evaluation.plan import read_plan
from tastemaker.evaluation.segments import segments
from tastemaker.evaluation.systems import BundleSystem, ModelSystem
from tastemaker.evaluation.windows import LastOut, folds
from tastemaker.models import zoo
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.testing.worlds import Stars, Tastes

WORLD = Tastes.of(5, num_users=80)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    log = WORLD.log
    users = [f"u{user}" for user in log.user_N]
    columns = [
        users, [f"i{item}" for item in log.item_N], ["rating"] * len(log), log.value_N.tolist(),
        log.timestamp_ms_N.tolist(), ["live"] * len(log), [None] * len(log), [None] * len(log),
    ]  # fmt: skip
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, INTERACTIONS_SCHEMA, strict=True)
    ]
    interactions = pa.Table.from_arrays(arrays, schema=INTERACTIONS_SCHEMA)
    ids = [f"i{item}" for item in range(log.num_items)]
    tags = [[f"group{group}"] for group in WORLD.group_I]
    return build_dataset(interactions, items_table(len(ids), {"item_id": ids, "title": ids, "tags": tags}))


def no_bundle(name: str) -> None:
    raise AssertionError(name)


PLAN = """
split: {kind: last-out, num: 1}
models:
  popular: {kind: popular}
  ease: {kind: ease, config: {l2: 20.0}}
ks: [5, 10]
segments: [activity, popularity, item-age, country]
users: users.parquet
"""


def test_a_plan_tells_metrics_differences_segments_and_exposure(tmp_path, dataset):
    (tmp_path / "plan.yaml").write_text(PLAN + "popularity_power: 1.0\n")
    countries = ["AT" if n % 2 else "DE" for n in range(80)]
    pq.write_table(
        pa.table({"user_id": [f"u{n}" for n in range(80)], "country": countries}), tmp_path / "users.parquet"
    )
    found = compare(read_plan(tmp_path / "plan.yaml"), dataset, no_bundle)  # type: ignore[arg-type]
    popular, ease = found["systems"]
    assert found["ranked"] == "all 60 items, those taken left out"
    assert ease["ndcg@10"] > popular["ndcg@10"]
    assert ease["ndcg@10_low"] < ease["ndcg@10"] < ease["ndcg@10_high"]
    assert popular["serendipity"] == 0  # its lists are the obvious ones
    assert ease["miscalibration"] < popular["miscalibration"]
    assert {
        "precision@5",
        "auc",
        "gauc",
        "popularity_lift",
        "diversity",
        "coverage",
        "unbiased_dcg@10",
    } <= set(metric_names(found))
    (of_ndcg, of_recall) = found["differences"]
    assert (of_ndcg["system"], of_ndcg["metric"], of_recall["metric"]) == ("ease", "ndcg@10", "recall@10")
    assert of_ndcg["corrected"] >= of_ndcg["p_value"]
    kinds = {row["kind"]: 0 for row in found["segments"]["ease"]}
    for row in found["segments"]["ease"]:
        kinds[row["kind"]] += row["num_users"]
    assert kinds.keys() == {"activity", "popularity", "item-age", "country"}
    assert set(kinds.values()) == {80}  # each user has one target, so is in one part of each kind
    shares = found["exposure"]["ease"].values()
    assert sum(shown for shown, _ in shares) == pytest.approx(1)
    page = render(found, "a <plan>")
    assert "a &lt;plan&gt;" in page
    assert "src=" not in page.split("<body>")[1], "it asks nobody for anything"
    json.dumps(found, allow_nan=False)


def test_propensities_are_guessed_or_given_not_both(tmp_path):
    plan = "models: {popular: {kind: popular}}\npopularity_power: 1.0\npropensity: seen\n"
    (tmp_path / "plan.yaml").write_text(plan)
    with pytest.raises(UsageError, match="popularity_power or propensity"):
        read_plan(tmp_path / "plan.yaml")


def test_sampled_metrics_are_marked_and_say_more(tmp_path, dataset):
    (tmp_path / "plan.yaml").write_text("models: {popular: {kind: popular}}\nsampled: 5\nsegments: []\n")
    found = compare(read_plan(tmp_path / "plan.yaml"), dataset, no_bundle)  # type: ignore[arg-type]
    assert found["ranked"].startswith("SAMPLED: the targets among 5 items")
    assert any("Krichene" in note for note in found["notes"])
    assert found["systems"][0]["hit_rate@10"] == 1  # one target among six
    assert "SAMPLED" in render(found, "sampled")


def test_windows_are_told_one_by_one(tmp_path, dataset):
    (tmp_path / "plan.yaml").write_text(
        "split: {kind: rolling, share: 0.7, windows: 2}\nmodels: {popular: {kind: popular}, recent: {kind: recent}}\n"
    )
    found = compare(read_plan(tmp_path / "plan.yaml"), dataset, no_bundle)  # type: ignore[arg-type]
    assert [fold["fold"] for fold in found["folds"]] == ["window 1 of 2", "window 2 of 2"]
    assert len(found["by_fold"]["recent"]) == 2
    assert "Over time" in render(found, "windows")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("models: {a: {kind: nothing}}", "kind of model"),
        ("models: {a: {kind: ease, config: {l3: 1}}}", "unknown key l3"),
        ("models: {a: {kind: ease}}\nbaseline: b", "baseline must be one of the models"),
        ("models: {a: {bundle: champion}}\nsampled: 9", "sampled needs scores"),
        ("models: {a: {kind: ease}}\nsplit: {kind: random}", "split"),
        ("models: {}", "models"),
        ("models: {a: {kind: ease}}\nks: [20]", r"at the depths ks \(20\); 'ndcg@10' is none"),
        ("models: {a: {kind: ease}}\ncompared: [ndgc@10]", "'ndgc@10' is none"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path, text, match):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(UsageError, match=match):
        read_plan(tmp_path / "plan.yaml")


def test_a_metric_that_nobody_of_a_fold_has_is_the_mean_of_the_other_folds():
    first = Evaluation(np.array([0, 1], np.int32), {"mrr": np.array([1.0, 0.5])}, {})
    values = {"mrr": np.array([0.0, 0.25]), "popularity_lift": np.array([2.0, np.nan])}
    both = _together([first, Evaluation(np.array([1, 2], np.int32), values, {})])
    assert both.per_user["mrr"].tolist() == [1.0, 0.25, 0.25]  # user 1: (.5 + 0) / 2
    np.testing.assert_array_equal(both.per_user["popularity_lift"], [np.nan, 2.0, np.nan])


@pytest.mark.parametrize(
    ("graded", "expected"),
    [(False, 1.0), (True, (1 + 7 / np.log2(3)) / (7 + 1 / np.log2(3)))],  # gains 2^1 - 1 and 2^3 - 1
)
def test_segments_of_targets_heed_grades(graded, expected):
    log = Log.of(
        np.zeros(4, np.int32), np.arange(4), num_users=1, num_items=4, value_N=np.array([2, 2, 1, 3.0]),
        timestamp_ms_N=np.arange(4),
    )  # fmt: skip
    (fold,) = folds(log, LastOut(num=2))
    evaluation = Evaluation(fold.askers.row_B, {}, {})
    measured = Measured(evaluation, np.array([[2, 3]], np.int32))  # the lesser target comes first
    (found,) = segments(measured, fold, ["item-age"], ["ndcg@2", "recall@2"], graded=graded)
    assert (found.name, found.num_users) == ("up to 30 days", 1)
    assert found.values["ndcg@2"] == pytest.approx(expected)
    assert found.values["recall@2"] == 1


def test_models_that_read_attributes_have_those_of_the_plans_users_or_it_says_that_they_have_none(
    tmp_path, dataset, monkeypatch
):
    (tmp_path / "plan.yaml").write_text(
        "models: {mine: {kind: melu}}\nusers: users.csv\nsegments: []\nks: [10]\n"
    )
    (tmp_path / "users.csv").write_text("user_id,age_band\nu1,18-24\nu0,35-44\n")
    seen = []

    def fitted(kind, log, config):
        del kind, config
        seen.append(log.users)
        return zoo.model_class("popular").fit(log, zoo.model_class("popular").Config())

    monkeypatch.setattr("tastemaker.evaluation.comparison.zoo.fit", fitted)
    plan = read_plan(tmp_path / "plan.yaml")
    assert not compare(plan, dataset, no_bundle)["notes"]  # type: ignore[arg-type]
    told = dict(zip(dataset.user_ids, seen[0]["age_band"].to_pylist(), strict=True))
    assert (told["u0"], told["u1"], told["u2"]) == ("35-44", "18-24", None)
    assert seen[0].column_names == ["age_band"]
    untold = plan.model_copy(update={"users": None})
    (note,) = compare(untold, dataset, no_bundle)["notes"]  # type: ignore[arg-type]
    assert note.startswith("mine: nothing was known of the users")
    assert seen[1] is None


def test_what_is_obvious_within_a_part_of_the_catalogue_is_of_that_part(tmp_path, dataset):
    (tmp_path / "plan.yaml").write_text(
        "models: {popular: {kind: popular}}\nks: [10]\nwithin: {by: tags, target: [group2]}\nsegments: []\n"
    )
    found = compare(read_plan(tmp_path / "plan.yaml"), dataset, no_bundle)  # type: ignore[arg-type]
    assert found["systems"][0]["hit_rate@10"] > 0
    assert found["systems"][0]["serendipity"] == 0  # its lists are the obvious ones of the part


def test_segments_that_nobody_knows_are_refused(tmp_path, dataset):
    (tmp_path / "plan.yaml").write_text("models: {popular: {kind: popular}}\nsegments: [country]\n")
    with pytest.raises(DataError, match="segments country, must be columns of `users`"):
        compare(read_plan(tmp_path / "plan.yaml"), dataset, no_bundle)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads_do_not_change_the_lists(monkeypatch, threads):
    monkeypatch.setattr("tastemaker.evaluation.measuring._BLOCK_SCORES", 7 * WORLD.log.num_items)
    (fold,) = folds(WORLD.log, LastOut())
    model = zoo.fit("ease", fold.train, {"l2": 20.0})
    found = measure(ModelSystem(model), fold, (10,), threads=threads)
    expected, _ = model.recommend(fold.askers, 10, Filters())
    np.testing.assert_array_equal(found.ranked_UK, expected)
    assert found.evaluation.per_user["hit_rate@10"].mean() == pytest.approx(
        np.mean([np.isin(items, row).any() for items, row in zip(fold.targets, expected, strict=True)])
    )


def test_auc_counts_pairs_of_targets_and_others():
    (fold,) = folds(WORLD.log, LastOut())
    model = zoo.fit("popular", fold.train)
    found = measure(ModelSystem(model), fold, (5,))
    score_I = model.scores(Askers.strangers([np.empty(0, np.int32)]))[0]
    history, target = fold.askers.histories[3], int(fold.targets[3][0])
    others = np.setdiff1d(np.arange(len(score_I)), [*history, target])
    expected = ((score_I[others] < score_I[target]) + 0.5 * (score_I[others] == score_I[target])).mean()
    assert found.evaluation.per_user["auc"][3] == pytest.approx(expected)


def test_models_of_values_are_asked_how_far_off_they_are():
    world = Stars.of(2, num_users=40)
    (fold,) = folds(world.log, LastOut())
    model = zoo.fit("als-explicit", fold.train, {"dim": 2, "iterations": 3})
    found = measure(ModelSystem(model), fold, (5,))
    guess = np.concatenate(model.score(fold.askers, fold.targets))
    expected = np.sqrt(np.mean((guess - np.concatenate(fold.values)) ** 2))
    assert found.evaluation.overall["rmse"] == pytest.approx(expected, rel=1e-6)


class Reversed:
    """Answers with the session backwards, after an item that the log does not know."""

    def slates(self, sessions: list[list[str]], k: int, description: str | None) -> list[list[str]]:
        assert description is None
        return [["unheard of", *session[::-1]][:k] for session in sessions]


def test_a_bundle_is_asked_by_ids_and_its_own_items_are_passed_over():
    system = BundleSystem(Reversed(), ["a", "b", "c"])  # type: ignore[arg-type]
    asked = Askers.strangers([np.array([0, 2], np.int32), np.array([1], np.int32)])
    found = system.answer(asked, [], 3)
    assert found.ranked_BK.tolist() == [[2, 0, -1], [1, -1, -1]]
    assert found.auc_B is None


class Scores(zoo.model_class("popular")):  # type: ignore[misc]
    """Scores that are given: one row for everybody."""

    def __init__(self, score_I):
        super().__init__(zoo.model_class("popular").Config(), np.array(score_I, np.float32))


def small_fold(values=(2, 2, 1, 3.0)):
    """One user of four items, the last two of which are targets."""
    log = Log.of(
        np.zeros(4, np.int32), np.arange(4), num_users=1, num_items=4, value_N=np.array(values),
        timestamp_ms_N=np.arange(4),
    )  # fmt: skip
    (fold,) = folds(log, LastOut(num=2))
    return fold


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong):
    with pytest.raises(DataError, match=f"a score of a model popular, is {wrong}, must be finite"):
        measure(ModelSystem(Scores([0, 0, wrong, 1])), small_fold(), (1,))
    measure(ModelSystem(Scores([wrong, 0, 1, 1])), small_fold(), (1,))  # item 0 was taken: nobody is shown it


def test_lists_longer_than_what_may_be_shown_end_in_padding():
    allowed_I = np.array([True, True, True, False])
    fold, system = small_fold(), ModelSystem(Scores([4, 3, 2, 1]), allowed_I=allowed_I)
    found = measure(system, fold, (1, 6), allowed_I=allowed_I)
    assert found.ranked_UK.tolist() == [[2, -1, -1, -1, -1, -1]]
    per_user = {name: value_U.tolist() for name, value_U in found.evaluation.per_user.items()}
    assert per_user["recall@6"] == [1 / 2]
    assert per_user["precision@6"] == [1 / 6]
    assert per_user["map@6"] == [1 / 2]
    assert "auc" not in per_user  # nothing but a target may be shown


def test_a_target_of_value_0_is_found_and_gains_nothing():
    fold = small_fold((2, 2, 0, 3))
    found = measure(ModelSystem(Scores([9, 9, 2, 1])), fold, (1, 2), graded=True).evaluation.per_user
    assert found["recall@1"].tolist() == [1 / 2]
    assert found["hit_rate@1"].tolist() == [1]
    assert found["ndcg@1"].tolist() == [0]
    assert found["ndcg@2"].tolist() == pytest.approx([1 / np.log2(3)])  # 7 / log2(3) over 7
    (part,) = segments(
        Measured(Evaluation(fold.askers.row_B, {}, {}), np.array([[2]], np.int32)), fold, ["item-age"], ["recall@1"],
        graded=True,
    )  # fmt: skip
    assert part.values["recall@1"] == 1 / 2


@pytest.mark.parametrize("value", [-1.0, 5400.0])
def test_values_that_are_no_grades_are_refused(value):
    with pytest.raises(DataError, match=r"as its grade in NDCG, is .* must be 0 to 1000: leave `graded` out"):
        measure(ModelSystem(Scores([4, 3, 2, 1])), small_fold((2, 2, value, 3)), (1,), graded=True)


@pytest.mark.parametrize("ks", [(), (0, 10), (-1,)])
def test_depths_that_are_none_are_refused(ks):
    with pytest.raises(UsageError, match="depths of lists"):
        measure(ModelSystem(Scores([4, 3, 2, 1])), small_fold(), ks)


def test_the_page_is_made_where_nobody_has_an_ndcg(tmp_path, dataset):
    (tmp_path / "plan.yaml").write_text("models: {popular: {kind: popular}}\ngraded: true\n")
    worthless = replace(dataset, value=np.zeros_like(dataset.value))
    found = compare(read_plan(tmp_path / "plan.yaml"), worthless, no_bundle)  # type: ignore[arg-type]
    assert not any(name.startswith("ndcg") for name in metric_names(found))
    assert "recall@10" in render(found, "worthless")
