"""Which items to ask a new user about: ones that many know and that people differ on, and together reach everyone.

An item's worth is the harmonic mean of the logarithm of its frequency and the entropy of what people made of it [HELF,
Rashid, Karypis & Riedl 2008]. Items are then taken greedily, each counting the users who know it, half as much for every
question that they can answer already: a second comedy that the same people have seen tells little.

Shape letters: N rows of the dataset, I items, U users, V values of ratings.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from tastemaker.data.schema import POSITIVE_KINDS, Column, Dataset
from tastemaker.errors import UsageError
from tastemaker.types import Float64

_RATING = POSITIVE_KINDS.index("rating")


@dataclass(frozen=True, slots=True)
class Question:
    """An item to ask about. `known` is the share of users who can answer it, `reached` of those who can answer any so far."""

    item_id: str
    title: str
    worth: float
    known: float
    reached: float


def questions(dataset: Dataset, k: int) -> list[Question]:
    """The k items to ask about, in the order of asking; fewer where no user knows more.

    Raises:
        UsageError: `k` is not positive.
    """
    if k < 1:
        raise UsageError("number of questions", value=k, limit="at least 1", mend="ask for one or more")
    taken_IU = _taken(dataset)
    worth_I = helf(dataset)
    answers_U = np.zeros(dataset.num_users)
    open_I = worth_I > 0
    found: list[Question] = []
    for _ in range(min(k, int(open_I.sum()))):
        gain_I = np.where(open_I, worth_I * (taken_IU @ 0.5**answers_U), -1.0)
        item = int(gain_I.argmax())
        users = taken_IU.indices[taken_IU.indptr[item] : taken_IU.indptr[item + 1]]
        answers_U[users] += 1
        open_I[item] = False
        found.append(
            Question(
                dataset.item_ids[item],
                str(dataset.items[Column.TITLE][item].as_py()),
                float(worth_I[item]),
                len(users) / dataset.num_users,
                float(np.mean(answers_U > 0)),
            )
        )
    return found


def helf(dataset: Dataset) -> Float64:
    """Worth (I,) of asking about each item, 0 to 1: the harmonic mean of log-frequency and entropy, each of their most.

    The frequency is the number of users who took an item. The entropy is that of its ratings, where there are any, else
    of whether a user took it. An item that fewer than two users took, or on which all agree, is worth 0.
    """
    count_I = np.diff(_taken(dataset).indptr).astype(np.float64)
    frequency_I = np.log(np.maximum(count_I, 1)) / np.log(max(dataset.num_users, 2))
    entropy_I = (
        _rating_entropy(dataset)
        if (dataset.kind_index == _RATING).any()
        else _taken_entropy(count_I, dataset)
    )
    both_I = frequency_I + entropy_I
    worth_I: Float64 = 2 * frequency_I * entropy_I / np.where(both_I > 0, both_I, 1)
    return worth_I


def _rating_entropy(dataset: Dataset) -> Float64:
    rated_N = dataset.kind_index == _RATING
    values, value_N = np.unique(dataset.value[rated_N], return_inverse=True)
    count_IV = np.zeros((dataset.num_items, len(values)))
    np.add.at(count_IV, (dataset.item_index[rated_N], value_N), 1)
    return entropy(count_IV)


def _taken_entropy(count_I: Float64, dataset: Dataset) -> Float64:
    return entropy(np.stack([count_I, dataset.num_users - count_I], axis=1))


def entropy(count_IV: Float64) -> Float64:
    """Entropy (I,) of counts over V values, as a share of log V; 0 for an item without counts, or one value.

    >>> entropy(np.array([[2.0, 2.0], [4.0, 0.0], [0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    share_IV = count_IV / np.maximum(count_IV.sum(axis=1, keepdims=True), 1)
    bits_IV = share_IV * np.log(np.where(share_IV > 0, share_IV, 1))
    most = np.log(max(count_IV.shape[1], 2))
    found: Float64 = np.abs(bits_IV.sum(axis=1)) / most
    return found


def _taken(dataset: Dataset) -> sp.csr_matrix:
    """(I, U) float64: 1 where a user took an item, however often."""
    ones = np.ones(len(dataset))
    taken = sp.csr_matrix(
        (ones, (dataset.item_index, dataset.user_index)), shape=(dataset.num_items, dataset.num_users)
    )
    taken.sum_duplicates()
    taken.data[:] = 1.0
    return taken
