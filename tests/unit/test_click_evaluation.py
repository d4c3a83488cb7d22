"""Plans of clicks: what they hold out, what they measure, and that propensities reach fit and metric."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.commands.evaluation import evaluate_plan
from tastemaker.errors import ConfigError, DataError
from tastemaker.evaluation import predictions
from tastemaker.evaluation.click_comparison import compare_clicks, per_group
from tastemaker.evaluation.click_page import render_clicks
from tastemaker.evaluation.click_plan import ClickPlan, GivenPropensity
from tastemaker.evaluation.click_rows import click_parts
from tastemaker.models.ctr.fields import Categorical, Fields, Rows
from tastemaker.models.ctr.model import Labelled

FIELDS = Fields(categorical=(Categorical(name="item", num_values=9),))
FIT = {"dim": 4, "fit": {"epochs": 4, "batch_size": 64, "learning_rate": 0.05}}


@pytest.fixture
def shown(tmp_path):
    """A CSV of 600 rows: user u and item i meet where both are odd or both even, but for a tenth of luck."""
    draws = np.random.default_rng(3)
    user_N, item_N = draws.integers(20, size=600), draws.integers(12, size=600)
    clicked_N = (user_N % 2 == item_N % 2) ^ (draws.random(600) < 0.1)
    table = pd.DataFrame(
        {
            "user": [f"user {user}" for user in user_N],
            "item": [f"日本/{item}" for item in item_N],
            "tags": [f"t{item % 3}|t9" for item in item_N],
            "past": [f"日本/{item}|nowhere" for item in (item_N + 2) % 12],
            "title": [f"the film {item}" for item in item_N],
            "price": np.where(item_N == 0, np.nan, item_N),
            "request": np.arange(600) // 10,
            "time": np.arange(600),
            "seen": np.where(item_N < 6, 1.0, 0.5),
            "clicked": clicked_N,
        }
    )
    file = tmp_path / "shown.csv"
    table.to_csv(file, index=False)
    return file


def plan(shown, **changes):
    told = {
        "clicks": str(shown),
        "values": ["user", "item"],
        "models": {"fm": {"kind": "fm", "config": FIT}},
    }
    return ClickPlan.parse({**told, **changes}, "plan")


def asked(label, group=None, propensity=None):
    rows = Rows.of(
        FIELDS, {"item": np.ones(len(label), np.int32)}, None if group is None else np.array(group)
    )
    return Labelled.of(rows, label, propensity)


def test_losses_of_groups_have_the_mean_of_all_rows_as_theirs():
    tested = asked([1, 0, 1, 1], group=[7, 7, 7, 3])
    chance_N = np.array([0.5, 0.25, 0.5, 0.8], np.float32)
    found = per_group(chance_N, tested)
    first, second = -np.log(0.8), -(np.log(0.5) + np.log(0.75) + np.log(0.5))
    assert found["logloss"] == pytest.approx([first * 2 / 4, second * 2 / 4], rel=1e-5)
    assert found["logloss"].mean() == pytest.approx(predictions.logloss(chance_N, tested.label_N), rel=1e-6)
    # Group 3 has no row without a click; of the others 2 of 2 pairs are in order, 3 rows over a mean of 3.
    assert np.isnan(found["gauc"][0])
    assert found["gauc"][1] == 1.0


def test_mean_of_weighted_aucs_is_gauc():
    draws = np.random.default_rng(0)
    group_N, label_N = draws.integers(9, size=80), draws.integers(2, size=80)
    chance_N = draws.random(80).astype(np.float32)
    found = per_group(chance_N, asked(label_N, group_N))["gauc"]
    assert np.nanmean(found) == pytest.approx(predictions.gauc(group_N, chance_N, label_N), rel=1e-9)


def test_unbiased_loss_by_hand():
    tested = asked([1, 0], propensity=[0.5, 1.0])
    chance_N = np.array([0.6, 0.3], np.float32)
    clicks = per_group(chance_N, tested, GivenPropensity(column="seen"))["unbiased_logloss"]
    # The click stands for two yeses, less one no; the other row is a no.
    assert clicks == pytest.approx([-2 * np.log(0.6) + np.log(0.4), -np.log(0.7)], rel=1e-5)
    rows = per_group(chance_N, tested, GivenPropensity(column="seen", of="rows"))["unbiased_logloss"]
    # Weights 2 and 1, over their mean.
    assert rows == pytest.approx([-np.log(0.6) * 2 / 1.5, -np.log(0.7) / 1.5], rel=1e-5)


def test_unbiased_loss_is_that_of_relevance_on_average():
    draws = np.random.default_rng(1)
    relevant_N = draws.random(200_000) < 0.4
    seen_N = draws.choice([0.2, 1.0], 200_000)
    clicked_N = relevant_N & (draws.random(200_000) < seen_N)
    chance_N = np.full(200_000, 0.4, np.float32)
    found = per_group(chance_N, asked(clicked_N, propensity=seen_N), GivenPropensity(column="seen"))
    # Standard error about .003: five of them.
    assert found["unbiased_logloss"].mean() == pytest.approx(
        predictions.logloss(chance_N, relevant_N), abs=0.015
    )
    # That of what was clicked, .24 of the rows, is another: -(.24 log .4 + .76 log .6).
    assert found["logloss"].mean() == pytest.approx(0.608, abs=0.005)


def test_the_newest_groups_are_held_out_and_stay_together(shown):
    parts = click_parts(plan(shown, group="request", time="time", held_out=0.25, validation=0.25))
    groups = [set(part.rows.group_N) for part in (parts.learned, parts.validation, parts.tested)]
    assert [len(one) for one in groups] == [30, 15, 15]
    assert len(set().union(*groups)) == 60
    alone = click_parts(plan(shown, time="time", numbers=["time"], held_out=0.25, validation=0.0))
    assert alone.validation is None
    assert alone.learned.rows.dense_NF.max() < alone.tested.rows.dense_NF.min()


def test_words_that_were_not_learned_from_are_unknown(tmp_path):
    file = tmp_path / "few.csv"
    file.write_text(
        "item,past,clicked,time\na,b|c,1,1\nb,,0,2\nc,a,true,3\nz,a|y,False,4\n", encoding="utf-8"
    )
    told = plan(
        file,
        values=["item"],
        histories={"past": "item"},
        time="time",
        held_out=0.25,
        validation=0.0,
        models={"lr": {"kind": "lr"}},
    )
    parts = click_parts(told)
    assert parts.learned.rows.categorical_NC[:, 0].tolist() == [1, 2, 3]  # a, b, c
    assert parts.learned.rows.multi["past"].value_V.tolist() == [2, 3, 1]
    assert parts.learned.label_N.tolist() == [1, 0, 1]
    assert parts.tested.rows.categorical_NC[:, 0].tolist() == [0]
    assert parts.tested.rows.multi["past"].value_V.tolist() == [1, 0]
    assert parts.tested.label_N.tolist() == [0]


def test_a_plan_of_all_kinds_of_columns_is_fitted_compared_and_shown(shown, tmp_path, capsys):
    file = tmp_path / "plan.yaml"
    file.write_text(
        """
