"""All click models by the name that recipes and bundles call them; each is imported when it is asked for."""

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from tastemaker.models.ctr.model import ClickModel, Labelled, Watch
from tastemaker.models.packed import PackedModel, class_of, packed_kind

_CTR: Final = "tastemaker.models.ctr"

CLICK_MODELS: Final[Mapping[str, str]] = {
    "lr": f"{_CTR}.linear:LogisticRegression",
    "fm": f"{_CTR}.fm:FactorisationMachine",
    "wide-deep": f"{_CTR}.deep:WideAndDeep",
    "deepfm": f"{_CTR}.deep:DeepFm",
    "dcn": f"{_CTR}.dcn:Dcn",
    "dcn-v2": f"{_CTR}.dcn:DcnV2",
    "dlrm": f"{_CTR}.dlrm:DlrmClick",
    "din": f"{_CTR}.din:Din",
    "dssm": f"{_CTR}.dssm:Dssm",
    "lambdamart": f"{_CTR}.lambdamart:LambdaMart",
}
"""Module and class of each kind."""


def click_model_class(kind: str) -> type[ClickModel]:
    """The class of a kind.

    Raises:
        UsageError: There is none of that name.
    """
    return cast("type[ClickModel]", class_of(kind, CLICK_MODELS, "click model"))


def fit(
    kind: str,
    learned: Labelled,
    settings: Mapping[str, Any] | None = None,
    validation: Labelled | None = None,
    watch: Watch | None = None,
) -> ClickModel:
    """A model of a kind, fitted; `settings` are those of its config that differ from the defaults. See `ClickModel.fit`.

    Raises:
        UsageError: See `click_model_class`.
        ConfigError: The kind has no such setting, or a value is wrong.
        DataError: The rows have nothing that it could learn from.
    """
    found = click_model_class(kind)
    return found.fit(learned, found.Config.parse(settings or {}, f"model {kind}"), validation, watch)


class PackedClickModel(PackedModel):
    """A click model of whatever kind, as bundles hold it: the kind is in its config."""

    @staticmethod
    def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ClickModel:
        """The model itself.

        Raises:
            CompatibilityError: This release knows no such kind, or config and tensors do not belong together.
        """
        kind = packed_kind(config, CLICK_MODELS, "click model")
        return click_model_class(kind).from_state(config["model"], tensors)
