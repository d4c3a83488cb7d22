"""EMCDR: each domain factorised by itself, and a map from users' factors in the source to those in the target.

Shape letters: U users, I items, J items of one side, B askers, D factors, L items of an asker, E = 2 D.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.factors.ials import Ials, IalsConfig
from tastemaker.models.log import Askers
from tastemaker.models.transfer.domains import Domains
from tastemaker.models.transfer.mapping import LinearMapConfig, MapConfig, fit_map, mapped
from tastemaker.models.transfer.model import ALONE, MOVED, Part, TransferConfig, TransferModel
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Int32

_RIDGE = 1e-6


class EmcdrConfig(TransferConfig):
    """EMCDR."""

    source: IalsConfig = Field(
        default_factory=lambda: IalsConfig(dim=64), description="factors of all sources together"
    )
    target: IalsConfig = Field(
        default_factory=lambda: IalsConfig(dim=64), description="factors of the target"
    )
    map: MapConfig = Field(default_factory=LinearMapConfig, description="from the one to the other")
    least: int = Field(
        5, ge=1, description="items in the source and in the target of users that the map is learned from"
    )

    @model_validator(mode="after")
    def _seen_alike(self) -> Self:
        for side, factors in (("source", self.source), ("target", self.target)):
            if factors.propensity is not None:
                raise ValueError(
                    f"{side}.propensity is ials's: an EMCDR folds users in by items that count alike"
                )
        return self


class Emcdr(TransferModel):
    """Factors of both sides by iALS, and a map between users' factors [Man et al. 2017, Sec. 3].

    The map is learned from users with enough in both [Sec. 3.3], and says what the target would think of somebody who has nothing
    in it. Departures from the paper: factors are of implicit feedback; all sources are one domain; and whoever has some of the
    target's items is not answered by these alone, see `folded`.
    """

    kind = "emcdr"
    Config: ClassVar[type[Strict]] = EmcdrConfig

    @classmethod
    def learned(
        cls, domains: Domains, config: EmcdrConfig, parts: Collection[str]
    ) -> tuple[dict[str, Part], dict[str, tuple[float, ...]]]:
        """See `TransferModel.learned`.

        Raises:
            DataError: No user has enough in both domains to learn the map from.
        """
        target = Ials.fit(domains.part(domains.is_target), config.target)
        items: dict[str, Float32] = {"target": target.item_vectors()}
        found: dict[str, Part] = {}
        if ALONE in parts:
            found[ALONE] = Factors(config, domains.domain_I, items)
        if MOVED in parts:
            source = Ials.fit(domains.part(domains.domain_I > 0), config.source)
            map_ = _map(domains, source, target, config)
            found[MOVED] = Factors(config, domains.domain_I, items | {"source": source.item_vectors()} | map_)
        return found, {}

    @classmethod
    def part(cls, name: str, config: Any, domain_I: Int32, tensors: Mapping[str, np.ndarray]) -> Part:
        """See `TransferModel.part`."""
        del name
        return Factors(config, domain_I, tensors)


class Factors:
    """Factors as a part of a model: the target's, and where there is a map the sources' beside them.

    Args:
        config: Of both.
        domain_I: Of the items.
        tensors: `target` (J, D); with a map also `source` (J, D) and what `mapping.fit_map` gives.
    """

    def __init__(self, config: EmcdrConfig, domain_I: Int32, tensors: Mapping[str, np.ndarray]) -> None:
        self._config, self._tensors = config, dict(tensors)
        self._sides: dict[str, Bool] = {"target": domain_I == 0}
        if "source" in tensors:
            self._sides["source"] = domain_I > 0
        for name, side_I in self._sides.items():
            limit = (int(side_I.sum()), self._of(name).dim)
            if tensors[name].shape != limit:
                raise CompatibilityError(
                    f"factors of an EMCDR's {name}", value=tensors[name].shape, limit=limit
                )
        self._item_IE: Float32 = np.zeros(
            (len(domain_I), sum(self._of(name).dim for name in self._sides)), np.float32
        )
        begin = 0
        for name, side_I in self._sides.items():
            self._item_IE[side_I, begin : begin + self._of(name).dim] = tensors[name]
            begin += self._of(name).dim

    def _of(self, name: str) -> IalsConfig:
        return self._config.target if name == "target" else self._config.source

    def item_vectors(self) -> Float32:
        """See `Part`."""
        return self._item_IE

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Part`: each side's factors, each of the length 1 / root of 2, or 0."""
        taken_BI = askers.matrix(len(self._sides["target"]))
        own_BJ = taken_BI[:, self._sides["target"]]
        if "source" not in self._sides:
            return _shortened([folded(own_BJ, self._tensors["target"], self._config.target)])
        other_BJ = taken_BI[:, self._sides["source"]]
        source_BD = folded(other_BJ, self._tensors["source"], self._config.source)
        prior_BD = mapped(source_BD, self._tensors)
        prior_BD[np.diff(other_BJ.indptr) == 0] = 0  # nothing is known that could be mapped
        target_BD = folded(own_BJ, self._tensors["target"], self._config.target, prior_BD)
        return _shortened([target_BD, source_BD])

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Part`."""
        return self._tensors


def folded(
    taken_BJ: sp.csr_matrix, item_JD: Float32, config: IalsConfig, prior_BD: Float32 | None = None
) -> Float32:
    """(B, D) factors of users by what they took and by what was thought of them before.

    The least of sum over items taken of (1 - p q)^2 + a sum over all items of (p q - m q)^2 + penalty |p - m|^2, with m the
    prior: without one it is iALS's own equation [Rendle et al. 2022], and whoever took nothing is where the prior is. The
    penalty is iALS's: regularization * (taken + a J)^power.
    """
    user_BD = np.zeros((taken_BJ.shape[0], config.dim), np.float32) if prior_BD is None else prior_BD.copy()
    gram_DD = config.unobserved_weight * (item_JD.T @ item_JD)
    frequency_B = np.diff(taken_BJ.indptr) + config.unobserved_weight * len(item_JD)
    penalty_B = config.regularization * frequency_B**config.frequency_power + _RIDGE
    for row, (begin, end) in enumerate(pairwise(taken_BJ.indptr)):
        if begin == end:
            continue
        taken_LD = item_JD[taken_BJ.indices[begin:end]]
        curve_DD = gram_DD + taken_LD.T @ taken_LD
        np.fill_diagonal(curve_DD, curve_DD.diagonal() + penalty_B[row])
        missed_L = 1 - taken_LD @ user_BD[row]
        user_BD[row] += np.linalg.solve(curve_DD, taken_LD.T @ missed_L)
    return user_BD


def _map(domains: Domains, source: Ials, target: Ials, config: EmcdrConfig) -> dict[str, Float32]:
    taken_UI = domains.log.matrix()
    other_UJ, own_UJ = taken_UI[:, domains.domain_I > 0], taken_UI[:, domains.is_target]
    enough_U = np.minimum(np.diff(other_UJ.indptr), np.diff(own_UJ.indptr)) >= config.least
    if not enough_U.any():
        raise DataError(
            "users that an EMCDR learns its map from", value=0,
            limit=f"some with {config.least} or more items in the source and in the target",
            mend="lower `least`, or join the users of both domains by one id",
        )  # fmt: skip
    return fit_map(
        folded(other_UJ[enough_U], source.item_vectors(), config.source),
        folded(own_UJ[enough_U], target.item_vectors(), config.target),
        config.map,
        config.seed,
    )


def _shortened(sides: list[Float32]) -> Float32:
    """Side by side, each as long as they may be for the whole to be no longer than 1."""
    return np.column_stack(
        [
            side_BD / np.maximum(np.linalg.norm(side_BD, axis=1, keepdims=True), 1e-12) / np.sqrt(len(sides))
            for side_BD in sides
        ]
    ).astype(np.float32)
