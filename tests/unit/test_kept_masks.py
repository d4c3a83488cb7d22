"""Masks of a catalogue that changes: those that were asked for before a step say after it what new ones would."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import NOW_MS

from tastemaker.data.item_rows import Item, table_of
from tastemaker.features.traits import ItemTraits
from tastemaker.stages.business_rules import Block, Filter, HardRules
from tastemaker.stages.kept_masks import KeptMasks
from tastemaker.stages.matching import ItemMatcher, Match
from tastemaker.types import Query
from tastemaker_services.gateway.rules import ItemRules
from tastemaker_services.web.schema import Filters

WORDS = st.sampled_from(["a", "b", "c"])
ITEMS = st.fixed_dictionaries({
    "category": WORDS, "tags": st.lists(WORDS, max_size=2), "maturity": st.integers(0, 18),
    "regions": st.lists(st.sampled_from(["DE", "FR"]), max_size=2, unique=True), "price": st.floats(0, 9),
})  # fmt: skip
STEPS = st.lists(st.dictionaries(st.integers(0, 3), ITEMS, min_size=1), max_size=3)
"""Of each the rows that it writes: of those that there are, and the next one."""
ASKED = [
    (Filters(categories=("a",)), {}), (Filters(tags=("b", "c")), {"country": "de"}), (Filters(), {"country": "fr"}),
    (Filters(max_maturity=12, categories=("b",)), {}),
]  # fmt: skip
RULES = [
    (Block(match=Match(tags=("a",))),), (Filter(match=Match(categories=("a", "b"))), Block(match=Match(max_price=3.0))),
    (Block(match=Match(item_ids=("i1", "i4"))),),
]  # fmt: skip


def table(rows: Sequence[tuple[int, dict[str, object]]]) -> pa.Table:
    items = [Item.model_validate({"item_id": f"i{row}", **given}) for row, given in rows]
    return table_of([(item.item_id, item.encode()) for item in items])


def fitted(step: dict[int, dict[str, object]], num: int) -> list[tuple[int, dict[str, object]]]:
    """A step in rows of a catalogue of `num` items, of which at most one is new."""
    return sorted({min(row + num - 3, num): given for row, given in step.items()}.items())


@settings(deadline=None, max_examples=60)
@given(st.lists(ITEMS, min_size=4, max_size=6), STEPS)
def test_after_any_steps_masks_are_those_of_the_whole_catalogue(
    first: list[dict[str, object]], steps: list[dict[int, dict[str, object]]]
) -> None:
    rows = dict(enumerate(first))
    known = table(sorted(rows.items()))
    rules, traits = ItemRules.from_items(known), ItemTraits.from_items(known)
    row_of = {f"i{row}": row for row in range(20)}.get

    def matcher(traits: ItemTraits) -> ItemMatcher:
        return ItemMatcher(traits, row_of)

    hard = {own: HardRules(partial(matcher, traits), own) for own in RULES}
    query = Query(np.empty(0, np.int32), now_ms=NOW_MS, allowed=np.ones(20, bool))
    for step in [{}, *steps]:
        written = fitted(step, len(rows))
        rows |= dict(written)
        rows_W, items = np.array([row for row, _ in written], np.int32), table(written)
        rules = rules.after(rows_W, items)
        traits = traits.after(rows_W, items)
        hard = {own: kept.after(partial(matcher, traits), rows_W, len(rows)) for own, kept in hard.items()}
        fresh = ItemRules.from_items(table(sorted(rows.items())))
        for filters, context in ASKED:
            found, expected = rules.allowed(filters, context), fresh.allowed(filters, context)
            assert (found is None) == (expected is None)
            assert found is None or expected is None or found.tolist() == expected.tolist()
        for own, kept in hard.items():
            anew = HardRules(partial(matcher, ItemTraits.from_items(table(sorted(rows.items())))), own)
            assert kept.applied(query).exclude.tolist() == anew.applied(query).exclude.tolist()


def test_a_step_looks_at_the_rows_that_it_writes_alone() -> None:
    masks = KeptMasks[str](2)
    assert masks.get("even", lambda: np.arange(4) % 2 == 0).few_forbidden.tolist() == [1, 3]
    after = masks.after(np.array([1, 4], np.int32), 5, lambda key: np.array([key == "even", False]))

    def never() -> np.ndarray:
        raise AssertionError("it is kept")

    assert after.get("even", never).allowed_I.tolist() == [True, True, True, False, False]
    assert masks.get("even", never).allowed_I.tolist() == [True, False, True, False]


def test_masks_that_were_not_asked_for_the_longest_go() -> None:
    masks, made = KeptMasks[str](2), list[str]()

    def ask(key: str) -> None:
        masks.get(key, lambda: made.append(key) or np.ones(1, bool))

    for key in ["a", "b", "a", "c", "a", "b"]:
        ask(key)
    assert made == ["a", "b", "c", "b"]


def test_nobody_can_change_a_mask() -> None:
    mask = KeptMasks[str](1).get("a", lambda: np.ones(2, bool))
    with pytest.raises(ValueError, match="read-only"):
        mask.allowed_I[0] = False
