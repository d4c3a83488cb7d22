"""A table of what was shown as rows of click models: words become numbers by what the learned part knows of them.

Shape letters: N rows, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from tastemaker.data.tables import read_table, split_tags
from tastemaker.errors import DataError
from tastemaker.evaluation.click_plan import ClickPlan
from tastemaker.models.ctr.dssm import letter_ngrams
from tastemaker.models.ctr.fields import Categorical, Fields, Multi, Rows
from tastemaker.models.ctr.model import Labelled
from tastemaker.types import Bool, Float64, Int64

_TRUTH: Final = {"true": "1", "false": "0"}


@dataclass(frozen=True, slots=True)
class ClickParts:
    """What is learned from, what fits know by when to stop (or None), what they are judged by, and how many rows were unreadable."""

    learned: Labelled
    validation: Labelled | None
    tested: Labelled
    num_unreadable: int


def click_parts(plan: ClickPlan) -> ClickParts:
    """The plan's table in its parts. Values are those of the rows that are learned from; others are unknown.

    Raises:
        DataError: The table cannot be read, lacks a column, has a label other than 0 and 1 or a number that is none, or a part of it
            would have no rows.
    """
    table, ragged = read_table(Path(plan.clicks))
    columns = _Columns(table, plan.clicks)
    told = columns.words(plan.group) if plan.group is not None else None
    group_N = np.arange(len(table)) if told is None else columns.codes(told, str(plan.group))
    part_N = _parts(plan, group_N, None if plan.time is None else columns.times(plan.time))
    known = _known_words(plan, columns, part_N == 0)
    fields = _fields(plan, known)
    rows = Rows.of(fields, _values(plan, columns, known), None if told is None else group_N)
    propensity_N = None if plan.propensity is None else columns.numbers(plan.propensity.column)
    whole = Labelled.of(rows, columns.labels(plan.label), propensity_N)
    learned, validation, tested = (whole.take(np.flatnonzero(part_N == part)) for part in range(3))
    return ClickParts(learned, validation if len(validation) else None, tested, len(ragged))


@dataclass(frozen=True, slots=True)
class _Columns:
    """A table's columns, as what they are read as."""

    table: pa.Table
    source: str

    def _column(self, name: str) -> "pa.ChunkedArray[Any]":
        if name not in self.table.column_names:
            found = f"a table of {', '.join(self.table.column_names)}"
            raise DataError(f"{self.source} lacks column {name}", value=found, mend="correct the plan")
        return self.table[name]

    def words(self, name: str) -> list[str | None]:
        """Each row's cell as text; None where there is none."""
        return [None if one is None else str(one) for one in self._column(name).to_pylist()]

    def lists(self, name: str) -> list[list[str]]:
        """Each row's words."""
        found = self._column(name).to_pylist()
        return [
            [] if one is None else split_tags(one) if isinstance(one, str) else [str(word) for word in one]
            for one in found
        ]

    def numbers(self, name: str) -> Float64:
        """Each row's number; NaN where there is none."""
        column = self._column(name)
        found: Float64 = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64)
        wrong_N = np.isnan(found) & ~column.is_null(nan_is_null=True).to_numpy()
        if wrong_N.any():
            at = int(np.flatnonzero(wrong_N)[0])
            raise DataError(
                f"column {name} of {self.source}, row {at + 1}", value=str(column[at]), limit="a number",
                mend="correct it, or leave it empty",
            )  # fmt: skip
        return found

    def labels(self, name: str) -> Float64:
        """Each row's 1 or 0, which may be written as true or false."""
        column = self._column(name)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        elif pa.types.is_string(column.type):
            words = [_TRUTH.get(str(word).casefold(), word) for word in column.to_pylist()]
            column = pa.chunked_array([words], pa.string())
        return _Columns(pa.table([column], [name]), self.source).numbers(name)

    def times(self, name: str) -> Float64:
        """Each row's time, in whatever unit."""
        column = self._column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
            found: Float64 = column.to_pandas().to_numpy(np.float64)
        else:
            found = self.numbers(name)
        if np.isnan(found).any():
            raise DataError(f"column {name} of {self.source}", limit="a time in each row", mend="add it")
        return found

    def codes(self, word_N: Sequence[str | None], name: str) -> Int64:
        """A number for each word."""
        if None in word_N:
            raise DataError(f"column {name} of {self.source}", limit="a group in each row", mend="add it")
        return np.unique(np.array(word_N, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


def _parts(plan: ClickPlan, group_N: Int64, time_N: Float64 | None) -> Int64:
    """(N,) 0 for what is learned from, 1 for validation, 2 for what is judged by; a group's rows are of one part."""
    num_groups = int(group_N.max()) + 1
    if time_N is None:
        order_G = np.random.default_rng(plan.seed).permutation(num_groups)
    else:
        newest_G = np.full(num_groups, -np.inf)
        np.maximum.at(newest_G, group_N, time_N)
        order_G = np.argsort(newest_G, kind="stable")
    num_tested = max(1, round(plan.held_out * num_groups))
    num_validation = round(plan.validation * num_groups)
    if num_tested + num_validation >= num_groups:
        raise DataError(
            "groups of the table of clicks", value=num_groups, limit="one at least to learn from",
            mend="give more rows, or hold out less",
        )  # fmt: skip
    part_G = np.zeros(num_groups, np.int64)
    part_G[order_G[num_groups - num_tested - num_validation :]] = 1
    part_G[order_G[num_groups - num_tested :]] = 2
    return part_G[group_N]


def _known_words(plan: ClickPlan, columns: _Columns, learned_N: Bool) -> dict[str, dict[str, int]]:
    """By field of words: the number of each word that is learned from, from 1."""
    at = np.flatnonzero(learned_N).tolist()
    found: dict[str, set[str]] = {}
    for name in plan.values:
        words = columns.words(name)
        found[name] = {word for row in at if (word := words[row]) is not None}
    for name in plan.lists:
        lists = columns.lists(name)
        found[name] = {word for row in at for word in lists[row]}
    for name, like in plan.histories.items():
        lists = columns.lists(name)
        found[like] |= {word for row in at for word in lists[row]}
    return {name: {word: n for n, word in enumerate(sorted(words), 1)} for name, words in found.items()}


def _fields(plan: ClickPlan, known: Mapping[str, Mapping[str, int]]) -> Fields:
    size = {name: max(1, len(words)) for name, words in known.items()}
    return Fields(
        categorical=tuple(Categorical(name=name, num_values=size[name]) for name in plan.values),
        multi=(
            *(Multi(name=name, num_values=size[name]) for name in plan.lists),
            *(
                Multi(name=name, num_values=size[like], like=like)
                for name, like in plan.histories.items()
            ),
            *(Multi(name=name, num_values=plan.text_values) for name in plan.texts),
        ),
        dense=plan.numbers,
    )  # fmt: skip


def _values(plan: ClickPlan, columns: _Columns, known: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """By field, what `Rows.of` takes; 0 stands for words that are not known."""
    found: dict[str, Any] = {}
    for name in plan.values:
        found[name] = np.array([known[name].get(word or "", 0) for word in columns.words(name)], np.int32)
    for name, of in (*((name, name) for name in plan.lists), *plan.histories.items()):
        found[name] = [[known[of].get(word, 0) for word in words] for words in columns.lists(name)]
    for name in plan.texts:
        found[name] = [letter_ngrams(text or "", plan.text_values) for text in columns.words(name)]
    for name in plan.numbers:
        found[name] = columns.numbers(name)
    return found
