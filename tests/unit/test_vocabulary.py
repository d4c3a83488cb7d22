import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError, DataError
from tastemaker.features.vocabulary import Vocabulary, VocabularyConfig

DAY = 86_400_000
NOW = 1_000 * DAY
MAP, HASH = VocabularyConfig(), VocabularyConfig(kind="hash", num_buckets=97)


def fit(ids, config=MAP, counts=None, ages=None):
    """A vocabulary of ids that were seen so often, and so many days ago."""
    counts, ages = counts or [1] * len(ids), ages or [0] * len(ids)
    return Vocabulary.fit(ids, counts, [NOW - age * DAY for age in ages], NOW, config)


def update(vocabulary, ids, counts=None, ages=None, days=0):
    """The vocabulary that many days later, by events of which the ages are given."""
    counts, ages = counts or [1] * len(ids), ages or [0] * len(ids)
    now = NOW + days * DAY
    return vocabulary.updated(ids, counts, [now - age * DAY for age in ages], now)


def copy(vocabulary):
    tensors = safetensors.numpy.load(safetensors.numpy.save(vocabulary.tensors()))
    return Vocabulary.from_state(json.loads(json.dumps(vocabulary.config_dict())), tensors)


texts = st.text(st.characters(codec="utf-8"), max_size=6)
ids_of_one_kind = st.one_of(
    st.lists(texts, unique=True, max_size=12),
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=12),
)


def test_rows_follow_the_order_of_the_ids_and_0_is_unknown():
    vocabulary = fit(["pear", "apple", "fig"])
    assert vocabulary.rows(["fig", "pear", "plum", "apple", "fig"]).tolist() == [2, 3, 0, 1, 2]
    assert (len(vocabulary), vocabulary.num_rows) == (3, 4)
    assert fit([30, -7]).rows(np.array([-7, 30, 31])).tolist() == [1, 2, 0]
    assert vocabulary.rows([]).tolist() == []


def test_rare_and_stale_ids_are_not_admitted():
    config = VocabularyConfig(min_count=2, max_age_days=30.0)
    vocabulary = fit(["a", "b", "c", "d"], config, counts=[2, 1, 9, 9], ages=[30, 0, 31, 1])
    assert vocabulary.rows(["a", "b", "c", "d"]).tolist() == [1, 0, 0, 2]


@given(ids_of_one_kind)
@settings(max_examples=60, deadline=None)
def test_each_id_of_a_map_has_a_row_of_its_own_whatever_order_it_came_in(ids):
    vocabulary = fit(ids)
    assert sorted(vocabulary.rows(ids).tolist()) == list(range(1, len(ids) + 1))
    assert fit(ids[::-1]).rows(ids).tolist() == vocabulary.rows(ids).tolist()
    assert vocabulary.num_rows == len(ids) + 1


@given(ids_of_one_kind, st.sampled_from([MAP, HASH]))
@settings(max_examples=60, deadline=None)
def test_a_vocabulary_survives_json_and_safetensors(ids, config):
    vocabulary = fit(ids[::2], config)
    again = copy(vocabulary)
    assert again.rows(ids).tolist() == vocabulary.rows(ids).tolist()
    assert (again.config, again.num_rows, len(again)) == (config, vocabulary.num_rows, len(vocabulary))
    later = update(vocabulary, ids, days=3)
    later_again = update(again, ids, days=3)
    assert later_again.new_rows.tolist() == later.new_rows.tolist()
    assert later_again.vocabulary.rows(ids).tolist() == later.vocabulary.rows(ids).tolist()


def test_an_update_keeps_rows_frees_those_of_stale_ids_and_names_the_new_ones():
    config = VocabularyConfig(min_count=2, max_age_days=30.0)
    first = fit(["a", "b", "c", "d"], config, counts=[2] * 4, ages=[0, 20, 20, 25])
    # 15 days later b and d are too old; a was seen again, c too, though less often than admits an id.
    found = update(first, ["z", "x", "y", "c", "w"], counts=[2, 2, 3, 1, 1], ages=[1, 0, 2, 0, 0], days=15)
    assert found.vocabulary.rows(list("abcdxyzw")).tolist() == [1, 0, 3, 0, 2, 4, 5, 0]
    assert found.new_rows.tolist() == [2, 4, 5]
    assert found.vocabulary.num_rows == 6
    assert first.rows(list("abcd")).tolist() == [1, 2, 3, 4]


def test_a_row_that_was_freed_waits_for_the_next_new_id():
    config = VocabularyConfig(max_age_days=30.0)
    holed = update(fit(["a", "b", "c"], config, ages=[0, 29, 0]), [], days=2)
    assert (holed.vocabulary.num_rows, holed.new_rows.tolist()) == (4, [])
    assert holed.vocabulary.rows(["a", "b", "c"]).tolist() == [1, 0, 3]
    again = update(copy(holed.vocabulary), ["b"], days=2)
    assert again.vocabulary.rows(["a", "b", "c"]).tolist() == [1, 2, 3]
    assert again.new_rows.tolist() == [2]


def test_an_older_sight_does_not_age_an_id():
    config = VocabularyConfig(max_age_days=30.0)
    found = update(fit(["a"], config, ages=[1]), ["a"], ages=[29], days=10)
    assert update(found.vocabulary, [], days=28).vocabulary.rows(["a"]).tolist() == [1]
    assert update(found.vocabulary, [], days=30).vocabulary.rows(["a"]).tolist() == [0]


events = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 3), st.integers(0, 40)), max_size=8
)


