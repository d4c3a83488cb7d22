"""What of a bundle several stages need, over its items as they are now: read once, and shared by all that grow from it.

Not for the stages themselves (`loading`), nor for the sources (`bundle_sources`).

Shape letters: I catalogue, D dimension.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.content import ContentSpace
from tastemaker.features.places import Places
from tastemaker.features.ranking_items import RankingItems
from tastemaker.features.traits import ItemTraits
from tastemaker.index.extended import ExtendedIndex
from tastemaker.models.popularity import Popularity
from tastemaker.models.two_tower import QueryEncoder
from tastemaker.pacing import step
from tastemaker.stages.bundle_items import popularity_of, traits_of
from tastemaker.stages.bundle_rows import BundleHistories
from tastemaker.stages.bundle_zoo import BundledModel
from tastemaker.stages.content import CONTENT_INDEX
from tastemaker.stages.live_items import LiveItems
from tastemaker.stages.overlay import Overlay
from tastemaker.stages.session import QueryVectors
from tastemaker.stages.shards import OwnRows
from tastemaker.types import Float32, VectorRows

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.index.vector_index import VectorIndex


class BundleModels:
    """Models, indexes and columns of a bundle, each read when asked for.

    Args:
        bundle: Opened.
        live: What the bundle's items have become since; unset, they are as published.
        shared: Models by name, of others over the same bundle; unset, this is the first.
    """

    def __init__(
        self, bundle: "Bundle", live: LiveItems | None = None, shared: dict[str, Any] | None = None
    ) -> None:
        self.bundle, self.live = bundle, live
        self.shared: dict[str, Any] = {} if shared is None else shared

    def with_items(self, live: LiveItems) -> "BundleModels":
        """The same models over items that have changed."""
        return BundleModels(self.bundle, live, self.shared)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """A model, shared by all that grow from these."""
        if name not in self.shared:
            step()
            self.shared[name] = make()
        return self.shared[name]

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None where there is none."""
        if self.live is None:
            return self.bundle.index_of(item_id)
        row = self.live.row_of(item_id)  # which may be of an item that came after these
        return row if row is not None and row < self.live.overlay.num_items else None

    @property
    def overlay(self) -> Overlay:
        """What rows behind the bundle's belong to."""
        return Overlay.none(len(self.bundle.item_ids)) if self.live is None else self.live.overlay

    @cached_property
    def own(self) -> OwnRows | None:
        """Rows that are proposed here; None: all."""
        shard, overlay = self.bundle.shard, self.overlay
        return None if shard is None else OwnRows(shard, overlay.num_bundle, overlay.num_items)

    @cached_property
    def items(self) -> RankingItems:
        """What ranking knows of the items."""
        if self.live is None:
            return RankingItems(ItemColumns.from_items(self.bundle.table("items.parquet"), self.schema))
        items = RankingItems(self.live.columns, self.live.overlay.num_bundle)
        items.prepare()
        return items

    @cached_property
    def schema(self) -> FeatureSchema:
        """How the items' columns are made."""
        return FeatureSchema.parse(self.bundle.json("features.json"), "features.json")

    @property
    def traits(self) -> ItemTraits:
        """What rules read of the items."""
        if self.live is not None and self.live.traits is not None:
            return self.live.traits
        return traits_of(self.bundle)

    @cached_property
    def popularity(self) -> Popularity:
        """Counts of the items; of those that came later, of nothing."""
        fitted = self.fitted_popularity
        return fitted if self.live is None else fitted.padded(self.live.overlay.num_items)

    @property
    def fitted_popularity(self) -> Popularity:
        """Counts of the bundle's items."""
        return popularity_of(self.bundle)

    @property
    def places(self) -> Places:
        """Where the items are."""
        live = None if self.live is None else self.live.places
        return self.fitted_places if live is None else live

    @property
    def fitted_places(self) -> Places:
        """Where the bundle's items are."""
        items = self.bundle.table("items.parquet")
        places: Places = self.once("places", lambda: Places.from_items(items))
        return places

    @property
    def vectors(self) -> VectorRows:
        """The item tower's unit vectors (I, D): the bundle's in the index's own memory."""
        return self.index().vectors()

    def index(self) -> "VectorIndex":
        """The items by the item tower's vectors."""
        return _grown(self.bundle.searched(), None if self.live is None else self.live.vectors_ND)

    def query_encoder(self, name: str) -> QueryVectors:
        """Makes users' vectors; items that came later count in histories by their own vectors."""
        encoder: QueryEncoder = self.once(name, lambda: self.bundle.towers(name, QueryEncoder))
        if self.live is None:
            return encoder
        return BundleHistories(encoder, self.vectors, self.live.overlay.num_bundle)

    def content_space(self) -> ContentSpace:
        """Makes content vectors."""
        space: ContentSpace = self.once("content", lambda: self.bundle.model("content", ContentSpace))
        return space

    def zoo(self, name: str) -> BundledModel:
        """The model of the zoo that a source is named after, as published."""
        found: BundledModel = self.once(name, lambda: BundledModel.read(self.bundle, name))
        return found

    def content_index(self) -> "VectorIndex":
        """The items by content vectors."""
        return _grown(
            self.bundle.searched(CONTENT_INDEX), None if self.live is None else self.live.content_ND
        )


def _grown(index: "VectorIndex", further_ND: Float32 | None) -> "VectorIndex":
    return index if further_ND is None or not len(further_ND) else ExtendedIndex(index, further_ND)