clicks: shown.csv
group: request
values: [user, item]
lists: [tags]
histories: {past: item}
texts: [title]
text_values: 50
numbers: [price]
compared: [logloss, gauc]
held_out: 0.3
models:
  lr: {kind: lr, config: {fit: {epochs: 2, batch_size: 64}}}
  "<fm>": {kind: fm, config: {dim: 4, fit: {epochs: 20, batch_size: 64, learning_rate: 0.05}}}
""",
        encoding="utf-8",
    )
    found = evaluate_plan(file, tmp_path / "page.html", as_json=True)
    lr, fm = found["systems"]
    assert fm["auc"] > 0.8 > lr["auc"]  # who meets what is all that matters
    assert fm["logloss_low"] < fm["logloss"] < fm["logloss_high"]
    assert {"normalised_entropy", "ece", "gauc"} <= fm.keys()
    assert [(one["system"], one["metric"]) for one in found["differences"]] == [
        ("<fm>", "logloss"),
        ("<fm>", "gauc"),
    ]
    assert sum(one["num_rows"] for one in found["calibration"]["lr"]) == found["rows"]["tested"]["num_rows"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<th>&lt;fm&gt;</th>" in page
    assert "<td><fm>" not in page
    assert all(
        metric in page
        for metric in ("logloss", "normalised_entropy", "ece", "auc", "gauc", "plot-calibration")
    )
    assert '"kind": "clicks"' in capsys.readouterr().out


def test_propensities_reach_the_fit_and_the_metric(shown):
    plain, clicks, rows = (
        compare_clicks(plan(shown, **changes))["systems"][0]
        for changes in (
            {},
            {"propensity": {"column": "seen"}},
            {"propensity": {"column": "seen", "of": "rows"}},
        )
    )
    assert "unbiased_logloss" not in plain
    assert len({plain["logloss"], clicks["logloss"], rows["logloss"]}) == 3
    assert clicks["unbiased_logloss"] != rows["unbiased_logloss"]


def test_parquet_keeps_its_lists_and_times(tmp_path):
    times = pa.array([3_000_000_000, 1_000_000_000, 2_000_000_000], pa.timestamp("us"))
    table = pa.table({"tags": [["a b", "c|d"], None, []], "clicked": [True, False, True], "at": times})
    pq.write_table(table, tmp_path / "shown.parquet")
    told = plan(
        tmp_path / "shown.parquet", values=[], lists=["tags"], time="at", held_out=0.3, validation=0.0
    )
    parts = click_parts(told)
    assert parts.tested.label_N.tolist() == [1]  # the first row is the newest
    assert np.diff(parts.tested.rows.multi["tags"].offsets).tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": []}, "one column at least"),
        ({"values": ["user", "user"]}, "each once"),
        ({"values": ["clicked"]}, "cannot be read as features"),
        ({"histories": {"past": "price"}}, "a column of values"),
        ({"baseline": "none"}, "one of the models"),
        ({"held_out": 0.9, "validation": 0.1}, "less than 1 together"),
        ({"compared": ["gauc"]}, "name the column `group`"),
        ({"compared": ["unbiased_logloss"]}, "is of `propensity`"),
        ({"models": {"x": {"kind": "ease"}}}, "kind of click model"),
        ({"models": {"x": {"kind": "fm", "config": {"dimm": 3}}}}, "dimm"),
    ],
)
def test_plans_that_cannot_be_are_refused(shown, changes, said):
    with pytest.raises(ConfigError, match=said):
        plan(shown, **changes)


@pytest.mark.parametrize(
    ("content", "changes", "said"),
    [
        ("user,item\na,b\na,b\n", {}, "lacks column clicked"),
        ("user,item,clicked\na,b,2\na,b,0\n", {}, "0 or 1"),
        ("user,item,clicked\na,b,\na,b,0\n", {}, "0 or 1"),
        ("user,item,clicked\na,b,yes\na,b,0\n", {}, "row 1, is 'yes', must be a number"),
        ("user,item,clicked,time\na,b,1,\na,b,0,2\n", {"time": "time"}, "a time in each row"),
        ("user,item,clicked,request\na,b,1,\na,b,0,2\n", {"group": "request"}, "a group in each row"),
        ("user,item,clicked,request\na,b,1,7\na,b,0,7\n", {"group": "request"}, "to learn from"),
        ("user,item,clicked,seen\na,b,1,0\na,b,0,1\n", {"propensity": {"column": "seen"}}, "propensity of a"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path, content, changes, said):
    file = tmp_path / "shown.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        click_parts(plan(file, validation=0.0, **changes))


def test_page_without_differences_or_groups(shown):
    found = compare_clicks(plan(shown))
    page = render_clicks(found, "one model")
    assert "Differences" not in page
    assert "<td>gauc</td>" not in page
