"""What click models read: rows of named fields, and how many values each field has.

Shape letters: N rows, C fields of one value, F dense features, V values of all rows of a field with many.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Int64


class Categorical(Strict):
    """A field of one value a row, from 1 to `num_values`; 0 stands for all that are not known."""

    name: str = Field(min_length=1, description="the field's name")
    num_values: int = Field(ge=1, description="largest value")


class Multi(Strict):
    """A field of any number of values a row, in order. Their mean is what models read that do not heed the order."""

    name: str = Field(min_length=1, description="the field's name")
    num_values: int = Field(ge=1, description="largest value")
    like: str | None = Field(
        None, description="field of one value whose values these are; they share its embeddings"
    )


class Fields(Strict):
    """All fields of a model's rows, in order."""

    categorical: tuple[Categorical, ...] = Field((), description="fields of one value")
    multi: tuple[Multi, ...] = Field((), description="fields of many values, such as tags or a history")
    dense: tuple[str, ...] = Field((), description="names of the numbers")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise ValueError("one field at least, each of a name of its own")
        sizes = {field.name: field.num_values for field in self.categorical}
        for field in self.multi:
            if field.like is not None and sizes.get(field.like) != field.num_values:
                raise ValueError(f"{field.name} is like a field of one value with as many values")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Of all fields: those of one value, of many, and the numbers."""
        return (*(one.name for one in self.categorical), *(many.name for many in self.multi), *self.dense)

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows of a table that has the field's values, the unknown among them; fields that share have the first's."""
        one = {field.name: field.num_values + 1 for field in self.categorical}
        return one | {many.name: many.num_values + 1 for many in self.multi if many.like is None}


@dataclass(frozen=True, slots=True)
class Values:
    """Row n's values are `value_V[offsets[n] : offsets[n + 1]]`, with `weight_V` in means; unset, all of a row weigh the same."""

    value_V: Int32
    offsets: Int64
    weight_V: Float32 | None = None

    @classmethod
    def of(cls, rows: Sequence[Any]) -> "Values":
        """Of one sequence a row."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        flat = [np.asarray(row).reshape(-1) for row in rows if len(row)]
        value_V = np.concatenate(flat).astype(np.int32) if flat else np.empty(0, np.int32)
        return cls(value_V, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, row_B: Int64) -> "Values":
        """Those of some rows.

        >>> Values.of([[1], [2, 3], []]).take(np.array([1, 0, 1])).value_V.tolist()
        [2, 3, 1, 2, 3]
        """
        begin_B = self.offsets[row_B]
        length_B = self.offsets[row_B + 1] - begin_B
        end_B = np.cumsum(length_B)
        at_V = np.arange(end_B[-1] if len(end_B) else 0) + np.repeat(begin_B - end_B + length_B, length_B)
        weight_V = None if self.weight_V is None else self.weight_V[at_V]
        return Values(self.value_V[at_V], np.concatenate([[0], end_B]).astype(np.int64), weight_V)


@dataclass(frozen=True, slots=True)
class Rows:
    """Features of N rows. `group_N`, where given, says which rows compete with each other: those of one request.

    `multi` has `Values` of each field of many values; numbers that are missing are NaN.
    """

    fields: Fields
    categorical_NC: Int32
    multi: Mapping[str, Values]
    dense_NF: Float32
    group_N: Int64 | None = None

    @classmethod
    def of(cls, fields: Fields, columns: Mapping[str, Any], group_N: Int64 | None = None) -> "Rows":
        """Rows of columns by field; values that a field does not have become 0.

        A column is an array (N,), or for a field of many values `Values` or a sequence of sequences.

        Raises:
            DataError: A column is missing, of another length than the others, or not finite.
        """
        if missing := set(fields.names) - columns.keys():
            raise DataError("columns of a click model are missing", value=", ".join(sorted(missing)))
        one = [_known(np.asarray(columns[field.name]), field.num_values) for field in fields.categorical]
        many = {}
        for field in fields.multi:
            given = columns[field.name]
            values = given if isinstance(given, Values) else Values.of(given)
            known_V = _known(values.value_V, field.num_values)
            many[field.name] = Values(known_V, values.offsets, values.weight_V)
        numbers = [np.asarray(columns[name], np.float32) for name in fields.dense]
        lengths = {*map(len, one), *map(len, many.values()), *map(len, numbers)}
        if group_N is not None:
            lengths.add(len(group_N))
        if len(lengths) > 1:
            raise DataError("columns of a click model differ in length", value=sorted(lengths))
        if any(np.isinf(column).any() for column in numbers):
            raise DataError(
                "a number of a click model is infinite", mend="leave it out: NaN is a missing number"
            )
        num_rows = lengths.pop()
        return cls(
            fields, _beside(one, num_rows, np.int32), many, _beside(numbers, num_rows, np.float32),
            None if group_N is None else np.asarray(group_N, np.int64),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.categorical_NC)

    def take(self, row_B: Int64) -> "Rows":
        """Some rows."""
        return Rows(
            self.fields, self.categorical_NC[row_B],
            {name: values.take(row_B) for name, values in self.multi.items()}, self.dense_NF[row_B],
            None if self.group_N is None else self.group_N[row_B],
        )  # fmt: skip

    def require(self, fields: Fields) -> None:
        """Passes when these are rows of such fields.

        Raises:
            CompatibilityError: They are of others.
        """
        if self.fields != fields:
            raise CompatibilityError(
                "fields of the rows", value=", ".join(self.fields.names), limit=", ".join(fields.names),
                mend="make rows of the fields, with as many values, that the model was fitted with",
            )  # fmt: skip


def _known(value_N: np.ndarray, num_values: int) -> Int32:
    value_N = value_N.reshape(-1)
    return np.where((value_N > 0) & (value_N <= num_values), value_N, 0).astype(np.int32)


def _beside(columns: Sequence[np.ndarray], num_rows: int, kind: type[Any]) -> Any:
    found = np.empty((num_rows, len(columns)), kind)
    for at, column in enumerate(columns):
        found[:, at] = column
    return found
