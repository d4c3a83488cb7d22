"""What of a bundle's own items the gateway reads as well as the stages: made once for both where they are one process.

Without torch and FAISS, which a gateway of its own does not have.
"""

from typing import TYPE_CHECKING

from tastemaker.features.traits import ItemTraits
from tastemaker.models.popularity import Popularity
from tastemaker.stages.popular import PopularHeads

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle


def popularity_of(bundle: "Bundle") -> Popularity:
    """Counts of the items."""
    return bundle.once("popularity", lambda: bundle.model("popularity", Popularity))


def heads_of(bundle: "Bundle") -> PopularHeads:
    """The most popular of them, of all and by segment."""
    return bundle.once("popular heads", lambda: PopularHeads(popularity_of(bundle)))


def traits_of(bundle: "Bundle") -> ItemTraits:
    """What rules read of them."""
    items = bundle.table("items.parquet")
    return bundle.once("traits", lambda: ItemTraits.from_items(items, popularity_of(bundle).counts_I))
