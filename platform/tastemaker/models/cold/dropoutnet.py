"""DropoutNet: a model of factors taught to do without them, for items that nobody took and people of whom little is known.

Shape letters: U users, I items, B askers, N items or people, C content features, D dimension.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.features.content import ContentConfig
from tastemaker.models import zoo
from tastemaker.models.cold.attributes import Attributes
from tastemaker.models.cold.dropout_towers import DropoutFitConfig, Known, Learner, Towers
from tastemaker.models.cold.item_content import ItemContent
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.seeding import seeded
from tastemaker.strict import Strict
from tastemaker.types import Float32

BASES: Final = ("als", "ials", "bpr")
_MOST_FEW: Final = 5
_LONG: Final = 5.0
_PARTS: Final = ("base", "content", "attributes", "towers")


class DropoutNetConfig(Strict):
    """DropoutNet over a base model."""

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
    cold_scale: float = Field(
        1.0,
        gt=0,
        description="factor of the vectors of items that nobody took: above 1 more of them are shown",
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


class DropoutNet(Recommender):
    """Two networks give vectors whose products are the base model's, with the base's own vectors or without [Volkovs et al. 2017].

    Items: the base's vector, none where nobody took the item, and content. People: the base's vector, none without a history; the
    mean content of the history; how long it is; attributes. Departures: what goes in is added to what comes out (see `Tower`), and the items of
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
        self._content_IC, self._item_ID = content_IC, item_ID

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
        users, few_users = (_people(one, base, content_IC, attributes) for one in (askers, few))
        with seeded(config.seed):
            widths = (users.content_NC.shape[1], content_IC.shape[1])
            scales = (_length(users.vector_ND), _length(items.vector_ND))
            towers = Towers.of(vector_ID.shape[1], widths, config.hidden, scales)
        losses = Learner(log, items, users, few_users, config.dropout).fit(towers, config.fit, config.seed)
        item_ID = towers.items.vectors(items)
        item_ID[~taken_I] *= config.cold_scale
        model = cls(config, base, (content, attributes, towers), content_IC, item_ID)
        model.losses = tuple(losses)
        return model

    def item_vectors(self) -> Float32:
        """See `Recommender.item_vectors`."""
        return self._item_ID

    def user_vectors(self, askers: Askers) -> Float32:
        """See `Recommender.user_vectors`."""
        return self._towers.users.vectors(_people(askers, self._base, self._content_IC, self._attributes))

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        return np.asarray(self.user_vectors(askers) @ self._item_ID.T, np.float32)

    def encode_items(self, items: pa.Table) -> Float32:
        """(N, D) of items that are not in the log, beside `item_vectors`.

        Args:
            items: With the schema of imported items.

        Raises:
            MissingExtraError: The encoder of texts is not installed.
        """
        content_NC = self._content.encode(items)
        none_ND = np.zeros((len(content_NC), self._item_ID.shape[1]), np.float32)
        return self.config.cold_scale * self._towers.items.vectors(Known(none_ND, content_NC))

    def without_users(self) -> Self:
        """See `Recommender.without_users`."""
        parts = (self._content, self._attributes, self._towers)
        return type(self)(self.config, self._base.without_users(), parts, self._content_IC, self._item_ID)

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


def _people(askers: Askers, base: Recommender, content_IC: Float32, attributes: Attributes) -> Known:
    """What is known of askers; the base says nothing of those without a history."""
    taken_BI = askers.matrix(len(content_IC))
    num_B1 = np.diff(taken_BI.indptr)[:, None].astype(np.float32)
    mean_BC = np.asarray(taken_BI @ content_IC, np.float32) / np.maximum(num_B1, 1)
    vector_BD = base.user_vectors(askers)
    assert vector_BD is not None, "the config allows kinds that have vectors"
    told_BF = attributes.encode(askers.attributes, len(askers))
    content_BC = np.concatenate([mean_BC, np.log1p(num_B1) / _LONG, told_BF], axis=1)
    return Known(vector_BD, content_BC).without_vectors(num_B1[:, 0] == 0)


def _few(log: Log, seed: int) -> Askers:
    """The users of a log as strangers who took but one to five, by chance, of what they took, in its order."""
    draws, known = np.random.default_rng((seed, 3)), Askers.known(log)
    histories = [
        history_L[np.sort(draws.permutation(len(history_L))[: draws.integers(1, _MOST_FEW + 1)])]
        for history_L in known.histories
    ]
    return Askers.strangers(histories, known.attributes)


def _length(vector_ND: Float32) -> float:
    """Root mean square length of the vectors that are not zero."""
    square_N = np.square(vector_ND).sum(axis=1)
    there = square_N > 0
    return float(np.sqrt(square_N[there].mean())) if there.any() else 1.0
