"""The values that cross from one part to another.

Shape letters: B requests, L history, K candidates, S sources, F features.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from tastemaker.errors import UsageError

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.object_]


class VectorRows(Protocol):
    """Vectors of a catalogue that are looked up by row: a matrix (I, D), or several that are one behind the other."""

    def __len__(self) -> int:
        """Rows."""
        ...

    def __getitem__(self, rows_K: Int32, /) -> Float32:
        """The vectors (K, D) of `rows_K`, (K,) integers from 0 on and below the length: a copy."""
        ...


EventKind = Literal[
    "impression", "view", "click", "like", "purchase", "rating", "watch", "skip", "dislike", "hide"
]
EVENT_KINDS: tuple[str, ...] = get_args(EventKind)
EVENT_WEIGHTS: Mapping[str, float] = {"purchase": 1.0, "like": 0.75, "click": 0.5, "view": 0.25}
Origin = Literal["live", "simulator", "replay"]
ORIGINS: tuple[str, ...] = get_args(Origin)

MAX_LOGGED_POSITION = 100_000
"""Of an item in the recommendation that an event answers, from 0."""
DEVICES = ("mobile", "tablet", "desktop", "tv", "other")
"""Rows from 1 of the table of devices."""

_CATALOGUE = re.compile(r"[a-z0-9-]{1,40}")
MAX_ID_LENGTH = 256


def catalogue_name(name: str) -> str:
    """The name itself, if it may name a catalogue.

    Raises:
        UsageError: The name has other characters or is too long.
    """
    if not _CATALOGUE.fullmatch(name):
        raise UsageError(
            "catalogue name", value=name, limit="1 to 40 of a-z, 0-9 and '-'", mend="choose another name"
        )
    return name


def device_row(device: str) -> int:
    """The row of a device that a client names; 0 where it names none.

    >>> [device_row(device) for device in ("", "Mobile", "tv", "toaster")]
    [0, 1, 4, 5]
    """
    return _DEVICE_ROWS.get(device.lower(), len(DEVICES))


_DEVICE_ROWS = {"": 0} | {device: row for row, device in enumerate(DEVICES, 1)}


@dataclass(frozen=True, slots=True)
class Query:
    """One request for recommendations, with ids already turned into rows of one bundle's catalogue.

    `history_L` is the user's past, oldest first, known items only. `exclude` and `allowed` are hard rules: rows that
    must not, and rows that alone may, be recommended. `history_L` is always excluded where `exclude_seen`. `visit_L` is
    what the request itself tells of the visit under way; it is part of `history_L`. `record` is what is kept of the user,
    see `features.user_state`; None where it could not be read. `interest_D` is what a new user said of themselves, as a vector
    of the bundle's content space. `keep_features` asks for the features in the answer.
    `lineage` is what rows behind the bundle's belong to, see `stages.overlay`; empty where there are none. `explore` lets
    items through that little is known of, by the luck of `seed`. `long_term_only` leaves out what sessions do to the user's
    vector. `policy` is what the variant changes about the stages, as
    `stages.policy.StagePolicy.dump` gives it; empty where it changes nothing. `traceparent` is the span that the work for it
    belongs to, as W3C Trace Context writes it; empty where the request is not traced.
    """

    history_L: Int32
    k: int = 10
    user_id: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    exclude: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    allowed: Bool | None = None
    exclude_seen: bool = True
    seed: int = 0
    now_ms: int = 0
    visit_L: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    record: bytes | None = None
    interest_D: Float32 | None = None
    keep_features: bool = False
    lineage: str = ""
    explore: bool = False
    long_term_only: bool = False
    policy: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What crosses stages for one request: a struct of arrays, best first once a stage has ordered it.

    `source_mask` has bit s set where source s proposed the candidate; `source_score_KS` is NaN where source s has no
    score for it. `features_KF` comes with hydration, `propensity_K` with exploration. `because` is the item of the history
    that speaks most for a candidate, -1 where none does; see `stages.because`. `missing_sources` has the bits of those that
    did not answer, `missing_shards` is the number of the catalogue's shards that did not. `worked_seconds` is how long the process of the
    stage that gave them had the call, where it is another process. `team` says, of a list of two rankers' picks, whose each is; see `experiments.interleaving`.
    """

    item_index: Int32
    score: Float32
    source_mask: UInt32
    source_score_KS: Float32
    features_KF: Float32 | None = None
    propensity: Float32 | None = None
    because: Int32 | None = None
    missing_sources: int = 0
    team: Int8 | None = None
    missing_shards: int = 0
    worked_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Own invariant: one length throughout."""
        assert len(self.item_index) == len(self.score) == len(self.source_mask) == len(self.source_score_KS)

    def __len__(self) -> int:
        return len(self.item_index)

    @classmethod
    def empty(cls, num_sources: int) -> "Candidates":
        """No candidates of `num_sources` sources."""
        return cls(
            np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.uint32),
            np.empty((0, num_sources), np.float32),
        )  # fmt: skip

    def take(self, rows: npt.NDArray[np.integer] | Bool | Sequence[int]) -> "Candidates":
        """The candidates at `rows` (positions or a mask), in that order."""
        r = np.asarray(rows)
        if r.size == 0:
            r = r.astype(np.int64)
        return Candidates(
            self.item_index[r],
            self.score[r],
            self.source_mask[r],
            self.source_score_KS[r],
            None if self.features_KF is None else self.features_KF[r],
            None if self.propensity is None else self.propensity[r],
            None if self.because is None else self.because[r],
            self.missing_sources,
            None if self.team is None else self.team[r],
            self.missing_shards,
        )

    def with_score(self, score: Float32) -> "Candidates":
        """The same candidates under new scores, not reordered."""
        return replace(self, score=score.astype(np.float32, copy=False))

    def and_then(self, others: "Candidates") -> "Candidates":
        """These and behind them others, of the same sources; without features, propensities, reasons and teams."""
        return Candidates(
            np.concatenate([self.item_index, others.item_index]),
            np.concatenate([self.score, others.score]),
            np.concatenate([self.source_mask, others.source_mask]),
            np.concatenate([self.source_score_KS, others.source_score_KS]),
        )

    def sorted(self) -> "Candidates":
        """Best score first; ties by item_index, so that the order is a function of the content alone."""
        return self.take(np.lexsort((self.item_index, -self.score)))
