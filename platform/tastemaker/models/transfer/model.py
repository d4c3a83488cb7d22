"""What all models of a transfer have in common: what they recommend, for whom the transfer is kept, how they are saved.

Shape letters: I items, B askers, E width of a part, V of all parts with what is added to them.
"""

import logging
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.models.log import Askers, Log
from tastemaker.models.memory.strangers import ByHistory
from tastemaker.models.transfer.domains import NO_DOMAIN, Domains, DomainsConfig, own_counts, some_of
from tastemaker.models.transfer.monitor import (
    GROUPS,
    Group,
    MonitorConfig,
    Verdict,
    group_of,
    hold_out,
    judge,
)
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Int32

log = logging.getLogger(__name__)
MOVED, ALONE = "moved", "alone"
"""The parts: what learned from the sources as well, and what learned from the target alone."""


class TransferConfig(Strict):
    """Of every model of a transfer."""

    domains: DomainsConfig = Field(
        description="which items are the target's, which the sources' it learns from"
    )
    monitor: MonitorConfig = Field(
        default_factory=MonitorConfig, description="how it is judged whether the transfer pays"
    )
    decided: Verdict | None = Field(
        None,
        description="for whom the transfer is kept, as an earlier fit found; empty: this fit hides some rows to find it, then learns from all",
    )
    seed: int = Field(0, ge=0, description="of all luck")


