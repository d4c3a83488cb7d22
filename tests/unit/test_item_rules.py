"""Which items a request may be shown: by hand, and that masks asked for again are not worked out again."""

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker_services.gateway.rules import ItemRules
from tastemaker_services.web.schema import Filters


@pytest.fixture
def rules() -> ItemRules:
    return ItemRules.of(
        ["drama", "comedy", "drama", "noir"],
        [["old"], ["new", "short"], [], ["new"]],
        [[], ["DE"], ["DE", "FR"], []],
        [0, 16, 18, None],
    )


@pytest.mark.parametrize(
    ("filters", "country", "wanted"),
    [
        ({}, "de", [True, True, True, True]),
        ({}, "FR", [True, False, True, True]),
        ({}, "", [True, False, False, True]),
        ({"categories": ("drama",)}, "DE", [True, False, True, False]),
        ({"tags": ("short", "old")}, "DE", [True, True, False, False]),
        ({"max_maturity": 16}, "DE", [True, True, False, True]),
        (
            {"categories": ("drama", "noir"), "tags": ("new",), "max_maturity": 0},
            "",
            [False, False, False, True],
        ),
    ],
)
def test_masks_by_hand(
    rules: ItemRules, filters: dict[str, object], country: str, wanted: list[bool]
) -> None:
    allowed = rules.allowed(Filters.model_validate(filters), {"country": country})
    assert allowed is not None
    assert allowed.tolist() == wanted


def test_without_a_rule_there_is_no_mask() -> None:
    assert ItemRules.of(["a"], [[]]).allowed(Filters(), {"country": "DE"}) is None


def test_the_same_question_has_the_same_mask_which_nobody_can_change(rules: ItemRules) -> None:
    first = rules.allowed(Filters(tags=("new", "old")), {"device": "tv"})
    assert first is rules.allowed(Filters(tags=("old", "new", "old")), {"device": "mobile"})
    assert first is not rules.allowed(Filters(tags=("old", "new")), {"country": "DE"})
    assert first is not None
    with pytest.raises(ValueError, match="read-only"):
        first[0] = False


def test_a_mask_is_of_the_items_of_its_moment(rules: ItemRules) -> None:
    before = rules.allowed(Filters(categories=("noir",)), {})
    row = {"item_id": "e", "title": "e", "category": "noir", "tags": [], "created_at_ms": None}
    grown = rules.after(np.array([4], np.int32), pa.Table.from_pylist([row], ITEMS_SCHEMA))
    after = grown.allowed(Filters(categories=("noir",)), {})
    assert before is not None
    assert after is not None
    assert (before.tolist(), after.tolist()) == ([False] * 3 + [True], [False] * 3 + [True, True])
