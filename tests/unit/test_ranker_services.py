"""Which of Feast's views the features of a request come from."""

from tastemaker.features.ranker_services import RankerService
from tastemaker.features.request_features import GROUPS, REQUEST_FEATURES


def views(*names: str) -> tuple[str, ...]:
    return RankerService(recipe="r", features=names).views


def test_a_feature_that_a_view_has_comes_from_it():
    assert views("item_click_7d") == views("item_weight_1h") == ("item_counters",)
    assert views("user_click_7d", "taste_num_categories") == ("user_counters", "user_taste")


def test_crosses_come_from_both_sides_and_what_the_record_alone_has_from_none():
    assert views("taste_times_popularity") == ("user_taste", "item_popularity", "item_attributes")
    assert views("times_shown", "refused") == views() == ()


def test_groups_stand_for_their_features_and_almost_each_needs_some_view():
    assert views("item") == views(*GROUPS["item"]) == ("item_counters", "item_popularity", "item_attributes")
    assert views("all") == (
        "user_counters", "user_taste", "user_session", "item_counters", "item_popularity", "item_attributes",
    )  # fmt: skip
    of_the_record = {"times_shown", "refused", *GROUPS["distance"]}
    assert all(views(name) for name in REQUEST_FEATURES if name not in of_the_record)
