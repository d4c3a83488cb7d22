"""From ids to rows of a table: by a map that is frozen once fitted, or by a hash. Row 0 stands for every unknown id.

Shape letters: E ids that have a row, N ids that are asked for, B bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int64, Strings

Ids = Sequence[str] | Sequence[int] | Strings | npt.NDArray[np.integer]
_DAY_MS = 86_400_000


class VocabularyConfig(Strict):
    """Which ids have rows."""

    kind: Literal["map", "hash"] = Field(
        "map", description="a row for each admitted id, or rows that ids share by their hash"
    )
    min_count: int = Field(1, ge=1, description="map: an id is admitted from this count on")
    max_age_days: float | None = Field(
        None, gt=0, description="map: an id that was not seen for longer loses its row; empty keeps all"
    )
    num_buckets: int | None = Field(None, ge=1, description="hash: rows that ids share")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.kind == "hash" and self.num_buckets is None:
            raise ValueError("kind hash needs num_buckets")
        if self.kind == "hash" and (self.min_count > 1 or self.max_age_days is not None):
            raise ValueError("kind hash admits every id: min_count and max_age_days are of kind map")
        if self.kind == "map" and self.num_buckets is not None:
            raise ValueError("kind map has a row for each id: num_buckets is of kind hash")
        return self


class _State(Strict):
    config: VocabularyConfig = Field(description="which ids have rows")
    ids: Literal["text", "integer"] = Field(description="what ids are")
    num_rows: int = Field(ge=1, description="rows of the table, row 0 included")


class Vocabulary:
    """The row of each id. Immutable and thread-safe.

    Rows of a map are given in order of the ids, not of their counts: so tables that are split by rows have the frequent
    ones on all ranks. The hash of a text is the first 8 bytes of its UTF-8's BLAKE2b, least significant first; of an
    integer it is SplitMix64 [Steele et al. 2014]. Both are the same on every machine.

    Attributes:
        num_rows: Rows of a table for these ids, row 0 included.
    """

    def __init__(
        self,
        config: VocabularyConfig,
        ids: "pd.Index[Any]",
        row_E: Int64,
        last_seen_ms_E: Int64,
        num_rows: int,
    ) -> None:
        self.config, self.num_rows = config, num_rows
        self._ids, self._row_E, self._last_seen_ms_E = ids, row_E, last_seen_ms_E
        self._row_or_unknown = np.append(row_E, 0)  # pandas' -1 for an unknown id is the last

    def __len__(self) -> int:
        """Ids that have a row of their own."""
        return len(self._ids)

    @classmethod
    def fit(
        cls,
        ids: Ids,
        counts: npt.ArrayLike,
        last_seen_ms: npt.ArrayLike,
        now_ms: int,
        config: VocabularyConfig,
    ) -> "Vocabulary":
        """The vocabulary of some ids.

        Args:
            ids: All text or all integers, each once.
            counts: How often each was seen.
            last_seen_ms: When each was seen last.
            now_ms: When the ids' age is taken.
            config: Which of them are admitted.

        Raises:
            DataError: An id occurs twice, or the three are not of one length.
        """
        none = np.empty(0, np.int64)
        empty = cls(config, _index([]), none, none, 1 + (config.num_buckets or 0))
        return empty.updated(ids, counts, last_seen_ms, now_ms).vocabulary

    def rows(self, ids: Ids) -> Int64:
        """(N,) the row of each id, 0 where the map has none.

        Raises:
            DataError: The ids are text and the vocabulary's are integers, or the other way round.
        """
        index = _index(ids)
        if self.config.num_buckets is not None:
            row_N: Int64 = 1 + (_hashes(index) % np.uint64(self.config.num_buckets)).astype(np.int64)
            return row_N
        self._check_kind(index)
        return self._row_or_unknown[self._ids.get_indexer(index)]

    def updated(
        self, ids: Ids, counts: npt.ArrayLike, last_seen_ms: npt.ArrayLike, now_ms: int
    ) -> "VocabularyUpdate":
        """The vocabulary after newer events: ids that stay keep their rows, new ones take free rows first.

        An id loses its row by age alone, of which its newest sight counts, old or new. The table never shrinks.

        Args:
            ids: Those of the newer events, each once.
            counts: How often each was seen; what admits an id that has no row.
            last_seen_ms: When each was seen last.
            now_ms: When the ids' age is taken.

        Raises:
            DataError: As `fit`, or the ids are of another kind than the vocabulary's.
        """
        index, count_N, seen_ms_N = _index(ids), np.asarray(counts), np.asarray(last_seen_ms, np.int64)
        _check_counts(index, count_N, seen_ms_N)
        if self.config.kind == "hash":
            return VocabularyUpdate(self, np.empty(0, np.int64))
        self._check_kind(index)
        at_N = self._ids.get_indexer(index)
        known_N = at_N >= 0
        seen_ms_E = self._last_seen_ms_E.copy()
        seen_ms_E[at_N[known_N]] = np.maximum(seen_ms_E[at_N[known_N]], seen_ms_N[known_N])
        stays_E = self._is_fresh(seen_ms_E, now_ms)
        new = np.flatnonzero(
            ~known_N & (count_N >= self.config.min_count) & self._is_fresh(seen_ms_N, now_ms)
        )
        new = new[index[new].argsort()]
        new_rows = self._free_rows(self._row_E[stays_E], len(new))
        row_E = np.concatenate([self._row_E[stays_E], new_rows])
        order = np.argsort(row_E)
        vocabulary = Vocabulary(
            self.config,
            _index([*self._ids[stays_E], *index[new]])[order],
            row_E[order],
            np.concatenate([seen_ms_E[stays_E], seen_ms_N[new]])[order],
            max(self.num_rows, int(row_E.max(initial=0)) + 1),
        )
        return VocabularyUpdate(vocabulary, new_rows)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        ids: Literal["text", "integer"] = "integer" if self._ids.dtype == np.int64 else "text"
        return _State(config=self.config, ids=ids, num_rows=self.num_rows).model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """Rows, when each id was seen last, and the ids: integers, or UTF-8 end to end and where each begins."""
        arrays: dict[str, np.ndarray] = {"rows": self._row_E, "last_seen_ms": self._last_seen_ms_E}
        if self._ids.dtype == np.int64:
            return arrays | {"ids": self._ids.to_numpy()}
        encoded = [text.encode() for text in self._ids]
        ids_B = np.frombuffer(b"".join(encoded), np.uint8)
        return arrays | {"ids": ids_B, "offsets": np.cumsum([0, *map(len, encoded)])}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The vocabulary that `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: They do not belong together.
        """
        state = _State.parse(config, "vocabulary")
        ids, row_E = tensors["ids"], tensors["rows"]
        index = _index(_texts(ids, tensors["offsets"]) if state.ids == "text" else ids)
        lengths = {len(index), len(row_E), len(tensors["last_seen_ms"])}
        inside = row_E.min(initial=1) >= 1 and row_E.max(initial=0) < state.num_rows
        if len(lengths) > 1 or not inside or len(np.unique(row_E)) < len(row_E) or not index.is_unique:
            raise CompatibilityError(
                "ids and rows of a vocabulary do not match", mend="publish the bundle again"
            )
        return cls(state.config, index, row_E, tensors["last_seen_ms"], state.num_rows)

    def _is_fresh(self, seen_ms: Int64, now_ms: int) -> Bool:
        age_days = (now_ms - seen_ms) / _DAY_MS
        limit = self.config.max_age_days
        return np.ones(len(age_days), np.bool_) if limit is None else age_days <= limit

    def _free_rows(self, taken: Int64, count: int) -> Int64:
        """The first `count` rows that are not taken, behind the table's end where it has too few."""
        free = np.setdiff1d(np.arange(1, self.num_rows + count), taken)
        return free[:count]

    def _check_kind(self, index: "pd.Index[Any]") -> None:
        if len(index) and len(self) and index.dtype != self._ids.dtype:
            mine, other = ("integers", "text") if self._ids.dtype == np.int64 else ("text", "integers")
            raise DataError("ids", value=other, limit=f"{mine} as in the vocabulary", mend="convert them")


