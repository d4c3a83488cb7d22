import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.models.cross_batch import CrossBatchMemory, Remembered
from tastemaker.models.losses import left_out, sampled_softmax_loss
from tastemaker.models.tables import Jagged

EYE = torch.eye(2)


def test_loss_of_two_queries_and_one_negative_by_hand():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    loss = sampled_softmax_loss(EYE, items, torch.tensor([3, 4, 5]), torch.zeros(3), temperature=0.5)
    # each query: own target 1/0.5 = 2, the other's 0, the negative 0.5/0.5 = 1
    expected = -2 + math.log(math.exp(2) + math.exp(0) + math.exp(1))
    assert loss.item() == pytest.approx(expected, rel=1e-6)  # float32


def test_log_q_is_taken_off_each_items_logit():
    log_q = torch.log(torch.tensor([0.5, 0.25]))
    loss = sampled_softmax_loss(EYE, EYE, torch.tensor([3, 4]), log_q, temperature=1.0)
    first = -math.log(math.e / 0.5 / (math.e / 0.5 + 1 / 0.25))
    second = -math.log(math.e / 0.25 / (math.e / 0.25 + 1 / 0.5))
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_the_target_drawn_again_does_not_count_against_itself():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    loss = sampled_softmax_loss(EYE, items, torch.tensor([3, 4, 3]), torch.zeros(3), temperature=1.0)
    first = -1 + math.log(math.e + 1)  # the copy of item 3 is left out
    second = -1 + math.log(math.e + 1 + 1)  # but is a negative of the other query
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_two_queries_of_the_same_target_leave_each_other_out():
    items = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = sampled_softmax_loss(EYE, items, torch.tensor([3, 3]), torch.zeros(2), temperature=1.0)
    assert loss.item() == 0.0


def test_left_out_items_get_no_gradient():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.3]], requires_grad=True)
    sampled_softmax_loss(EYE[:1], items[[0, 2]], torch.tensor([3, 3]), torch.zeros(2), 1.0).backward()
    assert items.grad is not None
    assert items.grad.abs().sum() == 0


def cross_entropy(target: float, *others: float) -> float:
    return -target + math.log(math.exp(target) + sum(math.exp(other) for other in others))


def test_without_in_batch_other_targets_do_not_stand_against_a_query():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25]])
    loss = sampled_softmax_loss(EYE, items, torch.tensor([3, 4, 5]), torch.zeros(3), 1.0, in_batch=False)
    expected = (cross_entropy(1, 0.5) + cross_entropy(1, 0.25)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_rejected_item_is_what_its_own_querys_target_was_taken_before():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25], [0.5, 0.75]])
    log_q = torch.log(torch.tensor([0.5, 0.25, 0.1, 0.1]))
    owner = torch.tensor([-1, -1, 1, 1])
    loss = sampled_softmax_loss(EYE, items, torch.tensor([3, 4, 5, 4]), log_q, 0.5, owner_M=owner)
    first = cross_entropy(2 + math.log(2), 0 + math.log(4))
    second = cross_entropy(2 + math.log(4), 0 + math.log(2))
    left = cross_entropy(2, 0.5)  # the other one that the second query's user left is its target by now
    assert loss.item() == pytest.approx((first + second + left) / 2, rel=1e-6)


def test_items_of_the_own_history_do_not_stand_against_a_query():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25], [0.3, 0.3]])
    history = Jagged.from_lists([[5, 9, 4], [3, 4]])  # 9 is in no batch, 4 is the second query's target
    loss = sampled_softmax_loss(EYE, items, torch.tensor([3, 4, 5, 6]), torch.zeros(4), 1.0, history=history)
    first = cross_entropy(1, 0.3)  # neither 4 nor 5
    second = cross_entropy(1, 0.25, 0.3)  # not 3, and its target stands though it had it before
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_queries_without_history_see_everything():
    history = Jagged.from_lists([[], []])
    plain = left_out(torch.tensor([3, 4, 3]), 2)
    assert left_out(torch.tensor([3, 4, 3]), 2, history=history).tolist() == plain.tolist()


def test_remembered_items_stand_against_all_queries_but_their_own():
    memory = Remembered(
        torch.tensor([[0.5, 0.0], [0.0, 0.25]]), torch.tensor([7, 4]), torch.tensor([0.1, 0.2])
    )
    owner = torch.tensor([-1, -1])
    loss = sampled_softmax_loss(
        EYE, EYE, torch.tensor([3, 4]), torch.zeros(2), 1.0, owner_M=owner, memory=memory
    )
    first = cross_entropy(1, 0, 0.5 - 0.1, 0 - 0.2)
    second = cross_entropy(1, 0, 0 - 0.1)  # the remembered 4 is its own target
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_an_empty_memory_changes_nothing():
    memory = CrossBatchMemory(2, 2, 2).view()
    arguments = EYE, EYE, torch.tensor([3, 4]), torch.zeros(2), 1.0
    assert sampled_softmax_loss(*arguments, memory=memory) == sampled_softmax_loss(*arguments)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_masks_are_what_the_rules_say_one_by_one(seed, num_queries, num_more):
    generator = np.random.default_rng(seed)
    item = generator.integers(6, size=num_queries + num_more)
    owner = generator.integers(-1, num_queries, size=len(item))
    owner[:num_queries] = -1
    histories = [generator.integers(6, size=generator.integers(4)) for _ in range(num_queries)]
    found = left_out(
        torch.from_numpy(item), num_queries, in_batch=False,
        owner_M=torch.from_numpy(owner), history=Jagged.from_lists(histories),
    )  # fmt: skip
    for i in range(num_queries):
        for j in range(len(item)):
            stands = i == j or (
                item[j] != item[i]
                and j >= num_queries
                and owner[j] in (-1, i)
                and item[j] not in histories[i]
            )
            assert found[i, j] == (not stands), (i, j)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_are_float32_under_autocast_and_for_narrow_vectors(kind):
    generator = torch.Generator().manual_seed(0)
    query, item = torch.randn(4, 8, generator=generator), torch.randn(6, 8, generator=generator)
    rest = torch.arange(6), torch.zeros(6), 0.05
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = sampled_softmax_loss(query, item, *rest)
    assert under_autocast == sampled_softmax_loss(query, item, *rest)
    narrow = sampled_softmax_loss(query.to(kind), item.to(kind), *rest)
    assert narrow.dtype == torch.float32
    assert narrow == sampled_softmax_loss(query.to(kind).float(), item.to(kind).float(), *rest)
