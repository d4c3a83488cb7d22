"""A simulated world of visitors: what they have done, what they would click. It keeps experiments honest.

Its preference model is of a family that the platform does not train: latent Dirichlet allocation over
users' items [Blei et al. 2003], fitted on all interactions, those that a fit of the platform must not see
included. So it runs in a process of its own (`python -m tastemaker.data.world`), holds everything in memory,
writes no file, and answers over pipes only (see `world_process`).

A visitor is a real user's clone under a new id. Its taste is that user's, from the whole history; what it
shows the platform is a truncated history that grows by one real item a request. So no request depends on an
earlier answer, and the expected clicks of any slate, served or not, are exact.

    p(click) = examination(position) * sigmoid(offset + SLOPE * utility)
    utility(visitor, item) = log p(item | taste), standardised over the catalogue for each visitor

Shape letters: U users, I items, T topics, K slots.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tastemaker.data.schema import Dataset, read_dataset
from tastemaker.data.splits import Histories
from tastemaker.errors import DataError, TastemakerError
from tastemaker.home import Home
from tastemaker.types import Float64, Int32, Int64

NUM_TOPICS = 40
BATCH_ROWS = 250_000
"""Larger data sets are fitted by one online pass instead of `ITERATIONS` whole ones, to stay near 10 s."""
ITERATIONS = 4
SLOPE = 1.0
EXAMINATION = 0.85
"""Each slot is examined by this share of those who examined the slot above."""
REFERENCE_CLICK_RATE = 0.12
"""Click rate of the ten most popular unseen items, which calibrates the offset."""
REFERENCE_SLOTS = 10
REQUESTS_SHARE = (0.45, 0.30, 0.15, 0.10)
"""Share of visitors with 1, 2, 3 and 4 requests: 1.9 on average."""
SESSION_LENGTH = 50
MIN_HISTORY = 10
"""Users with fewer items are not cloned."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One visitor; `sessions` has the customer item ids, oldest first, that each request carries."""

    visitor_id: str
    sessions: list[list[str]]