class VocabularyUpdate(NamedTuple):
    """A vocabulary, and its rows whose id is new: training gives them first values, whatever an older table holds there."""

    vocabulary: Vocabulary
    new_rows: Int64


def _index(ids: Ids) -> "pd.Index[Any]":
    index: pd.Index[Any] = pd.Index(ids)
    if index.inferred_type == "integer":
        return index.astype(np.int64)
    if index.inferred_type not in ("string", "empty"):
        raise DataError(
            "ids", value=index.inferred_type, limit="all text or all integers", mend="convert them"
        )
    return index.astype(object)


def _check_counts(index: "pd.Index[Any]", count_N: np.ndarray, seen_ms_N: Int64) -> None:
    if not len(index) == len(count_N) == len(seen_ms_N):
        lengths = f"{len(index)}, {len(count_N)} and {len(seen_ms_N)}"
        raise DataError("ids, counts and last_seen_ms", value=lengths, limit="of one length")
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise DataError(
            "ids of a vocabulary", value=f"{twice} twice", limit="each once", mend="add up its counts"
        )


def _hashes(index: "pd.Index[Any]") -> npt.NDArray[np.uint64]:
    if index.dtype == np.int64:
        return _split_mix(index.to_numpy().view(np.uint64))
    codes, unique = index.factorize()
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in unique]
    hash_N: npt.NDArray[np.uint64] = np.frombuffer(b"".join(digests), "<u8")[codes]
    return hash_N


def _split_mix(state_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output of SplitMix64 for each state."""
    mixed_N = state_N + np.uint64(0x9E3779B97F4A7C15)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hash_N: npt.NDArray[np.uint64] = mixed_N ^ (mixed_N >> np.uint64(31))
    return hash_N


def _texts(ids_B: np.ndarray, offsets: np.ndarray) -> list[str]:
    content = ids_B.tobytes()
    return [content[begin:end].decode() for begin, end in pairwise(offsets.tolist())]
