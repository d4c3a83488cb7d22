"""The stages of a bundle, kept up with what is put into its catalogue and taken out of it: what serving runs.

A change makes a new pipeline over the same models; who holds the one before goes on with it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import ItemColumns
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.trending import Trending
from tastemaker.features.well_known import Tried
from tastemaker.stages.asking import Asking
from tastemaker.stages.editorial import EditorialList
from tastemaker.stages.live_items import ContentOf, LiveItems
from tastemaker.stages.loading import BundleParts
from tastemaker.stages.overlay import Overlay, OverlayRows
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.pipeline_config import ALL_PARTS, Part
from tastemaker.stages.shards import OwnRows
from tastemaker.stages.source import forbidden
from tastemaker.stages.text_search import TextSearch
from tastemaker.state.items import ItemChanges
from tastemaker.types import Float32, Int32, Query

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle


class LiveStages:
    """The newest pipeline of a bundle. One thread takes changes; any may run `pipeline`.

    Args:
        bundle: Opened.
        parts: What this process runs.
        store_of: See `Pipeline.from_bundle`.
        trending: See `Pipeline.from_bundle`.
        tried: How often put items were shown and clicked, by id.
        content_of: See `BundleParts`.
        asking: How sources are asked; unset, in turn.
        editorial: See `BundleParts`.
        is_ruled: Queries come with blocks and filters applied, as a gateway's do.
    """

    def __init__(
        self,
        bundle: "Bundle",
        parts: frozenset[Part] = ALL_PARTS,
        store_of: Callable[[ItemFacts], ItemStore] = ItemStore,
        trending: Callable[[], Trending | None] | None = None,
        tried: Callable[[], Mapping[str, Tried]] = dict,
        content_of: ContentOf | None = None,
        asking: Asking | None = None,
        editorial: Callable[[], tuple[EditorialList, ...]] = tuple,
        is_ruled: bool = False,
    ) -> None:
        self._is_ruled = is_ruled
        self._bundle, self._parts, self._asking = bundle, parts, asking
        self._editorial = editorial
        self._store_of, self._trending = store_of, trending
        self._tried, self._content_of = tried, content_of
        self._published = self._as_published()
        self._growth: _Growth | None = None
        self._use(self._published, Overlay.none(len(bundle.item_ids)))

    def take(self, changes: ItemChanges) -> None:
        """Makes the next pipeline; changes that begin anew replace all earlier ones.

        Raises:
            MissingExtraError: New items need an encoder that is not installed.
        """
        if not changes:
            return
        if changes.restarted and self._growth is not None:
            self._published = self._as_published()
            Pipeline.of_parts(
                self._published, self._parts, self._store_of
            )  # what grows must be there before it does
        if changes.restarted or self._growth is None:
            rows = OverlayRows(len(self._bundle.item_ids), self._bundle.index_of)
            self._growth = _Growth(self._published, rows, self._parts)
        live = self._growth.after(changes)
        self._use(self._published.with_items(live), live.overlay)

    def _as_published(self) -> BundleParts:
        return BundleParts(
            self._bundle, self._trending, tried=self._tried, content_of=self._content_of,
            asking=self._asking, editorial=self._editorial,
        )  # fmt: skip

    def similar(self, query: Query, item_index: int) -> tuple[Int32, Float32]:
        """The at most `query.k` items most alike to one that the query's hard rules allow, best first, with their similarity.

        None to a row that is unknown here. Of a shard, they are the best of its own rows.
        """
        fit, index, _ = self._nearest
        if item_index >= index.num_items:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        fitted = fit(query)
        others = np.append(forbidden(fitted), np.int32(item_index))
        vector_1D = index.vectors()[np.array([item_index], np.int32)]
        rows_BK, score_BK = index.search(vector_1D, query.k, [fitted.allowed], [others])
        return rows_BK[0], score_BK[0]

    def search(self, query: Query, text_D: Float32, share: float = 0.0) -> tuple[Int32, Float32]:
        """See `TextSearch`, of the items as they are now; of a shard, of its own rows.

        Raises:
            CompatibilityError: The bundle has no content space.
        """
        fit, _, search = self._nearest
        return _there(search)(fit(query), text_D, share)

    def encode_text(self, text: str) -> Float32:
        """See `TextSearch.encode`.

        Raises:
            CompatibilityError: The bundle has no content space.
            MissingExtraError: The encoder is not installed.
        """
        return _there(self._nearest[2]).encode(text)

    def _use(self, parts: BundleParts, overlay: Overlay) -> None:
        self.pipeline = Pipeline.of_parts(
            parts, self._parts, self._store_of, overlay, is_ruled=self._is_ruled
        )
        if "retrieve" in self._parts:
            self._nearest = partial(_fitted, overlay, parts.own), parts.index(), parts.text_search()


def _fitted(overlay: Overlay, own: OwnRows | None, query: Query) -> Query:
    fitted = overlay.fit(query)
    return fitted if own is None else own.only(fitted)


def _there(search: TextSearch | None) -> TextSearch:
    if search is None:
        raise CompatibilityError(
            "search by text needs a content space, which the bundle lacks", mend="train with source content"
        )
    return search


class _Growth:
    """What grows behind a bundle's own items."""

    def __init__(self, published: BundleParts, rows: OverlayRows, parts: frozenset[Part]) -> None:
        self._published, self._rows = published, rows
        self._columns = published.columns
        self._vectors = published.growing_vectors()
        self._content = published.growing_content() if "retrieve" in parts else None
        self._traits = published.traits if "rerank" in parts else None
        self._places = published.places if "retrieve" in parts else None
        self._models = published.growing_models() if "retrieve" in parts else {}

    def after(self, changes: ItemChanges) -> LiveItems:
        step = self._rows.take(changes)
        if len(step.rows_W):
            written = ItemColumns.from_items(step.items, self._columns.schema)
            self._columns = self._columns.with_rows(step.rows_W, written)
            self._traits = None if self._traits is None else self._traits.after(step.rows_W, step.items)
            self._places = None if self._places is None else self._places.after(step.rows_W, step.items)
            self._published.write_facts(step.rows_W, step.items)
        return LiveItems(
            step.overlay,
            self._rows.row_of,
            self._columns,
            self._vectors.after(step),
            None if self._content is None else self._content.after(step),
            self._traits,
            self._places,
            {name: model.after(step) for name, model in self._models.items()},
        )
