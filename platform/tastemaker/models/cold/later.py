"""Models that know items which came after they were fitted, by what these are. Not for where such items get their rows: see `stages.overlay`.

Shape letters: N later items, F features of one, D dimension.
"""

from abc import abstractmethod
from typing import Self

import numpy as np
import pyarrow as pa

from tastemaker.errors import CompatibilityError
from tastemaker.features.content import ContentSpace
from tastemaker.models.log import Askers
from tastemaker.models.recommender import Recommender
from tastemaker.types import Float32


class KnowsLater(Recommender):
    """Has a vector for an item of which it has learned nothing, beside its own `item_vectors`, and counts it in histories.

    Later items stand behind the model's own: the n-th is row I + n of a history. What saves the model holds its space as `features.content.CONTENT`
    says, so that who only encodes needs no model.
    """

    space: ContentSpace
    """Makes the content vectors; whoever serves may have these from elsewhere."""
    knows_later: bool = True
    """Not where it was saved without its space: then it knows what it was fitted on, and must not be asked for more."""

    @abstractmethod
    def later_features(self, items: pa.Table, content_NC: Float32) -> Float32:
        """(N, F) what it reads of items.

        Args:
            items: With the schema of imported items.
            content_NC: Their vectors in `space`; zeros where nothing is known.
        """

    @abstractmethod
    def later_vectors(self, features_NF: Float32) -> Float32:
        """(N, D) beside `item_vectors`; zeros for an item without a content vector, of which nothing can be said."""

    @abstractmethod
    def with_later(self, features_NF: Float32) -> Self:
        """The same for people who may have taken later items. It shares all that it has with this one."""

    def encode_items(self, items: pa.Table) -> Float32:
        """(N, D) of items that are not in the log, beside `item_vectors`.

        Args:
            items: With the schema of imported items.

        Raises:
            CompatibilityError: The model was saved without its space.
            MissingExtraError: The encoder of texts is not installed.
        """
        if not self.knows_later:
            raise CompatibilityError(
                f"a {self.kind} that was saved without its content space cannot encode items",
                mend="fit it anew",
            )
        return self.later_vectors(self.later_features(items, self.space.encode(items)))


def content_of_taken(askers: Askers, own_IF: Float32, later_NF: Float32) -> tuple[Float32, Float32]:
    """The sum (B, F) of the features of what each asker took, later items included, and how many items these are (B,)."""
    num_own = len(own_IF)
    taken_BI = askers.matrix(num_own + len(later_NF))
    sum_BF = np.asarray(taken_BI[:, :num_own] @ own_IF, np.float32)
    if len(later_NF):
        sum_BF += np.asarray(taken_BI[:, num_own:] @ later_NF, np.float32)
    return sum_BF, np.diff(taken_BI.indptr).astype(np.float32)
