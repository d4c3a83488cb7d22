"""The features of requests from what is known now: the user's record that a query carries, and the items' newest totals."""

from tastemaker.features.item_store import ItemStore
from tastemaker.features.places import place_of
from tastemaker.features.request_features import features_for
from tastemaker.features.user_state import state_in
from tastemaker.types import Float32, Int32, Query


class ServedFeatures:
    """Gives the features of requests: a `stages.hydration.RequestFeatures`. Thread-safe.

    Of a query without a record the user's part is that of one of whom nothing is known.

    Args:
        store: Of the items; all candidates of a request are of one version of it.
    """

    def __init__(self, store: ItemStore) -> None:
        self.store = store

    def __call__(self, query: Query, item_index: Int32) -> Float32:
        """The `REQUEST_FEATURES` (K, F) of candidates of a query.

        Raises:
            CompatibilityError: The query's record is of another layout.
            DataError: See `place_of`.
        """
        candidates = self.store.snapshot.of(item_index)
        return features_for(state_in(query.record), candidates, query.now_ms, place_of(query.context))
