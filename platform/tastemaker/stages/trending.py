"""The source `trending`: what is taken now, by the events of the last minutes and days, in the request's country.

Where nothing is known of now (no events, or an evaluation of the past) it answers as the bundle's popularity does, whose
scores are of the same kind: the share of what is taken most.

Shape letters: B requests.
"""

from collections.abc import Sequence

from tastemaker.features.trending import TrendingRows
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.source import Asked, AskedLists, Source
from tastemaker.types import Query


class TrendingSource(Source):
    """What trends now; without that, what trended at the bundle's fit.

    Args:
        name: Of the source.
        fitted: Stands in where nothing is known of now.
        rows: What trends, as rows of the bundle; None in evaluations.
    """

    needs_history = False
    is_light = True

    def __init__(self, name: str, fitted: PopularSource, rows: TrendingRows | None = None) -> None:
        self.name, self._fitted, self._rows = name, fitted, rows

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`. All queries are answered by one snapshot."""
        lists = self._rows.listed([query.context for query in queries]) if self._rows else None
        return self._fitted.ask(queries) if lists is None else AskedLists(queries, lists)
