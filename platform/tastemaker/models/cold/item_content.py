"""What is known of items beside who took them, as numbers for models: a content space, and price, age and maturity.

Shape letters: I items of the catalogue, N any items, F features, D dimension.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.errors import DataError
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.models.cold.standard import Standard, numbers_of
from tastemaker.models.log import Log
from tastemaker.types import Float32, Float64

NUMBERS: Final = (Column.PRICE, Column.CREATED_AT_MS, Column.MATURITY)
"""Columns whose numbers count beside the space's vector; of prices the logarithm does."""
_STANDARD: Final = ("numbers_mean", "numbers_scale")


def fit_space(
    items: pa.Table, config: ContentConfig, log: Log, cache: Path | None = None
) -> tuple[ContentSpace, Float32]:
    """The space of a catalogue, with its head where the config has one, and the items' vectors (I, D) in it.

    Args:
        items: Of the catalogue, with the schema of imported items.
        config: What vectors are made of.
        log: What people took, from which a head learns.
        cache: Folder that keeps what a slow encoder gave.

    Raises:
        ConfigError: See `ContentSpace.fit`.
        DataError: There is a head to be learned, and nobody took two items.
        MissingExtraError: The encoder is not installed.
    """
    space = ContentSpace.fit(items, config)
    raw_IR = space.encode(items, cache)
    if config.projection == "none":
        return space, raw_IR
    from tastemaker.models.cold.contrastive import fit_head  # late: it imports torch

    head, _ = fit_head(raw_IR, config.part_dims, log, config.contrastive)
    space = space.with_head(config, head)
    return space, space.project(raw_IR)


def items_of(log: Log, kind: str) -> pa.Table:
    """The log's table of items.

    Raises:
        DataError: It has none.
    """
    if log.items is None:
        raise DataError(
            f"a {kind} learns from what items are, and the log has no table of them",
            mend="give the log its `items`",
        )
    return log.items


class ItemContent:
    """Makes features (N, F) of items: their vector in a content space, and standardised numbers beside it.

    Args:
        space: Of the catalogue.
        standard: Of the `NUMBERS`.
    """

    def __init__(self, space: ContentSpace, standard: Standard) -> None:
        self.space, self._standard = space, standard
        self.dim = space.dim + len(NUMBERS)

    @classmethod
    def fit(cls, log: Log, config: ContentConfig, kind: str) -> tuple[Self, Float32]:
        """Of a log's items, with their features (I, F).

        Raises:
            DataError: The log has no table of items; see `fit_space`.
        """
        items = items_of(log, kind)
        space, vectors_ID = fit_space(items, config, log)
        number_IM = _numbers(items)
        standard = Standard.fit(number_IM)
        return cls(space, standard), np.concatenate([vectors_ID, standard(number_IM)], axis=1)

    def features(self, items: pa.Table, content_ND: Float32) -> Float32:
        """(N, F) of items with the schema of imported ones, and their vectors in the space; what is not known of one is zeros."""
        return np.concatenate([content_ND, self._standard(_numbers(items))], axis=1)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.space.config_dict()

    def tensors(self) -> dict[str, np.ndarray]:
        """What was learned."""
        standard = (self._standard.mean_M, self._standard.scale_M)
        return self.space.tensors() | dict(zip(_STANDARD, standard, strict=True))

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """What `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: See `ContentSpace.from_state`.
        """
        standard = Standard(*(tensors[name] for name in _STANDARD))
        return cls(ContentSpace.from_state(config, tensors), standard)


def _numbers(items: pa.Table) -> Float64:
    """(N, M) of `NUMBERS`, of prices the logarithm; NaN where one is not known."""
    found_NM = numbers_of(items, NUMBERS)
    found_NM[:, 0] = np.log1p(np.maximum(found_NM[:, 0], 0))
    return found_NM
