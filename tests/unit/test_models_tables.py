import torch

from tastemaker.features.ranking_batch import Bag
from tastemaker.models.tables import Jagged, PlainTables, TableSpec, jagged

SPEC = TableSpec(name="item_ids", num_rows=3, dim=2, features=("history", "item"))


def plain_tables() -> PlainTables:
    tables = PlainTables([SPEC])
    tables.weight("item_ids").data.copy_(torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]))
    return tables


def test_a_bag_is_the_weighted_sum_of_its_rows():
    bag = Jagged.from_lists([[0, 2], [1]], [[0.5, 2.0], [3.0]])
    summed = plain_tables().lookup({"history": bag})["history"]
    # 0.5 * (1, 10) + 2 * (3, 30) and 3 * (2, 20)
    assert summed.tolist() == [[6.5, 65.0], [6.0, 60.0]]


def test_an_empty_bag_sums_to_zero_wherever_it_stands():
    bag = Jagged.from_lists([[], [1], []])
    assert plain_tables().lookup({"item": bag})["item"].tolist() == [[0.0, 0.0], [2.0, 20.0], [0.0, 0.0]]


def test_features_of_one_table_read_the_same_rows_and_may_differ_in_length():
    bags = {"history": Jagged.from_lists([[0, 0]]), "item": Jagged.from_lists([[0], [1], [2]])}
    found = plain_tables().lookup(bags)
    assert found["history"].tolist() == [[2.0, 20.0]]
    assert found["item"].shape == (3, 2)


def test_gradients_reach_only_rows_that_were_read_times_their_weight():
    tables = plain_tables()
    tables.lookup({"history": Jagged.from_lists([[0, 2]], [[0.5, 2.0]])})["history"].sum().backward()
    assert tables.weight("item_ids").grad.tolist() == [[0.5, 0.5], [0.0, 0.0], [2.0, 2.0]]


def test_weights_carry_torchrecs_names():
    assert list(plain_tables().state_dict()) == ["embedding_bags.item_ids.weight"]


def test_rows_start_within_the_scale_and_not_all_alike():
    spec = SPEC.model_copy(update={"num_rows": 1000, "init_scale": 0.01})
    weight = PlainTables([spec]).weight("item_ids")
    assert 0.009 < weight.abs().max() <= 0.01


def test_offsets_say_where_each_bag_begins():
    bags = Jagged.from_lists([[1], [], [2, 0]], [[1.0], [], [0.5, 0.25]])
    assert bags.offsets().tolist() == [0, 1, 1]
    assert len(bags) == 3


def test_bags_of_arrays_become_tensors_of_the_same_values():
    lists = Jagged.from_lists([[4, 5], [6]], [[1.0, 2.0], [3.0]])
    bag = Bag(lists.values.numpy(), lists.lengths.numpy(), lists.weights.numpy())
    found = jagged({"history": bag})["history"]
    assert found.values.tolist() == [4, 5, 6]
    assert found.lengths.tolist() == [2, 1]
    assert found.weights.tolist() == [1.0, 2.0, 3.0]
