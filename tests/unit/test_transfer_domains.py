"""Which item is of which domain, and logs of several catalogues as one."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ConfigError, DataError
from tastemaker.models.log import Askers, Log
from tastemaker.models.transfer.domains import (
    NO_DOMAIN,
    ByField,
    ByRows,
    Domains,
    ItemsWith,
    joined,
    own_counts,
    some_of,
)

ITEMS = pa.table(
    {
        "item_id": ["film/1", "film/2", "book/1", "game/1"],
        "category": ["Drama", "Comedy", "Novel", None],
        "tags": [["Drama", "War"], ["Comedy"], ["War"], None],
    }
)


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


@pytest.fixture
def log() -> Log:
    return Log.of(rows(0, 0, 1, 1), rows(0, 2, 1, 3), num_users=2, num_items=4, items=ITEMS)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"by": "category", "target": ["Drama", "Comedy"]}, [0, 0, 1, 1]),
        ({"by": "item_id", "target": ["film/"]}, [0, 0, 1, 1]),
        # The first item has a word of the target and one of a source: it is the target's.
        ({"by": "tags", "target": ["Drama", "Comedy"], "sources": {"war": ["War"]}}, [0, 0, 1, NO_DOMAIN]),
        ({"by": "item_id", "target": ["film/"], "sources": {"a": ["book/"], "b": ["game/", "book/"]}}, [0, 0, 1, 2]),
    ],
)  # fmt: skip
def test_a_field_tells_domains_apart(log, config, expected):
    found = Domains.of(log, ByField.parse(config, "domains"))
    assert found.domain_I.tolist() == expected
    assert found.names == ("target", *(config.get("sources") or {"source": []}))


def test_of_rows_the_target_comes_first_wherever_it_lies(log):
    found = Domains.of(log, ByRows(sizes={"books": 1, "films": 3}, target="films"))
    assert found.names == ("films", "books")
    assert found.domain_I.tolist() == [1, 0, 0, 0]
    assert found.rows(0).tolist() == [1, 2, 3]
    assert found.matrix(0).toarray().tolist() == [[0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ByField(by="category", target=("Opera",)), "no row of the log is of domain target.*Comedy, Drama, Novel"),
        (ByField(by="category", target=("Drama",), sources={"x": ("Opera",)}), "is of domain x"),
        (ByRows(sizes={"source": 2, "target": 3}), "sizes of domains, is 5, must be 4 items together"),
    ],
)  # fmt: skip
def test_domains_that_are_not_there_are_refused(log, config, message):
    with pytest.raises(DataError, match=message):
        Domains.of(log, config)


def test_domains_by_a_field_need_items_that_have_it(log):
    bare = Log.of(log.user_N, log.item_N, num_users=2, num_items=4)
    with pytest.raises(DataError, match="domains by tags need a table of items that has it, is 'none'"):
        Domains.of(bare, ByField(by="tags", target=("War",)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"by": "category", "target": []}, "target"),
        ({"by": "category", "target": ["a"], "sources": {"target": ["b"]}}, "cannot be called target"),
        ({"by": "colour", "target": ["a"]}, "by"),
    ],
)
def test_a_wrong_config_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        ByField.parse(config, "domains")


def test_the_target_must_be_one_of_the_sizes():
    with pytest.raises(ConfigError, match="target must be one of: a, b"):
        ByRows.parse({"sizes": {"a": 1, "b": 1}, "target": "c"}, "domains")


def test_items_with_words_are_found_or_refused(log):
    assert ItemsWith(by="tags", target=("War",)).among(log).tolist() == [True, False, True, False]
    with pytest.raises(DataError, match="no item has tags Opera, must be items have tags"):
        ItemsWith(by="tags", target=("Opera",)).among(log)


def test_joined_logs_keep_users_and_lay_items_end_to_end():
    films = Log.of(rows(0, 1), rows(1, 0), num_users=3, num_items=2, value_N=np.array([4, 5]))
    books = Log.of(rows(1, 2), rows(2, 0), num_users=3, num_items=3, timestamp_ms_N=np.array([7, 8]))
    log, domains = joined({"books": books, "films": films}, target="films")
    assert (log.num_users, log.num_items) == (3, 5)
    assert [history_L.tolist() for history_L in log.histories()] == [[4], [3, 2], [0]]
    assert log.value_N.tolist() == [4, 5, 1, 1]
    found = Domains.of(log, domains)
    assert found.part(found.is_target).histories()[0].tolist() == [1]
    assert found.part(~found.is_target).num_items == 3


def test_logs_of_other_users_are_not_joined():
    films = Log.of(rows(0), rows(0), num_users=1, num_items=1)
    with pytest.raises(DataError, match="two or more over the same users, one of them target"):
        joined({"target": films, "books": Log.of(rows(0), rows(0), num_users=2, num_items=1)})
    with pytest.raises(DataError, match="two or more"):
        joined({"target": films})


@given(st.lists(st.lists(st.integers(-2, 6), max_size=8), min_size=1, max_size=5))
def test_items_of_the_target_are_counted_once_each(histories):
    is_target = np.array([True, False, True, False, True])
    askers = Askers.strangers([rows(*history) for history in histories])
    assert own_counts(askers, is_target).tolist() == [len({0, 2, 4} & set(history)) for history in histories]


def test_some_askers_keep_what_is_known_of_them():
    askers = Askers(rows(3, 4, 5), [rows(1), rows(), rows(2, 0)], [np.ones(1), np.ones(0), np.zeros(2)])
    some = some_of(askers, np.array([0, 2]))
    assert some.row_B.tolist() == [3, 5]
    assert [history_L.tolist() for history_L in some.histories] == [[1], [2, 0]]
    assert [value_L.tolist() for value_L in some.values or ()] == [[1], [0, 0]]
