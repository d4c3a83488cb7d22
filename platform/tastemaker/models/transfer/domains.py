"""Which items of a log are of which domain: the target that is recommended, and the sources that it learns from.

All domains are one catalogue of one log, so that histories of any of them are histories of the model.

Shape letters: U users, I items, N rows of the log, B askers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, Final, Literal, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator

from tastemaker.errors import DataError
from tastemaker.models.log import Askers, Log
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int32, Int64

TARGET: Final = "target"
NO_DOMAIN: Final = -1
_SHOWN = 8


class ItemsWith(Strict):
    """Items that have one of some words in a field."""

    by: Literal["category", "tags", "item_id"] = Field(
        description="which field; of item_id the words are how ids begin, such as `books/`"
    )
    target: tuple[str, ...] = Field(min_length=1, description="words of the items that are recommended")

    def among(self, log: Log) -> Bool:
        """(I,) which items of a log they are.

        Raises:
            DataError: None is, or the log has no table of items to tell by.
        """
        found_I = _having(_words_of_items(log, self), self.target, self)
        if not found_I.any():
            raise DataError(
                f"no item has {self.by} {', '.join(self.target)}", limit=_words(log, self),
                mend="name words that items have",
            )  # fmt: skip
        return found_I


class ByField(ItemsWith):
    """A field of the items tells their domains apart."""

    sources: Mapping[str, tuple[str, ...]] | None = Field(
        None, min_length=1, description="by name the words of each source; empty: all other items are one"
    )

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        if self.sources is not None and TARGET in self.sources:
            raise ValueError(f"a source cannot be called {TARGET}")
        return self


class ByRows(Strict):
    """Domains lie one after the other in the catalogue, as `joined` lays logs."""

    by: Literal["rows"] = Field("rows", description="by the place in the catalogue")
    sizes: Mapping[str, Annotated[int, Field(ge=1)]] = Field(
        min_length=2, description="items of each domain by name, in their order"
    )
    target: str = Field(TARGET, description="which of them is recommended")

    @model_validator(mode="after")
    def _has_target(self) -> Self:
        if self.target not in self.sizes:
            raise ValueError(f"target must be one of: {', '.join(self.sizes)}")
        return self


DomainsConfig = Annotated[ByField | ByRows, Field(discriminator="by")]


@dataclass(frozen=True, slots=True)
class Domains:
    """A log with the domain of each item: its place in `names`, of which the target is the first, or `NO_DOMAIN`."""

    log: Log
    names: tuple[str, ...]
    domain_I: Int32

    @classmethod
    def of(cls, log: Log, config: ByField | ByRows) -> Self:
        """A log's domains. An item that several name is the target's, or of the first source that names it.

        Raises:
            DataError: The log has no table of items to tell them apart by, or nothing of the target or of a source.
        """
        if isinstance(config, ByRows):
            found = cls(log, *_laid(log.num_items, config))
        else:
            found = cls(log, *_named(log, config))
        num_rows = np.bincount(found.domain_I[log.item_N] + 1, minlength=len(found.names) + 1)[1:]
        for name, num in zip(found.names, num_rows, strict=True):
            if not num:
                raise DataError(
                    f"no row of the log is of domain {name}", limit=_words(log, config),
                    mend="name words that items have, in `domains`",
                )  # fmt: skip
        return found

    @property
    def is_target(self) -> Bool:
        """(I,) which items are the target's."""
        target_I: Bool = self.domain_I == 0
        return target_I

    def rows(self, domain: int) -> Int64:
        """Rows of a domain's items, in order."""
        return np.flatnonzero(self.domain_I == domain)

    def matrix(self, domain: int) -> sp.csr_matrix:
        """(U, items of a domain) float32: 1 where a user has an item."""
        return sp.csr_matrix(self.log.matrix()[:, self.rows(domain)])

    def part(self, kept_I: Bool) -> Log:
        """The rows of some items, these numbered anew in the same order; no table of items."""
        kept_N = kept_I[self.log.item_N]
        number_I = (np.cumsum(kept_I) - 1).astype(np.int32)
        log = self.log
        return Log(
            log.num_users, int(kept_I.sum()), log.user_N[kept_N], number_I[log.item_N[kept_N]],
            log.value_N[kept_N], log.timestamp_ms_N[kept_N],
        )  # fmt: skip

    def without(self, gone_N: Bool) -> "Domains":
        """Without some rows of the log."""
        log, kept_N = self.log, ~gone_N
        rest = replace(
            log, user_N=log.user_N[kept_N], item_N=log.item_N[kept_N], value_N=log.value_N[kept_N],
            timestamp_ms_N=log.timestamp_ms_N[kept_N],
        )  # fmt: skip
        return replace(self, log=rest)


