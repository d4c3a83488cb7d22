"""All recommendation models by the name that recipes and bundles call them; each is imported when it is asked for."""

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.models.log import Log
from tastemaker.models.packed import ChosenModel, PackedModel, class_of, packed_kind
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict

_MEMORY: Final = "tastemaker.models.memory"
_FACTORS: Final = "tastemaker.models.factors"
_SEQUENCE: Final = "tastemaker.models.sequence"
_COLD: Final = "tastemaker.models.cold"
_TRANSFER: Final = "tastemaker.models.transfer"

MODELS: Final[Mapping[str, str]] = {
    "popular": f"{_MEMORY}.popular:Popular",
    "recent": f"{_MEMORY}.popular:Recent",
    "trending": f"{_MEMORY}.popular:Trending",
    "ease": f"{_MEMORY}.item_weights:Ease",
    "item-knn": f"{_MEMORY}.item_weights:ItemKnn",
    "user-knn": f"{_MEMORY}.user_knn:UserKnn",
    "rating-knn": f"{_MEMORY}.rating_knn:RatingKnn",
    "als": f"{_FACTORS}.implicit_als:ImplicitAls",
    "ials": f"{_FACTORS}.ials:Ials",
    "bpr": f"{_FACTORS}.bpr:Bpr",
    "neumf": f"{_FACTORS}.neumf:NeuMf",
    "svd": f"{_FACTORS}.svd:Svd",
    "svdpp": f"{_FACTORS}.svd:SvdPlusPlus",
    "nmf": f"{_FACTORS}.nmf:Nmf",
    "als-explicit": f"{_FACTORS}.explicit_als:ExplicitAls",
    "sasrec": f"{_SEQUENCE}.sasrec:SasRec",
    "gru4rec": f"{_SEQUENCE}.recurrent:Gru4Rec",
    "lstm": f"{_SEQUENCE}.recurrent:LstmSessions",
    "bert4rec": f"{_SEQUENCE}.bert4rec:Bert4Rec",
    "content-knn": f"{_COLD}.content_knn:ContentKnn",
    "dropoutnet": f"{_COLD}.dropoutnet:DropoutNet",
    "melu": f"{_COLD}.melu:Melu",
    "emcdr": f"{_TRANSFER}.emcdr:Emcdr",
    "shared-tower": f"{_TRANSFER}.shared_tower:SharedTower",
    "fine-tuned": f"{_TRANSFER}.fine_tuned:FineTuned",
}
"""Module and class of each kind."""


def model_class(kind: str) -> type[Recommender]:
    """The class of a kind.

    Raises:
        UsageError: There is none of that name.
    """
    return cast("type[Recommender]", class_of(kind, MODELS, "model"))


class ZooModel(ChosenModel):
    """A recommender."""

    @classmethod
    def config_class(cls, kind: str) -> type[Strict]:
        """See `ChosenModel`."""
        return model_class(kind).Config


def fit(kind: str, log: Log, settings: Mapping[str, Any] | None = None) -> Recommender:
    """A model of a kind, fitted; `settings` are those of its config that differ from the defaults.

    Raises:
        UsageError: See `model_class`.
        ConfigError: The kind has no such setting, or a value is wrong.
        DataError: The log has nothing that it could learn from.
    """
    found = model_class(kind)
    return found.fit(log, found.Config.parse(settings or {}, f"model {kind}"))


class Packed(PackedModel):
    """A model of whatever kind, as bundles hold it: the kind is in its config."""

    @staticmethod
    def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Recommender:
        """The model itself.

        Raises:
            CompatibilityError: This release knows no such kind, or config and tensors do not belong together.
        """
        kind = packed_kind(config, MODELS, "model")
        try:
            return model_class(kind).from_state(config["model"], tensors)
        except KeyError as error:
            raise CompatibilityError(
                f"config and tensors of a {kind} lack {error}", mend="publish the model anew"
            ) from error