class World:
    """The preference model and its visitors. Not thread-safe."""

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        """Fits the model.

        Raises:
            DataError: No user has enough items to be cloned.
        """
        self._item_ids = dataset.item_ids
        self._index = {item_id: row for row, item_id in enumerate(dataset.item_ids)}
        self._histories = _histories(dataset)
        self._users = np.flatnonzero(self._histories.lengths >= MIN_HISTORY)
        if not len(self._users):
            raise DataError(
                "no user can be cloned", limit=f"at least {MIN_HISTORY} items", mend="import more events"
            )
        self._theta_UT, self._phi_IT = _fit(self._histories, dataset.num_items, seed)
        self._scales: dict[int, tuple[float, float, float]] = {}
        self._offset = self._calibrated()
        self._clones: dict[str, tuple[int, int]] = {}

    def visitors(self, num_visitors: int, seed: int, prefix: str) -> list[Visitor]:
        """New visitors, named `{prefix}-{seed}-{number}`; the same arguments give the same ones."""
        draws = np.random.default_rng(seed)
        made = []
        for number in range(num_visitors):
            user = int(draws.choice(self._users))
            items = self._histories[user]
            num_requests = 1 + int(draws.choice(len(REQUESTS_SHARE), p=REQUESTS_SHARE))
            known = int(draws.integers(MIN_HISTORY // 2, len(items) - num_requests + 1))
            visitor_id = f"{prefix}-{seed}-{number}"
            self._clones[visitor_id] = (user, _stream(seed, number))
            sessions = [self._ids(items[: known + r][-SESSION_LENGTH:]) for r in range(num_requests)]
            made.append(Visitor(visitor_id, sessions))
        return made

    def expected(self, visitor_id: str, slate: Sequence[str]) -> float:
        """Expected number of clicks on a slate of item ids, best first."""
        return float(self._click_probability(visitor_id, slate).sum())

    def click(self, visitor_id: str, slate: Sequence[str], request: int) -> list[int]:
        """Positions, from 0, that the visitor clicks in its request of that number.

        One uniform number for each (visitor, request, position) decides, whatever the slate and the order of
        calls: common random numbers.
        """
        _, stream = self._clone(visitor_id)
        chance_K = np.random.default_rng([stream, request]).random(len(slate))
        clicked: list[int] = np.flatnonzero(chance_K < self._click_probability(visitor_id, slate)).tolist()
        return clicked

    def _click_probability(self, visitor_id: str, slate: Sequence[str]) -> Float64:
        user, _ = self._clone(visitor_id)
        rows_K = np.array([self._index.get(item_id, -1) for item_id in slate], np.int64)
        return _examination(len(slate)) * _sigmoid(self._offset + SLOPE * self._utility(user, rows_K))

    def _clone(self, visitor_id: str) -> tuple[int, int]:
        try:
            return self._clones[visitor_id]
        except KeyError as error:
            raise DataError("unknown visitor", value=visitor_id, mend="ask for visitors first") from error

    def _utility(self, user: int, rows_K: Int64) -> Float64:
        """(K,) utility of items; that of -1, an unknown item, is the least of the catalogue."""
        if user not in self._scales:
            log_I = self._log_probability(user, np.arange(len(self._item_ids)))
            self._scales[user] = (float(log_I.mean()), max(float(log_I.std()), 1e-12), float(log_I.min()))
        mean, deviation, least = self._scales[user]
        log_K = np.where(rows_K < 0, least, self._log_probability(user, rows_K))
        return np.asarray((log_K - mean) / deviation, np.float64)

    def _log_probability(self, user: int, rows_K: Int64) -> Float64:
        log_K: Float64 = np.log(self._phi_IT[rows_K] @ self._theta_UT[user] + 1e-12)
        return log_K

    def _ids(self, items: Int32) -> list[str]:
        return [self._item_ids[item] for item in items]

    def _calibrated(self) -> float:
        """The offset that gives `REFERENCE_CLICK_RATE` to popular slates, by bisection."""
        count_I = np.bincount(self._histories.item_index, minlength=len(self._item_ids))
        popular = np.argsort(-count_I, kind="stable")
        sample = self._users[:: max(1, len(self._users) // 200)]
        utility = []
        for user in sample:
            earlier = self._histories[int(user)][: MIN_HISTORY // 2]
            unseen = popular[~np.isin(popular, earlier)][:REFERENCE_SLOTS]
            utility.append(self._utility(int(user), unseen))
        utility_UK = np.array(utility)
        weight_K = _examination(utility_UK.shape[1])
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            rate = (weight_K * _sigmoid(middle + SLOPE * utility_UK)).mean()
            low, high = (middle, high) if rate < REFERENCE_CLICK_RATE else (low, middle)
        return low


def _histories(dataset: Dataset) -> Histories:
    sizes = np.bincount(dataset.user_index, minlength=dataset.num_users)
    return Histories(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), dataset.item_index)


def _fit(histories: Histories, num_items: int, seed: int) -> tuple[Float64, Float64]:
    """Topic shares of users (U, T), and item shares of topics, transposed (I, T)."""
    from sklearn.decomposition import LatentDirichletAllocation

    whole = len(histories.item_index) <= BATCH_ROWS
    model = LatentDirichletAllocation(
        NUM_TOPICS,
        doc_topic_prior=0.1,
        topic_word_prior=0.01,
        learning_method="batch" if whole else "online",
        max_iter=ITERATIONS if whole else 1,
        random_state=seed,
    )
    theta_UT: Float64 = model.fit_transform(histories.to_csr(num_items))
    phi_TI: Float64 = model.components_ / model.components_.sum(axis=1, keepdims=True)
    return theta_UT, np.ascontiguousarray(phi_TI.T)


def _examination(num_slots: int) -> Float64:
    return EXAMINATION ** np.arange(num_slots, dtype=np.float64)


def _sigmoid(x: Float64) -> Float64:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)


def _stream(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def answer(world: World, method: str, arguments: list[Any]) -> Any:
    """What the world says to one batch: `visitors`, `click` or `expected` (see `world_process`)."""
    if method == "visitors":
        return [[visitor.visitor_id, visitor.sessions] for visitor in world.visitors(*arguments)]
    calls: dict[str, Callable[..., Any]] = {"click": world.click, "expected": world.expected}
    if method not in calls:
        raise DataError(
            "method of the world", value=method, limit="visitors, click or expected", mend="correct it"
        )
    return [calls[method](*one) for one in arguments]


def serve(dataset: Dataset, seed: int, requests: TextIO, answers: TextIO) -> None:
    """Answers one JSON line for each JSON line, until these end. The first answer says `ready`."""
    world = World(dataset, seed)
    _write(answers, {"result": "ready"})
    for line in requests:
        request = json.loads(line)
        try:
            _write(answers, {"result": answer(world, request["method"], request["arguments"])})
        except TastemakerError as error:
            _write(answers, {"error": str(error)})


def _write(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value, ensure_ascii=True) + "\n")
    answers.flush()


def main(arguments: Sequence[str]) -> None:
    """Serves the world of a home's catalogue over stdin and stdout: HOME CATALOGUE SEED."""
    home, catalogue, seed = arguments
    answers, sys.stdout = sys.stdout, sys.stderr  # the pipe carries answers alone
    try:
        serve(read_dataset(Home.open(Path(home)), catalogue), int(seed), sys.stdin, answers)
    except TastemakerError as error:
        _write(answers, {"error": str(error)})


if __name__ == "__main__":
    main(sys.argv[1:])
