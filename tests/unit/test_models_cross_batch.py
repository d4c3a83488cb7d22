import math

import pytest
import torch

from tastemaker.errors import CompatibilityError
from tastemaker.models.cross_batch import CrossBatchMemory


def batch(number: int, size: int = 2, dim: int = 3):
    item = torch.arange(size) + 10 * number
    return item[:, None] * torch.ones(dim), item, torch.full((size,), -float(number))


def pushed(numbers, **options) -> CrossBatchMemory:
    memory = CrossBatchMemory(2, 2, 3, **options)
    for number in numbers:
        memory.push(*batch(number))
    return memory


def test_a_new_memory_shows_nothing_of_the_right_shapes():
    vector, item, log_q = CrossBatchMemory(4, 2, 3).view()
    assert (vector.shape, item.shape, log_q.shape) == ((0, 3), (0,), (0,))
    assert item.dtype == torch.int64


def test_the_newest_batches_stay_and_log_q_counts_them():
    vector, item, log_q = pushed([1]).view()
    assert item.tolist() == [10, 11]
    assert log_q.tolist() == [-1, -1]
    vector, item, log_q = pushed([1, 2, 3]).view()
    assert sorted(item.tolist()) == [20, 21, 30, 31]
    assert torch.equal(vector, item[:, None] * torch.ones(3))
    assert torch.allclose(log_q, -(item // 10) + math.log(2))  # expected twice as often as in one batch


def test_nothing_is_shown_before_the_warm_up_ends():
    assert len(pushed([1, 2], warmup_steps=3).view().item_M) == 0
    assert sorted(pushed([1, 2, 3], warmup_steps=3).view().item_M.tolist()) == [20, 21, 30, 31]


def test_a_memory_of_no_batches_takes_and_shows_nothing():
    memory = CrossBatchMemory(0, 2, 3)
    memory.push(*batch(1))
    assert memory.view().vector_MD.shape == (0, 3)


def test_no_gradient_flows_into_the_past():
    memory = CrossBatchMemory(1, 2, 3)
    vector, item, log_q = batch(1)
    memory.push(vector.requires_grad_(), item, log_q)
    assert not memory.view().vector_MD.requires_grad


def test_a_memory_goes_on_from_its_state():
    memory, resumed = pushed([1, 2, 3]), pushed([])
    resumed.load({name: value.clone() for name, value in memory.state().items()})
    for each in (memory, resumed):
        each.push(*batch(4))
    for expected, found in zip(memory.view(), resumed.view(), strict=True):
        assert torch.equal(expected, found)


def test_a_state_of_other_batches_is_refused():
    with pytest.raises(CompatibilityError, match=r"is \(2, 2, 3\), must be \(2, 4, 3\): start with an empty"):
        CrossBatchMemory(2, 4, 3).load(pushed([1]).state())
