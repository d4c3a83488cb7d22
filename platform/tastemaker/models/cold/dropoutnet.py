"""DropoutNet: a model of factors taught to do without them, for items that nobody took and people of whom little is known.

Shape letters: U users, I items, B askers, N items or people, C features of items beside who took them, D dimension.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.features.content import ContentConfig
from tastemaker.models import zoo
from tastemaker.models.cold.attributes import Attributes
from tastemaker.models.cold.dropout_towers import DropoutFitConfig, Known, Learner, Towers
from tastemaker.models.cold.exposure import SLOTS, scale_for
from tastemaker.models.cold.item_content import ItemContent
from tastemaker.models.cold.later import KnowsLater, content_of_taken
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.seeding import seeded
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32

BASES: Final = ("als", "ials", "bpr")
_MOST_FEW: Final = 5
_LONG: Final = 5.0
_LEAST_TAKEN: Final = 20
_MOST_HELD: Final = 1000
_MOST_ASKED: Final = 1000
_PARTS: Final = ("base", "content", "attributes", "towers")


class DropoutNetConfig(Strict):
    """DropoutNet over a base model."""

    LATER: ClassVar = frozenset({"cold_exposure"})

    base: zoo.ZooModel = Field(
        default_factory=lambda: zoo.ZooModel(kind="als"), description="the model of factors: als, ials or bpr"
    )
    content: ContentConfig = Field(
        default_factory=ContentConfig, description="content vectors of items, and whether they are projected"
    )
    hidden: int = Field(256, ge=1, description="width of the networks' hidden layers")
    dropout: float = Field(
        0.5, gt=0, lt=1, description="share of times that a collaborative vector is left out"
    )
    cold_exposure: float = Field(
        0.5,
        gt=0,
        le=1,
        description="how often an item that nobody took stands in lists of 20, as a multiple of others; it chooses `cold_scale`",
    )
    cold_scale: float | None = Field(
        None,
        gt=0,
        description="factor of the vectors of items that nobody took; empty: chosen by items that are held out",
    )
    fit: DropoutFitConfig = Field(default_factory=DropoutFitConfig, description="how the networks learn")
    seed: int = Field(
        0, ge=0, description="start of the networks and luck of their fit; the base has its own"
    )

    @field_validator("base")
    @classmethod
    def _has_vectors(cls, base: zoo.ZooModel) -> zoo.ZooModel:
        if base.kind not in BASES:
            raise ValueError(
                f"a kind with vectors of users and items: {', '.join(BASES)}; {base.kind!r} is none of them"
            )
        return base


class DropoutNet(KnowsLater):
    """Two networks give vectors whose products are the base model's, with the base's own vectors or without [Volkovs et al. 2017].

    Items: the base's vector, none where nobody took the item, and content. People: the base's vector, none without a history; the
    mean content of the history; how long it is; attributes. Items that nobody took score lower than known ones, and are shown the more for
    `cold_exposure` (see `exposure`): the fit that chooses `cold_scale` learns nothing from a tenth of the items. Departures: what goes in is added to what comes out (see `Tower`), and the items of
    a step are paired with all its users.
    """

    kind = "dropoutnet"
    Config: ClassVar[type[Strict]] = DropoutNetConfig
    needs_history, reads_attributes, scores_are_products = False, True, True

    def __init__(
        self,
        config: DropoutNetConfig,
        base: Recommender,
        parts: tuple[ItemContent, Attributes, Towers],
        content_IC: Float32,
        item_ID: Float32,
    ) -> None:
        if not len(item_ID) == len(content_IC) == base.num_items:
            sizes = (len(item_ID), len(content_IC), base.num_items)
            raise CompatibilityError(
                "items of a DropoutNet, of their content and its base", value=sizes, limit="equal"
            )
        self.config: DropoutNetConfig = config
        self.num_items, self._base = base.num_items, base
        self._content, self._attributes, self._towers = parts
        self.space = self._content.space
        self._content_IC, self._item_ID = content_IC, item_ID
        self._later_NC = content_IC[:0]

    @classmethod
    def fit(cls, log: Log, config: DropoutNetConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty or has no table of items.
        """
        if not len(log):
            raise DataError("the log of a DropoutNet is empty", mend="import events")
        base = zoo.fit(config.base.kind, log, config.base.config)
        content, content_IC = ItemContent.fit(log, config.content, cls.kind)
        attributes = Attributes.fit(log.users)
        vector_ID = base.item_vectors()
        assert vector_ID is not None, "the config allows kinds that have vectors"
        taken_I = np.bincount(log.item_N, minlength=log.num_items) > 0
        items = Known(vector_ID, content_IC).without_vectors(~taken_I)
        askers, few = Askers.known(log), _few(log, config.seed)
        people = _People(base, attributes, content_IC, content_IC[:0])
        users, few_users = people(askers), people(few)
        with seeded(config.seed):
            widths = (users.content_NC.shape[1], content_IC.shape[1])
            scales = (_length(users.vector_ND), _length(items.vector_ND))
            towers = Towers.of(vector_ID.shape[1], widths, config.hidden, scales)
        held_I = np.zeros(log.num_items, bool) if config.cold_scale else _held_out(taken_I, config.seed)
        learner = Learner(log, items, users, few_users, config.dropout, held_I)
        losses = learner.fit(towers, config.fit, config.seed)
        model = cls(config, base, (content, attributes, towers), content_IC, towers.items.vectors(items))
        model._show_cold(~taken_I, held_I, askers)
        model.losses = tuple(losses)
        return model

    def _show_cold(self, cold_I: Bool, held_I: Bool, askers: Askers) -> None:
        """Gives items that nobody took their vectors, by a factor that is chosen where the config has none."""
        if self.config.cold_scale is None:
            scale = self._chosen_scale(~(cold_I | held_I), held_I, askers) if held_I.any() else 1.0
            self.config = self.config.model_copy(update={"cold_scale": scale})
        self._item_ID[cold_I] = self.later_vectors(self._content_IC[cold_I])

    def _chosen_scale(self, known_I: Bool, held_I: Bool, askers: Askers) -> float:
        """The factor at which held-out items, told by content alone, are shown as often as the config says.

        Those asked are strangers, with what they took of known items and their attributes. The base has seen the held-out items: what
        it knows of other items and makes of a history is still touched by who took them.
        """
        draws = np.random.default_rng((self.config.seed, 5))
        histories = [history_L[known_I[history_L]] for history_L in askers.histories]
        there = np.flatnonzero([len(history_L) > 0 for history_L in histories])
        user_B = np.sort(draws.permutation(there)[:_MOST_ASKED])
        told = None if askers.attributes is None else askers.attributes.take(user_B)
        some = Askers.strangers([histories[user] for user in user_B], told)
        _, known_BK = self.recommend(some, SLOTS, Filters(allowed_I=known_I))
        new_BH = self.user_vectors(some) @ self.later_vectors(self._content_IC[held_I]).T
        return scale_for(self.config.cold_exposure, known_BK, new_BH, int(known_I.sum()))

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._item_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`."""
        people = _People(self._base, self._attributes, self._content_IC, self._later_NC)
        return self._towers.users.vectors(people(askers))

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        return np.asarray(self.user_vectors(askers) @ self._item_ID.T, np.float32)

    def later_features(self, items: pa.Table, content_NC: Float32) -> Float32:
        """See `KnowsLater.later_features`."""
        return self._content.features(items, content_NC)

    def later_vectors(self, features_NF: Float32) -> Float32:
        """See `KnowsLater.later_vectors`."""
        none_ND = np.zeros((len(features_NF), self._item_ID.shape[1]), np.float32)
        scale = 1.0 if self.config.cold_scale is None else self.config.cold_scale
        vector_ND = np.float32(scale) * self._towers.items.vectors(Known(none_ND, features_NF))
        vector_ND[~features_NF[:, : self.space.dim].any(axis=1)] = 0
        return vector_ND

    def with_later(self, features_NF: Float32) -> Self:
        """See `KnowsLater.with_later`."""
        model = self._with_base(self._base)
        model._later_NC = features_NF
        return model

    def without_users(self) -> Self:
        """See `Recommender.without_users`."""
        return self._with_base(self._base.without_users())

    def _with_base(self, base: Recommender) -> Self:
        parts = (self._content, self._attributes, self._towers)
        model = type(self)(self.config, base, parts, self._content_IC, self._item_ID)
        model._later_NC = self._later_NC
        return model

    def config_dict(self) -> dict[str, Any]:
        """See `Recommender.config_dict`."""
        return {
            "config": super().config_dict(), "base": self._base.config_dict(), "content": self._content.config_dict(),
            "attributes": self._attributes.config_dict(),
        }  # fmt: skip

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        base, content, attributes = self._base.tensors(), self._content.tensors(), self._attributes.tensors()
        parts = zip(_PARTS, (base, content, attributes, self._towers.tensors()), strict=True)
        named = {f"{part}.{name}": value for part, own in parts for name, value in own.items()}
        return {"items": self._item_ID, "item_content": self._content_IC, **named}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        parsed = DropoutNetConfig.parse(config["config"], f"model {cls.kind}")
        under: dict[str, dict[str, np.ndarray]] = {part: {} for part in _PARTS}
        for name, value in tensors.items():
            part, dot, rest = name.partition(".")
            if dot and part in under:
                under[part][rest] = value
        item_ID = tensors["items"]
        base = zoo.model_class(parsed.base.kind).from_state(config["base"], under["base"])
        content = ItemContent.from_state(config["content"], under["content"])
        attributes = Attributes.from_state(config["attributes"], under["attributes"])
        towers = Towers.from_tensors(under["towers"], item_ID.shape[1], parsed.hidden)
        return cls(parsed, base, (content, attributes, towers), tensors["item_content"], item_ID)


@dataclass(frozen=True, slots=True)
class _People:
    """Says what is known of askers; of `later_NC` see `KnowsLater.with_later`."""

    base: Recommender
    attributes: Attributes
    content_IC: Float32
    later_NC: Float32

    def __call__(self, askers: Askers) -> Known:
        """The base says nothing of those who took none of its items."""
        sum_BC, num_B = content_of_taken(askers, self.content_IC, self.later_NC)
        num_B1 = num_B[:, None]
        vector_BD = self.base.user_vectors(askers)
        assert vector_BD is not None, "the config allows kinds that have vectors"
        told_BF = self.attributes.encode(askers.attributes, len(askers))
        content_BC = np.concatenate(
            [sum_BC / np.maximum(num_B1, 1), np.log1p(num_B1) / _LONG, told_BF], axis=1
        )
        place_N, _, _ = askers.taken(len(self.content_IC))
        return Known(vector_BD, content_BC).without_vectors(np.bincount(place_N, minlength=len(askers)) == 0)


def _few(log: Log, seed: int) -> Askers:
    """The users of a log as strangers who took but one to five, by chance, of what they took, in its order."""
    draws, known = np.random.default_rng((seed, 3)), Askers.known(log)
    histories = [
        history_L[np.sort(draws.permutation(len(history_L))[: draws.integers(1, _MOST_FEW + 1)])]
        for history_L in known.histories
    ]
    return Askers.strangers(histories, known.attributes)


def _held_out(taken_I: Bool, seed: int) -> Bool:
    """(I,) a tenth of the items that anybody took, by chance, at most 1000; none of fewer than 20."""
    taken = np.flatnonzero(taken_I)
    held_I = np.zeros(len(taken_I), bool)
    if len(taken) >= _LEAST_TAKEN:
        num = min(len(taken) // 10, _MOST_HELD)
        held_I[np.random.default_rng((seed, 4)).permutation(taken)[:num]] = True
    return held_I


def _length(vector_ND: Float32) -> float:
    """Root mean square length of the vectors that are not zero."""
    square_N = np.square(vector_ND).sum(axis=1)
    there = square_N > 0
    return float(np.sqrt(square_N[there].mean())) if there.any() else 1.0
