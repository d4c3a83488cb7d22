"""What models of sequences are made of, each against its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tastemaker.errors import ConfigError
from tastemaker.models.dropping import ByteDropout
from tastemaker.models.log import Log
from tastemaker.models.sequence.attention import SelfAttention
from tastemaker.models.sequence.losses import (
    LossConfig,
    linear_cross_entropy,
    own_negatives_bce,
    sampled_cross_entropy,
    shared_negatives_bce,
)
from tastemaker.models.sequence.recurrent import RecurrentConfig, RecurrentEncoder
from tastemaker.models.sequence.token_batch import TokenBatch, pack
from tastemaker.models.sequence.windows import HeldOut, Windows

LENGTHS = np.array([3, 9, 1, 7, 9])
lengths_of_sequences = st.lists(st.integers(1, 12), min_size=1, max_size=12).map(np.array)


def batch_of(lengths) -> TokenBatch:
    return TokenBatch.of(np.cumsum(lengths) - lengths, lengths)


def log_of(histories, num_items) -> Log:
    user = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    item = np.array([item for items in histories for item in items])
    return Log.of(user, item, num_users=len(histories), num_items=num_items)


@given(lengths_of_sequences)
def test_a_batch_holds_each_token_once_and_the_longest_sequence_first(lengths):
    batch = batch_of(lengths)
    assert sorted(batch.token_V.tolist()) == list(range(lengths.sum()))
    assert batch.length_B.tolist() == sorted(lengths, reverse=True)
    assert (lengths[batch.sequence_B] == batch.length_B.numpy()).all()
    assert (batch.age_V[batch.last_B] == 0).all()
    ends = np.cumsum(lengths)[batch.sequence_B] - 1
    assert batch.token_V[batch.last_B].tolist() == ends.tolist()


@given(lengths_of_sequences)
def test_sequences_of_one_length_lie_side_by_side(lengths):
    batch = batch_of(lengths)
    parts = batch.grouped(batch.token_V[:, None])
    found = [sequence.flatten().tolist() for part in parts for sequence in part]
    ends = np.cumsum(lengths)
    wanted = [list(range(end - length, end)) for end, length in zip(ends, lengths, strict=True)]
    assert found == [wanted[sequence] for sequence in batch.sequence_B]
    assert [part.shape[1] for part in parts] == sorted(set(lengths.tolist()), reverse=True)


def test_packing_keeps_the_newest_items():
    flat, batch = pack([np.array([5, 6, 7], np.int32), np.array([8], np.int32)], max_length=2)
    assert flat[batch.token_V].tolist() == [6, 7, 8]
    assert batch.age_V.tolist() == [1, 0, 0]


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_attention_is_that_of_each_sequence_by_itself(looks_ahead, num_heads):
    torch.manual_seed(0)
    attention, batch = SelfAttention(4, num_heads, looks_ahead=looks_ahead), batch_of(LENGTHS)
    value = torch.randn(int(LENGTHS.sum()), 4)
    found = attention(value, batch)
    begin = 0
    for length in batch.length_B.tolist():
        query, key, kept = (
            part.view(length, num_heads, -1).transpose(0, 1)
            for part in attention.read(value[begin : begin + length]).split(4, dim=1)
        )
        logit = query @ key.transpose(1, 2) / math.sqrt(4 / num_heads)
        if not looks_ahead:
            logit = logit.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        gathered = (torch.softmax(logit, dim=2) @ kept).transpose(0, 1).reshape(length, 4)
        torch.testing.assert_close(found[begin : begin + length], attention.out(gathered))
        begin += length
    torch.testing.assert_close(attention.last(value, batch), found[batch.last_B])


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_attention_in_bfloat16_is_near_that_in_float32(looks_ahead):
    torch.manual_seed(0)
    attention, batch = SelfAttention(8, 2, looks_ahead=looks_ahead), batch_of(LENGTHS)
    value = torch.randn(int(LENGTHS.sum()), 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(value, batch)
    # Seven bits of mantissa, in three products of some 8 terms below 1 each.
    torch.testing.assert_close(found.float(), attention(value, batch), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrence_is_that_of_each_sequence_by_itself(cell, monkeypatch):
    monkeypatch.setattr("tastemaker.models.sequence.recurrent._LEAST_TOGETHER", 2)
    torch.manual_seed(0)
    encoder = RecurrentEncoder(30, RecurrentConfig(dim=4, hidden=5, num_layers=2), cell).eval()
    batch, item = batch_of(LENGTHS), torch.randint(0, 30, (int(LENGTHS.sum()),))
    weight, found, alone, begin = torch.randn(len(item), 4), encoder(item, batch), [], 0
    for length in batch.length_B.tolist():
        state, _ = encoder.recurrent(encoder.items(item[begin : begin + length])[:, None])
        alone.append(encoder.out(state[:, 0]))
        begin += length
    torch.testing.assert_close(found, torch.cat(alone))
    parameters = list(encoder.parameters())
    wanted = torch.autograd.grad((torch.cat(alone) * weight).sum(), parameters)
    torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), parameters), wanted)


@pytest.mark.parametrize("spread", [1.0, 100.0])  # at 100 the next item's share is below what float32 holds
def test_linear_cross_entropy_is_torchs_with_its_gradients(monkeypatch, spread):
    monkeypatch.setattr("tastemaker.models.sequence.losses._LOGITS_AT_ONCE", 1)  # 16 tokens at a time
    torch.manual_seed(0)
    parts = [
        (spread * torch.randn(50, 8)).requires_grad_(),
        torch.randn(30, 8, requires_grad=True),
    ]
    following = torch.randint(0, 30, (50,))
    expected = functional.cross_entropy(parts[0] @ parts[1].T, following)
    wanted = torch.autograd.grad(expected, parts)
    found = linear_cross_entropy(*parts, following)
    torch.testing.assert_close(found, expected)
    for gradient, want in zip(torch.autograd.grad(3 * found, parts), wanted, strict=True):
        torch.testing.assert_close(gradient, 3 * want)


def test_bce_by_hand():
    hidden, following = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 5.0]])
    negatives = torch.tensor([[[0.0, 1.0], [-1.0, 1.0]]])
    # Two negatives: log 2 is taken from all logits, which halves exp(logit).
    expected = -0.5 * math.log(
        1 / (1 + 2 * math.exp(-2))
    )  # beta times that of the positive, whose product is 2
    expected -= math.log(1 - 1 / (1 + 2))  # the first negative's product is 0
    expected -= math.log(1 - 1 / (1 + 2 * math.exp(1)))  # the second's is -1
    assert own_negatives_bce(hidden, following, negatives, 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_shared_negatives_are_each_tokens_own_negatives_repeated():
    torch.manual_seed(0)
    batch = batch_of(LENGTHS)
    hidden = torch.randn(int(LENGTHS.sum()), 4, requires_grad=True)
    following, negatives = torch.randn(len(hidden), 4), torch.randn(len(LENGTHS), 3, 4)
    shared = shared_negatives_bce(hidden, following, negatives, batch, 0.3)
    own = own_negatives_bce(hidden, following, negatives.repeat_interleave(batch.length_B, dim=0), 0.3)
    torch.testing.assert_close(shared, own)
    gradients = [torch.autograd.grad(loss, hidden)[0] for loss in (shared, own)]
    torch.testing.assert_close(*gradients)


def test_sampled_cross_entropy_of_all_others_is_that_of_the_catalogue():
    torch.manual_seed(0)
    hidden, table = torch.randn(1, 4), torch.randn(6, 4)
    following, others = torch.tensor([2]), torch.tensor([0, 1, 3, 4, 5])
    found = sampled_cross_entropy(hidden, table[following], following, table[others], others, 6)
    torch.testing.assert_close(found, functional.cross_entropy(hidden @ table.T, following))


def test_the_next_item_does_not_stand_against_itself_and_draws_stand_for_all():
    hidden, table = torch.zeros(1, 2), torch.zeros(5, 2)
    following, drawn = torch.tensor([1]), torch.tensor([1, 3])
    found = sampled_cross_entropy(hidden, table[following], following, table[drawn], drawn, 5)
    assert found.item() == pytest.approx(math.log(1 + 4 / 2))  # one negative is left, which counts for two


@pytest.mark.parametrize(
    "loss", [{"kind": "bce"}, {"kind": "softmax", "calibration": 0.5}, {"kind": "softmax", "shared": True}]
)
def test_losses_that_do_not_belong_together_are_refused(loss):
    with pytest.raises(
        ConfigError, match=r"a test: values do not belong together: (num_negatives|calibration)"
    ):
        LossConfig.parse(loss, "a test")


def test_dropout_keeps_the_mean_and_drops_its_share():
    drop, value = ByteDropout(0.25), torch.ones(100_003)
    torch.manual_seed(0)
    dropped = drop(value)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)  # 7 standard errors
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert drop.eval()(value) is value


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=14), min_size=1, max_size=6).filter(any),
    st.integers(1, 5),
)
def test_each_item_but_a_users_first_comes_next_in_one_window(histories, max_length):
    log = log_of(histories, 6)
    windows = Windows.of(log, np.diff(log.offsets), max_length, "all")
    come_next = [
        place for begin, length in zip(windows.begin_W, windows.length_W, strict=True)
        for place in range(begin + 1, begin + length + 1)
    ]  # fmt: skip
    first = {int(begin) for begin, end in zip(log.offsets, log.offsets[1:], strict=False) if begin < end}
    assert sorted(come_next) == sorted(set(range(len(log))) - first)
    assert (windows.length_W <= max_length).all()


def test_newest_windows_hold_out_the_last_items():
    log = log_of([[0, 1, 2, 3, 4], [5, 0], [1]], 6)
    held_out, left = HeldOut.of(log, 10, np.random.default_rng(0))
    assert [history.tolist() for history in held_out.histories] == [[0, 1, 2, 3]]
    assert held_out.target_B.tolist() == [4]
    windows = Windows.of(log, left, 2, "newest")
    assert windows.user_W.tolist() == [0, 1]
    assert windows.begin_W.tolist() == [
        1,
        5,
    ]  # items 1 and 2, behind which comes 3; item 5, behind which comes 0
    assert windows.length_W.tolist() == [2, 1]


def test_drawn_items_are_none_that_a_user_is_known_to_have():
    log = log_of([[0, 1, 2], [3]], 40)
    windows = Windows.of(log, np.array([2, 1]), 5, "all")  # user 0's item 2 is held out
    drawn = windows.draw(np.repeat([0], 2000), 3, np.random.default_rng(0))
    assert not np.isin(drawn, [0, 1]).any()
    assert np.isin(2, drawn)


def test_ndcg_of_held_out_items_by_hand():
    held_out = HeldOut([np.array([0]), np.array([1])], np.array([2, 0], np.int32))
    users, items = np.eye(2, dtype=np.float32), np.array([[9, 1], [3, 7], [2, 8], [1, 0.5]], np.float32)
    # Of user 0, who has item 0: items 1, 2, 3 score 3, 2, 1, so that item 2 is second.
    # Of user 1, who has item 1: items 2, 0, 3 score 8, 1, 0.5, so that item 0 is second.
    assert held_out.ndcg(users, items) == pytest.approx(1 / math.log2(3))
    assert held_out.ndcg(users, items, k=1) == 0
    assert held_out.ndcg(users, np.zeros_like(items), k=2) == 0  # all alike says nothing
