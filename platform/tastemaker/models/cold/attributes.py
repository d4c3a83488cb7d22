"""What is known of people beside what they took, as numbers for models: words one by one, numbers standardised.

Not for histories. Words that fewer than `LEAST` people have are not kept: they would tell of single persons, and teach nothing.

Shape letters: U users of the log, B askers, F features, W words, M numbers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from tastemaker.errors import DataError
from tastemaker.models.cold.standard import Standard, is_number, numbers_of
from tastemaker.strict import Strict
from tastemaker.types import Float32

LEAST: Final = 5
MOST_WORDS: Final = 512


class _Kept(Strict):
    """Columns and words of the fit."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]


class Attributes:
    """Makes features (B, F) of people: 1 for each word that they have, then numbers at a third of their standard deviations.

    Args:
        words: `column=value`, in order of the features.
        numbers: Columns.
        standard: Of these columns.
    """

    def __init__(self, words: tuple[str, ...], numbers: tuple[str, ...], standard: Standard) -> None:
        self._words, self._numbers, self._standard = words, numbers, standard
        self._place = {word: place for place, word in enumerate(words)}
        self.dim = len(words) + len(numbers)

    @classmethod
    def fit(cls, users: pa.Table | None) -> Self:
        """Of a log's table of users: columns of text, lists of text, truth values or numbers; null is unknown.

        Raises:
            DataError: A column is of another type.
        """
        if users is None:
            users = pa.table({})
        numbers = tuple(name for name in users.column_names if is_number(users.schema.field(name).type))
        for name in users.column_names:
            if name not in numbers and not _is_words(users.schema.field(name).type):
                raise DataError(
                    f"column {name} of the table of users", value=str(users.schema.field(name).type),
                    limit="text, a list of text, a truth value or a number", mend="leave it out",
                )  # fmt: skip
        count = Counter(word for words in _words_of(users) for word in set(words))
        common = sorted(
            (word for word in count if count[word] >= LEAST), key=lambda word: (-count[word], word)
        )
        return cls(tuple(sorted(common[:MOST_WORDS])), numbers, Standard.fit(numbers_of(users, numbers)))

    def encode(self, people: pa.Table | None, num: int) -> Float32:
        """(B, F) of so many people; zeros where nothing is known that was known in the fit."""
        found_BF = np.zeros((num, self.dim), np.float32)
        if people is None or not self.dim:
            return found_BF
        for row_F, words in zip(found_BF, _words_of(people), strict=True):
            row_F[[self._place[word] for word in words if word in self._place]] = 1
        found_BF[:, len(self._words) :] = self._standard(numbers_of(people, self._numbers))
        return found_BF

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return _Kept(words=self._words, numbers=self._numbers).model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """What was learned."""
        return {"mean": self._standard.mean_M, "scale": self._standard.scale_M}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """What `config_dict` and `tensors` describe."""
        kept = _Kept.parse(config, "attributes of users")
        return cls(kept.words, kept.numbers, Standard(tensors["mean"], tensors["scale"]))


def demographics(groups: Sequence[str | None]) -> pa.Table:
    """The attributes of people that serving knows as well: age band and gender of `users.profile.demographic_group`.

    >>> demographics(["35-44/f", "?/m", None]).to_pydict()
    {'age_band': ['35-44', None, None], 'gender': ['f', 'm', None]}
    """
    parts = [(group or "?/?").partition("/") for group in groups]
    told = [[None if word == "?" else word for word in (age_band, gender)] for age_band, _, gender in parts]
    columns = {"age_band": [one[0] for one in told], "gender": [one[1] for one in told]}
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind))


def _is_words(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.ListType | pa.LargeListType):
        kind = kind.value_type
    return bool(pa.types.is_null(kind)) or _is_text(kind)


def _words_of(people: pa.Table) -> list[list[str]]:
    """Of each row the words of its columns that are no numbers."""
    found: list[list[str]] = [[] for _ in range(people.num_rows)]
    for name in people.column_names:
        if not _is_words(people.schema.field(name).type):
            continue
        values: list[Any] = people[name].to_pylist()
        for words, value in zip(found, values, strict=True):
            each = value if isinstance(value, list) else [value]
            words += [f"{name}={one}" for one in each if one is not None]
    return found
