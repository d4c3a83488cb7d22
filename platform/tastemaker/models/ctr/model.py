"""What every click model is: fitted on rows with labels, asked for probabilities, saved as tensors and a config.

Models of whole catalogues: see `models.recommender`. Shape letters: N rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tastemaker.errors import DataError
from tastemaker.models.contributions import Contributions
from tastemaker.models.ctr.fields import Fields, Rows
from tastemaker.strict import Strict
from tastemaker.types import Float32


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows and what happened: 1 or 0.

    `propensity_N`, where given, is the chance of each row to be looked at; what that corrects is the config's to say.
    """

    rows: Rows
    label_N: Float32
    propensity_N: Float32 | None = None

    @classmethod
    def of(cls, rows: Rows, label_N: Any, propensity_N: Any = None) -> "Labelled":
        """Rows with labels and, in (0, 1], their propensities.

        Raises:
            DataError: Not one label or propensity a row, a label other than 0 and 1, or a propensity that is none.
        """
        label_N = np.asarray(label_N, np.float32)
        if label_N.shape != (len(rows),):
            raise DataError("labels of a click model", value=label_N.shape, limit=(len(rows),))
        if not np.isin(label_N, (0, 1)).all():
            raise DataError("a label of a click model", limit="0 or 1", mend="turn ratings into labels first")
        if propensity_N is None:
            return cls(rows, label_N)
        propensity_N = np.asarray(propensity_N, np.float32)
        if propensity_N.shape != label_N.shape:
            raise DataError("propensities of a click model", value=propensity_N.shape, limit=label_N.shape)
        if not ((propensity_N > 0) & (propensity_N <= 1)).all():
            raise DataError("a propensity of a click model", limit="above 0, at most 1", mend="correct it")
        return cls(rows, label_N, propensity_N)

    def __len__(self) -> int:
        return len(self.label_N)

    def require_like(self, learned: "Labelled") -> None:
        """Passes when these rows can validate what is learned from those: both have propensities, or neither.

        Raises:
            DataError: One has them alone.
        """
        told, both = self.propensity_N is not None, learned.propensity_N is not None
        if told != both:
            raise DataError(
                "propensities of a click model's validation rows", value="given" if told else "none",
                limit="as of the rows it learns from", mend="give both, or neither",
            )  # fmt: skip

    def take(self, row_B: Any) -> "Labelled":
        """Some rows with their labels."""
        propensity_B = None if self.propensity_N is None else self.propensity_N[row_B]
        return Labelled(self.rows.take(row_B), self.label_N[row_B], propensity_B)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fit is, behind one of its passes over the rows or one of its trees.

    `share` is what is done of all, 1 at the last; `scores` those of the model that would be kept now, while its watcher looks;
    `loss` the pass's own, where there is one.
    """

    share: float
    scores: Callable[[Rows], Float32]
    loss: float | None = None


Watch = Callable[[Progress], None]
"""Looks at a fit while it goes on, and changes nothing of it; what it raises ends the fit."""


class ClickModel(ABC):
    """The chance of a yes for rows of features; values that it does not know are no exception.

    Subclasses give `fit`, `predict`, and what saves them: `tensors` and `from_state` (the config is JSON).
    """

    kind: ClassVar[str]
    """Its name in recipes and bundles."""
    Config: ClassVar[type[Strict]]
    """What its recipe says."""
    has_losses: ClassVar[bool] = True
    """Whether a fit leaves `losses`."""

    fields: Fields
    config: Strict
    losses: tuple[float, ...] = ()
    """Of each pass over the rows when it was fitted; not saved."""

    @classmethod
    @abstractmethod
    def fit(
        cls, learned: Labelled, config: Any, validation: Labelled | None = None, watch: Watch | None = None
    ) -> Self:
        """Learns from rows; the same rows and config give the same model.

        Args:
            learned: What it learns from.
            config: Of its `Config`.
            validation: Rows by which it knows when to stop; unset, it does not stop before its time.
            watch: Looks at it behind each pass or tree.

        Raises:
            DataError: There is nothing that this model could learn from.
        """

    @classmethod
    @abstractmethod
    def check_fields(cls, fields: Fields, config: Any) -> None:
        """Passes when a model of such a config can be made for such fields, however many values they have.

        Raises:
            ConfigError: The config names what is no field.
        """

    @abstractmethod
    def predict(self, rows: Rows) -> Float32:
        """(N,) probabilities.

        Raises:
            CompatibilityError: The rows are of other fields.
        """

    @abstractmethod
    def scores(self, rows: Rows) -> Float32:
        """(N,) numbers without bounds that order rows as `predict` does: log-odds, where the model has them.

        Raises:
            CompatibilityError: The rows are of other fields.
        """

    @abstractmethod
    def contributions(self, rows: Rows, at: int) -> Contributions:
        """What each field adds to the score of one row, beside the mean score of all. Thread-safe.

        Args:
            rows: Of one request.
            at: The row that is explained.

        Raises:
            CompatibilityError: The rows are of other fields.
            DataError: There is no such row.
        """

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return {
            "fields": self.fields.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
        }

    @abstractmethod
    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned, as arrays that safetensors can hold."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: Config and tensors do not belong together.
        """

    @classmethod
    def _parsed(cls, config: Mapping[str, Any]) -> tuple[Fields, Strict]:
        return (
            Fields.parse(config["fields"], f"fields of {cls.kind}"),
            cls.Config.parse(config["config"], f"model {cls.kind}"),
        )