def joined(logs: Mapping[str, Log], target: str = TARGET) -> tuple[Log, ByRows]:
    """Logs of several catalogues over one set of users as one log, and what its domains are.

    Items are laid in the order of the logs: those of the second follow those of the first.

    Args:
        logs: By name; row u is the same user in all of them.
        target: Which of them is recommended.

    Raises:
        DataError: The logs differ in their users, there are fewer than two, or none is the target.
    """
    numbers = {log.num_users for log in logs.values()}
    if len(logs) < 2 or target not in logs or len(numbers) != 1:
        raise DataError(
            "logs to be joined", value=", ".join(f"{name}: {log.num_users} users" for name, log in logs.items()),
            limit=f"two or more over the same users, one of them {target}", mend="give each user one row in all",
        )  # fmt: skip
    sizes = [log.num_items for log in logs.values()]
    begins = [0, *accumulate(sizes)][:-1]
    parts = list(logs.values())
    log = Log.of(
        np.concatenate([part.user_N for part in parts]),
        np.concatenate([part.item_N + begin for part, begin in zip(parts, begins, strict=True)]),
        num_users=numbers.pop(), num_items=sum(sizes),
        value_N=np.concatenate([part.value_N for part in parts]),
        timestamp_ms_N=np.concatenate([part.timestamp_ms_N for part in parts]),
    )  # fmt: skip
    return log, ByRows(sizes=dict(zip(logs, sizes, strict=True)), target=target)


def own_counts(askers: Askers, target_I: Bool) -> Int64:
    """(B,) how many items of the target each asker's history has, each counted once."""
    counts_B: Int64 = np.diff(sp.csr_matrix(askers.matrix(len(target_I))[:, target_I]).indptr).astype(
        np.int64
    )
    return counts_B


def some_of(askers: Askers, place: Int64) -> Askers:
    """The askers at some places, which are in order."""
    return askers.without(np.setdiff1d(np.arange(len(askers)), place))[1]


def _laid(num_items: int, config: ByRows) -> tuple[tuple[str, ...], Int32]:
    if sum(config.sizes.values()) != num_items:
        raise DataError(
            "sizes of domains", value=sum(config.sizes.values()), limit=f"{num_items} items together",
            mend="give the number of items of each domain",
        )  # fmt: skip
    names = (config.target, *(name for name in config.sizes if name != config.target))
    number = {name: place for place, name in enumerate(names)}
    laid_I = np.repeat([number[name] for name in config.sizes], list(config.sizes.values()))
    return names, laid_I.astype(np.int32)


def _named(log: Log, config: ByField) -> tuple[tuple[str, ...], Int32]:
    words_I = _words_of_items(log, config)
    domain_I = np.full(log.num_items, NO_DOMAIN, np.int32)
    if config.sources is None:
        domain_I[:] = 1
        names: tuple[str, ...] = (TARGET, "source")
    else:
        names = (TARGET, *config.sources)
        for place, wanted in reversed([*enumerate(config.sources.values(), 1)]):
            domain_I[_having(words_I, wanted, config)] = place
    domain_I[_having(words_I, config.target, config)] = 0
    return names, domain_I


def _having(words_I: Sequence[Sequence[str]], wanted: Sequence[str], config: ItemsWith) -> Bool:
    """(I,) which items have one of the wanted words."""
    if config.by == "item_id":
        return np.array([words[0].startswith(tuple(wanted)) for words in words_I], np.bool_)
    found = set(wanted)
    return np.array([not found.isdisjoint(words) for words in words_I], np.bool_)


def _words_of_items(log: Log, config: ItemsWith) -> Sequence[Sequence[str]]:
    if log.items is None or config.by not in log.items.column_names:
        raise DataError(
            f"domains by {config.by} need a table of items that has it",
            value="none" if log.items is None else ", ".join(log.items.column_names),
            mend="give the log its items, or lay domains by rows",
        )
    found = log.items.column(config.by).to_pylist()
    if config.by == "tags":
        return [words or [] for words in found]
    return [[word or ""] for word in found]


def _words(log: Log, config: ItemsWith | ByRows) -> str:
    """What `domains` could name, for people."""
    if isinstance(config, ByRows):
        return "a row of each"
    words = sorted({word for words in _words_of_items(log, config) for word in words})
    return f"items have {config.by} {', '.join(words[:_SHOWN])}" + (" …" if len(words) > _SHOWN else "")
