import math

import pytest
import torch

from tastemaker.models.losses import sampled_softmax_loss

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
