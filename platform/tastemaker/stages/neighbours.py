"""Source of items near those in the history by item-to-item weights: EASE or kNN.

A model that keeps few weights for each item costs what the history's items weigh; one that keeps as many as there are
items, as an EASE without `keep`, costs a pass over the catalogue: it is for some ten thousands of items, beyond which its
fit is too large in any case.

Shape letters: B requests.
"""

from collections.abc import Sequence

from tastemaker.models.item_item import ItemItem
from tastemaker.stages.source import Asked, AskedLists, Source, has_history
from tastemaker.types import Query


class ItemItemSource(Source):
    """Items near those in the history, by EASE or kNN weights; those that the history speaks for, above 0."""

    def __init__(self, name: str, model: ItemItem) -> None:
        self.name, self._model = name, model

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        lists = [self._model.neighbours(query.history_L) for query in queries]
        return AskedLists(queries, lists, has_history(queries), least=0.0)