@given(st.lists(st.tuples(events, st.integers(0, 40)), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_updates_keep_rows_apart_and_change_none_of_an_id_that_stays(nights):
    """Against a plain account of who has a row: id -> when it was seen last."""
    config = VocabularyConfig(min_count=2, max_age_days=30.0)
    vocabulary, member, day = fit([], config), {}, 0
    for seen, days in nights:
        day += days
        before = {name: int(vocabulary.rows([name])[0]) for name in member}
        names = list(seen)
        counts, ages = [seen[name][0] for name in names], [seen[name][1] for name in names]
        found = update(vocabulary, names, counts, ages, day)
        for name in names:
            if name in member or (seen[name][0] >= 2 and seen[name][1] <= 30):
                member[name] = max(member.get(name, -(10**6)), day - seen[name][1])
        member = {name: last for name, last in member.items() if day - last <= 30}
        after = {name: int(found.vocabulary.rows([name])[0]) for name in "abcdefgh"}
        assert {name for name, row in after.items() if row} == set(member)
        assert len({after[name] for name in member}) == len(member)
        assert all(row < found.vocabulary.num_rows for row in after.values())
        assert all(after[name] == before[name] for name in member if name in before)
        assert set(found.new_rows.tolist()) == {after[name] for name in member if name not in before}
        assert found.vocabulary.num_rows >= vocabulary.num_rows
        vocabulary = found.vocabulary


def test_a_hash_is_blake2b_of_text_and_split_mix_of_integers():
    buckets = 1_000_003
    vocabulary = fit([], VocabularyConfig(kind="hash", num_buckets=buckets))
    digest = hashlib.blake2b("Amélie".encode(), digest_size=8).digest()
    assert (
        vocabulary.rows(["Amélie", "b", "Amélie"]).tolist()[::2]
        == [1 + int.from_bytes(digest, "little") % buckets] * 2
    )
    # The first outputs of SplitMix64 seeded with 0, as its authors publish them; the state grows by a constant.
    second_state = 0x9E3779B97F4A7C15 - 2**64
    assert vocabulary.rows([0, second_state]).tolist() == [
        1 + 0xE220A8397B1DCDAF % buckets,
        1 + 0x6E789E6AA1B965F4 % buckets,
    ]
    assert vocabulary.num_rows == buckets + 1


@given(ids_of_one_kind)
@settings(max_examples=60, deadline=None)
def test_a_hash_gives_every_id_a_row_but_0_and_has_nothing_to_update(ids):
    vocabulary = fit([], HASH)
    rows = vocabulary.rows(ids)
    assert ((rows >= 1) & (rows < vocabulary.num_rows)).all()
    found = update(vocabulary, ids)
    assert found.vocabulary.rows(ids).tolist() == rows.tolist()
    assert found.new_rows.tolist() == []


def test_a_hash_spreads_ids_evenly():
    for ids in ([f"item-{number}" for number in range(97_000)], list(range(97_000))):
        per_bucket = np.bincount(fit([], HASH).rows(ids), minlength=98)[1:]
        assert (
            (per_bucket - 1_000) ** 2 / 1_000
        ).sum() < 171  # chi-squared, 96 degrees of freedom: 1 in 300,000


def test_hashes_are_the_same_in_another_process():
    code = (
        "from tastemaker.features.vocabulary import Vocabulary, VocabularyConfig;"
        "config = VocabularyConfig(kind='hash', num_buckets=97);"
        "print(Vocabulary.fit([], [], [], 0, config).rows(['a', 'b', 'Amélie']).tolist())"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(seen.stdout) == fit([], HASH).rows(["a", "b", "Amélie"]).tolist()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "hash"}, "kind hash needs num_buckets"),
        ({"kind": "hash", "num_buckets": 9, "min_count": 2}, "min_count and max_age_days are of kind map"),
        (
            {"kind": "hash", "num_buckets": 9, "max_age_days": 2.0},
            "min_count and max_age_days are of kind map",
        ),
        ({"kind": "map", "num_buckets": 9}, "num_buckets is of kind hash"),
        ({"kind": "tree"}, "must be 'map' or 'hash'"),
    ],
)
def test_options_of_the_other_kind_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        VocabularyConfig.parse(config, "vocabulary")


@pytest.mark.parametrize("ids", [["a", 1], [1.5], ["a", None], [True], [b"a"]])
def test_ids_that_are_neither_text_nor_integers_are_refused(ids):
    with pytest.raises(DataError, match=r"ids, is '.*', must be all text or all integers: convert them"):
        fit(ids)
    with pytest.raises(DataError, match=r"ids, is '.*', must be all text or all integers: convert them"):
        fit(["a"]).rows(ids)


def test_ids_of_the_other_kind_are_refused_not_unknown():
    with pytest.raises(DataError, match="ids, is 'integers', must be text as in the vocabulary"):
        fit(["1"]).rows([1])
    with pytest.raises(DataError, match="ids, is 'text', must be integers as in the vocabulary"):
        update(fit([1]), ["1"])


def test_an_id_twice_and_columns_of_unlike_length_are_refused():
    with pytest.raises(DataError, match="is 'b twice', must be each once: add up its counts"):
        fit(["a", "b", "b"])
    with pytest.raises(DataError, match="is '2, 1 and 2', must be of one length"):
        Vocabulary.fit(["a", "b"], [1], [0, 0], NOW, MAP)


def test_a_state_whose_parts_do_not_belong_together_is_refused():
    vocabulary = fit(["a", "b"])
    good = vocabulary.tensors()
    for rows in ([1], [0, 1], [1, 3], [2, 2]):
        with pytest.raises(CompatibilityError, match="ids and rows of a vocabulary do not match"):
            Vocabulary.from_state(vocabulary.config_dict(), good | {"rows": np.array(rows)})
