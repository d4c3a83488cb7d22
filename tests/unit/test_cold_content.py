"""What models know of items and people beside the log: attributes, content with numbers, and the contrastive projection."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.features.content import ContentConfig, ContentSpace, ContrastiveConfig
from tastemaker.features.content.head import HEAD
from tastemaker.home import Home
from tastemaker.index.config import IndexConfig
from tastemaker.models.cold.attributes import LEAST, Attributes, demographics
from tastemaker.models.cold.contrastive import Pairs, fit_head
from tastemaker.models.cold.item_content import ItemContent, fit_space, items_of
from tastemaker.models.cold.standard import Standard
from tastemaker.models.log import Askers, Log
from tastemaker.testing.worlds import Tastes, told_items
from tastemaker_training.sources.content import Content, fit_content

SMALL = ContrastiveConfig(dim=16, hidden=32, steps=200, batch_size=128, learning_rate=0.01, temperature=0.2)
CONFIG = ContentConfig(dim=64, metadata_dim=64, projection="contrastive", contrastive=SMALL)


def people(num: int = LEAST) -> pa.Table:
    return pa.table(
        {
            "town": ["Bonn"] * num + ["Ulm"] * (LEAST - 1),
            "likes": [["rain", "noir"]] * num + [[]] * (LEAST - 1),
            "age": [20, *[40] * (num - 1), *[None] * (LEAST - 1)],
            "member": [True] * num + [None] * (LEAST - 1),
        }
    )


def test_words_of_several_people_count_and_those_of_few_are_not_kept():
    attributes = Attributes.fit(people())
    assert attributes.config_dict()["words"] == ["likes=noir", "likes=rain", "member=True", "town=Bonn"]
    found = attributes.encode(people().slice(0, 1), 1)
    # Ages 20, 40, 40, 40, 40: mean 36, standard deviation 8; (20 - 36) / (3 * 8).
    assert found.tolist() == [[1, 1, 1, 1, pytest.approx(-2 / 3)]]
    assert not attributes.encode(people().slice(LEAST), LEAST - 1).any()


def test_numbers_that_are_all_alike_but_for_rounding_count_for_nothing():
    same_NM = np.log1p(np.full((1000, 1), 9.99))
    standard = Standard.fit(same_NM)
    assert not standard(np.concatenate([same_NM[:1], [[2.0], [3.0]]])).any()
    # Mean 1e6, standard deviation 10: told apart to more digits than single precision has.
    far = Standard.fit(np.array([[1e6 - 10.0], [1e6 + 10.0]]))
    assert far(np.array([[1e6 + 3.0]]))[0, 0] == pytest.approx(0.1, rel=1e-6)


def test_whatever_is_not_known_of_people_is_zeros():
    attributes = Attributes.fit(people())
    assert attributes.encode(None, 3).shape == (3, 5)
    strange = pa.table({"town": ["Rome"], "age": ["old"], "likes": [None], "shoe": [44]})
    assert not attributes.encode(strange, 1).any()
    assert Attributes.fit(None).encode(strange, 1).shape == (1, 0)


def test_columns_of_another_type_are_refused():
    with pytest.raises(DataError, match="column when of the table of users"):
        Attributes.fit(pa.table({"when": pa.array([0], pa.timestamp("ms"))}))


def test_attributes_are_read_as_written():
    attributes = Attributes.fit(people())
    again = Attributes.from_state(attributes.config_dict(), attributes.tensors())
    np.testing.assert_array_equal(again.encode(people(), 9), attributes.encode(people(), 9))


def test_a_log_has_a_row_for_each_of_its_items_and_users():
    rows = np.array([0, 1], np.int32)
    sizes = {"num_users": 2, "num_items": 2}
    with pytest.raises(DataError, match="table of users of a log, is 1, must be 2"):
        Log.of(rows, rows, **sizes, users=pa.table({"town": ["Bonn"]}))
    log = Log.of(rows, rows, **sizes, users=pa.table({"town": ["Bonn", "Ulm"]}))
    askers = Askers.known(log)
    assert askers[1:].attributes.to_pydict() == {"town": ["Ulm"]}
    assert askers.without(np.array([0]))[1].attributes.to_pydict() == {"town": ["Ulm"]}
    with pytest.raises(DataError, match="no table of them"):
        items_of(log, "model")


def test_serving_knows_age_and_gender_as_training_does():
    told = demographics(["18-24/f"] * LEAST + ["?/m"] * LEAST)
    attributes = Attributes.fit(told)
    assert attributes.config_dict()["words"] == ["age_band=18-24", "gender=f", "gender=m"]
    assert attributes.encode(demographics(["18-24/?", None]), 2).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_items_have_their_numbers_beside_their_vector():
    table = told_items(np.zeros(3, np.int32), 1, seed=0)
    table = table.append_column("price", pa.array([0.0, np.e - 1, None], pa.float64()))
    log = Log.of(*np.zeros((2, 1), np.int32), num_users=1, num_items=3, items=table)
    content, found = ItemContent.fit(log, ContentConfig(), "model")
    # Logarithms of 1 + price: 0 and 1, mean and deviation 1/2: one standard deviation off is 1/3; unknown is the mean.
    np.testing.assert_allclose(found[:, -3], [-1 / 3, 1 / 3, 0], atol=1e-6)
    assert not found[:, -2:].any()  # neither ages nor maturity are known
    again = ItemContent.from_state(content.config_dict(), content.tensors())
    np.testing.assert_array_equal(again.features(table, again.space.encode(table)), found)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_pairs_are_of_one_person_and_near_in_time(rows, window, seed):
    user_N, item_N = np.array(rows, np.int32).T
    log = Log.of(user_N, item_N, num_users=5, num_items=7, timestamp_ms_N=np.arange(len(rows)))
    first, second = Pairs(log, window).draw(np.random.default_rng(seed))
    near = {
        (a, b)
        for history in log.histories()
        for i, a in enumerate(history.tolist())
        for j, b in enumerate(history.tolist())
        if i != j and a != b and abs(i - j) <= window
    }
    assert {*zip(first.tolist(), second.tolist(), strict=True)} <= near


def test_each_place_of_the_window_is_drawn():
    log = Log.of(np.zeros(5, np.int32), np.arange(5, dtype=np.int32), num_users=1, num_items=5,
                 timestamp_ms_N=np.arange(5))  # fmt: skip
    draws = np.random.default_rng(0)
    drawn = [Pairs(log, 2).draw(draws) for _ in range(300)]
    beside_2 = np.concatenate([second[first == 2] for first, second in drawn])
    assert np.bincount(beside_2, minlength=5).tolist() == pytest.approx([75, 75, 0, 75, 75], abs=30)


@pytest.fixture(scope="module")
def synonyms() -> tuple[Log, np.ndarray, np.ndarray]:
    """A log, groups of items, and which items nobody took: a group has six words, of which each item has one."""
    world = Tastes.of(3, items_each=24)
    word_I = np.arange(72) % 6
    tags = [[f"w{group}-{word}"] for group, word in zip(world.group_I, word_I, strict=True)]
    table = world.log.items.set_column(3, world.log.items.schema.field("tags"), pa.array(tags))
    table = table.set_column(1, table.schema.field("title"), table["item_id"])
    cold_I = np.arange(72) % 4 == 3
    kept = ~cold_I[world.log.item_N]
    log = replace(
        world.log, user_N=world.log.user_N[kept], item_N=world.log.item_N[kept], value_N=world.log.value_N[kept],
        timestamp_ms_N=world.log.timestamp_ms_N[kept], items=table,
    )  # fmt: skip
    return log, world.group_I, cold_I


def own_group(vectors: np.ndarray, group_I: np.ndarray, cold_I: np.ndarray) -> float:
    """Of the 15 nearest of each item that nobody took, the share that is of its group."""
    product = vectors[cold_I] @ vectors.T
    product[:, cold_I] = -np.inf
    near = np.argsort(-product, axis=1, kind="stable")[:, :15]
    return float((group_I[near] == group_I[cold_I][:, None]).mean())


def test_a_projection_learns_that_words_mean_the_same(synonyms):
    log, group_I, cold_I = synonyms
    raw_space, raw = fit_space(log.items, CONFIG.unprojected(), log)
    space, projected = fit_space(log.items, CONFIG, log)
    # Three items of a group have an item's own word and were taken; its 12 others are found by what people took with those.
    assert own_group(raw, group_I, cold_I) < 0.6
    assert own_group(projected, group_I, cold_I) > 0.9
    assert space.dim == 16 == projected.shape[1]
    assert space.raw_dim == 128 == raw.shape[1]
    assert space.fingerprint != raw_space.fingerprint
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)


def test_the_loss_of_a_projection_falls_and_its_seed_decides(synonyms):
    log, _, _ = synonyms
    raw = ContentSpace.fit(log.items, CONFIG).encode(log.items)
    few = SMALL.model_copy(update={"steps": 60})
    head, losses = fit_head(raw, CONFIG.part_dims, log, few)
    again, _ = fit_head(raw, CONFIG.part_dims, log, few)
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    assert head.keys() == set(HEAD)
    assert all(np.array_equal(head[name], again[name]) for name in head)


def test_nothing_that_was_taken_together_is_refused(synonyms):
    log, _, _ = synonyms
    alone = Log.of(np.array([0, 1]), np.array([0, 1]), num_users=2, num_items=72, items=log.items)
    with pytest.raises(DataError, match="set projection: none"):
        fit_space(log.items, CONFIG, alone)


def test_a_projected_space_is_kept_and_encodes_new_items_and_texts(synonyms):
    log, _, _ = synonyms
    space, projected = fit_space(log.items, CONFIG, log)
    again = ContentSpace.from_state(space.config_dict(), space.tensors())
    np.testing.assert_array_equal(again.encode(log.items), projected)
    new = log.items.slice(0, 1).set_column(0, "item_id", pa.array(["new"]))
    np.testing.assert_allclose(
        again.encode(new.set_column(1, "title", pa.array(["new"]))), projected[:1], atol=1e-6
    )
    text, nothing = again.encode_texts(["anything", ""])
    assert text.shape == (16,)
    assert np.linalg.norm(text) == pytest.approx(1, abs=1e-5)
    assert not nothing.any()
    bare = pa.table({"item_id": ["x"], "title": ["x"]})
    assert not again.encode(bare).any()
    broken = space.tensors() | {"head.skip": np.zeros((128, 8), np.float32)}
    with pytest.raises(CompatibilityError, match="projection head"):
        ContentSpace(CONFIG, broken)


def test_spaces_without_a_projection_are_those_of_earlier_releases():
    names = ("encoder", "dim", "text_weight", "metadata_dim", "metadata_weight", "vectors")
    kept = ContentConfig().model_dump(mode="json")
    assert tuple(kept) == names
    assert "projection" in CONFIG.model_dump()
    table = told_items(np.zeros(3, np.int32), 1, seed=0)
    space = ContentSpace.fit(table, ContentConfig())
    earlier = space.config_dict() | {"config": kept}
    assert ContentSpace.from_state(earlier, space.tensors()).fingerprint == space.fingerprint


def test_a_training_step_projects_where_the_recipe_says_so(synonyms, tmp_path):
    log, group_I, cold_I = synonyms
    folder = tmp_path / "content"
    folder.mkdir()
    fit_content(log, CONFIG, Home.make(tmp_path / "home"), folder)
    content = Content.load(folder, IndexConfig())
    assert own_group(content.index.vectors(), group_I, cold_I) > 0.9
    np.testing.assert_allclose(content.space.encode(log.items), content.index.vectors(), atol=1e-5)
