"""What the serving graph asks of a ranker, whatever model it is: the library's DLRM, or a click model of the zoo.

Shape letters: K candidates of one request, F dense features, T targets.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tastemaker.features.columns import FeatureSchema
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.ranking_data import Target
from tastemaker.models.contributions import Contributions
from tastemaker.types import Float32


class Ranker(Protocol):
    """Scores the candidates of a request. Thread-safe."""

    @property
    def dense_features(self) -> tuple[str, ...]:
        """Names of the dense features that it reads, in order."""
        ...

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it predicts, a click among it."""
        ...

    def require(self, schema: FeatureSchema) -> None:
        """Passes when the catalogue's vocabularies are as large as those that it was trained with.

        Raises:
            CompatibilityError: They are not.
        """
        ...

    def logits(self, dense_KF: Float32, bags: Mapping[str, Bag]) -> Float32:
        """(K, T) before calibration.

        Args:
            dense_KF: Dense features.
            bags: Of each further feature one bag a candidate, or one for all of them.
        """
        ...

    def contributions(self, dense_KF: Float32, bags: Mapping[str, Bag], at: int) -> Contributions:
        """What each feature adds to the logit of a click of one candidate, beside the candidates' mean.

        Args:
            dense_KF: Dense features.
            bags: See `logits`.
            at: The candidate.
        """
        ...

    def config_dict(self) -> dict[str, Any]:
        """What `AnyRanker` needs beside the tensors; JSON."""
        ...

    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned."""
        ...


def dense_features_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the dense features of a ranker, in order, by its config as bundles hold it: without the ranker itself.

    >>> dense_features_of({"kind": "lr", "model": {"fields": {"dense": ["ease_z"]}}}), dense_features_of({"dense_features": ["als_z"]})
    (('ease_z',), ('als_z',))
    """
    return tuple(config["model"]["fields"]["dense"] if "kind" in config else config["dense_features"])


class AnyRanker:
    """A ranker as bundles hold it: the config of a click model has a `kind`, that of the DLRM has none."""

    @staticmethod
    def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Ranker:
        """The ranker that both describe, ready to serve.

        Raises:
            CompatibilityError: They do not belong together, or this release knows no such kind.
            MissingExtraError: Its kind needs a package that is not installed.
        """
        if "kind" in config:
            from tastemaker.models.ctr.ranker import ClickRanker

            return ClickRanker.from_state(config, tensors)
        from tastemaker.models.dlrm import Dlrm

        return Dlrm.from_state(config, tensors)