class Part(Protocol):
    """Vectors of one part of a model."""

    def item_vectors(self) -> Float32:
        """(I, E) of all items; zeros where it knows nothing of an item."""
        ...

    def user_vectors(self, askers: Askers) -> Float32:
        """(B, E), none longer than 1."""
        ...

    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned."""
        ...


class TransferModel(ByHistory):
    """Recommends the target's items to whoever has a history in any domain.

    Every item of the target scores above every item of a source, whoever asks, so that lists are the target's; where the
    transfer is kept the sources' items are in order among themselves too, for lists that allow no others. A user is answered by the
    part that learned from all domains where `decided.kept` names the user's group, else by the part of the target alone; who
    has nothing of the target then gets what is popular in it.
    """

    scores_are_products = True
    Config: ClassVar[type[Strict]] = TransferConfig
    config: TransferConfig

    def __init__(
        self, config: TransferConfig, domain_I: Int32, share_I: Float32, parts: Mapping[str, Part]
    ) -> None:
        assert config.decided is not None
        self.config, self.num_items = config, len(domain_I)
        self._domain_I, self._share_I = domain_I, share_I
        self._halves = {name: parts[name] for name in (MOVED, ALONE) if name in parts}
        self._target_I: Bool = domain_I == 0
        self._moved_for = frozenset(config.decided.kept)
        self.popular_I = np.where(self._target_I, share_I, share_I - 2).astype(np.float32)
        self._item_IV = self._joined()

    @classmethod
    def fit(cls, log: Log, config: Any) -> Self:
        """See `Recommender.fit`. What was decided for whom is in the fitted model's `config.decided`.

        Raises:
            DataError: The log has nothing of the target or of a source, or nothing to tell them apart by.
        """
        return cls.fit_domains(Domains.of(log, config.domains), config)

    @classmethod
    def fit_domains(cls, domains: Domains, config: Any) -> Self:
        """`fit`, of domains that are told apart already.

        Raises:
            DataError: See `fit`.
        """
        if config.decided is not None:
            parts, losses = cls.learned(domains, config, _needed(config.decided.kept))
            return cls._of(domains, config, parts, losses)
        held = hold_out(domains, config.monitor, config.seed)
        parts, losses = cls.learned(held.domains, config, {MOVED, ALONE})
        alone, moved = (
            cls._of(held.domains, _decided(config, Verdict(kept=kept)), parts, losses)
            for kept in ((), GROUPS)
        )
        verdict = judge(alone, moved, held, config.monitor, config.seed)
        level = logging.INFO if set(verdict.kept) == set(GROUPS) else logging.WARNING
        log.log(level, "%s: %s", cls.kind, "; ".join(verdict.lines()))
        return cls.fit_domains(domains, _decided(config, verdict))

    @classmethod
    def _of(
        cls,
        domains: Domains,
        config: TransferConfig,
        parts: Mapping[str, Part],
        losses: Mapping[str, tuple[float, ...]],
    ) -> Self:
        taken_UI = domains.log.matrix()
        count_I = np.bincount(taken_UI.indices, minlength=taken_UI.shape[1])
        share_I = (count_I / max(taken_UI.shape[0], 1)).astype(np.float32)
        model = cls(config, domains.domain_I, share_I, parts)
        model.losses = losses.get(MOVED if MOVED in parts else ALONE, ())
        return model

    @classmethod
    @abstractmethod
    def learned(
        cls, domains: Domains, config: Any, parts: Collection[str]
    ) -> tuple[dict[str, Part], dict[str, tuple[float, ...]]]:
        """The parts that are asked for, and the losses of each that has some."""

    @classmethod
    @abstractmethod
    def part(cls, name: str, config: Any, domain_I: Int32, tensors: Mapping[str, np.ndarray]) -> Part:
        """A part as its tensors have it."""

    def _joined(self) -> Float32:
        """(I, V) vectors: all parts', popularity, and what puts the sources' items below the target's."""
        parts = [part.item_vectors() for part in self._halves.values()]
        if any(len(item_IE) != self.num_items for item_IE in parts):
            raise CompatibilityError(
                "items of a part", value=[len(item_IE) for item_IE in parts], limit=f"{self.num_items}"
            )
        longest = max((float(np.linalg.norm(item_IE, axis=1).max()) for item_IE in parts), default=0.0)
        below = (
            2 * max(longest, 1.0) + 1
        )  # no score is larger than the longest vector, or than a share of users
        last_I = np.where(self._target_I, 0.0, -below)
        return np.column_stack([*parts, self._share_I, last_I]).astype(np.float32)

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._item_IV

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`; zeros for an empty history."""
        vector_BV = np.zeros((len(askers), self._item_IV.shape[1]), np.float32)
        group_B = group_of(own_counts(askers, self._target_I), self.config.monitor.few)
        moved_B = np.isin(group_B, [GROUPS.index(group) for group in self._moved_for])
        moved_B &= own_counts(askers, self._domain_I != NO_DOMAIN) > 0  # no part knows items of no domain
        begin = 0
        for name, part in self._halves.items():
            columns = slice(begin, begin := begin + part.item_vectors().shape[1])
            place = np.flatnonzero(moved_B if name == MOVED else ~moved_B & (group_B > 0))
            if len(place):
                vector_BV[place, columns] = part.user_vectors(some_of(askers, place))
        vector_BV[~moved_B & (group_B == 0), -2] = 1
        vector_BV[:, -1] = 1
        place_N, _, _ = askers.taken(self.num_items)
        vector_BV[np.bincount(place_N, minlength=len(askers)) == 0] = 0
        return vector_BV

    def personal_scores(self, askers: Askers) -> Float32:
        """See `ByHistory`."""
        score_BI: Float32 = self.user_vectors(askers) @ self._item_IV.T
        return score_BI

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        found: dict[str, np.ndarray] = {"domain": self._domain_I, "share": self._share_I}
        for name, part in self._halves.items():
            found |= {f"{name}.{key}": value for key, value in part.tensors().items()}
        return found

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed: Any = cls.Config.parse(config, f"model {cls.kind}")
        if parsed.decided is None:
            raise CompatibilityError(f"a {cls.kind} whose config does not say for whom the transfer is kept")
        domain_I = tensors["domain"]
        parts = {}
        for name in sorted(_needed(parsed.decided.kept)):
            own = {
                key.removeprefix(f"{name}."): value
                for key, value in tensors.items()
                if key.startswith(f"{name}.")
            }
            parts[name] = cls.part(name, parsed, domain_I, own)
        return cls(parsed, domain_I, tensors["share"], parts)


def _needed(kept: Collection[Group]) -> set[str]:
    """Parts that somebody is answered by; whoever is cold without a transfer needs none."""
    needed = {MOVED} if kept else set()
    return needed | ({ALONE} if {"few", "many"} - set(kept) else set())


def _decided(config: TransferConfig, verdict: Verdict) -> TransferConfig:
    return config.model_copy(update={"decided": verdict})
