"""What may be put into a catalogue: rows of a batch as items, each that is none with its reason; items as text and tables.

Not for imported tables, see `tables`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import pyarrow as pa
from pydantic import Field, ValidationError

from tastemaker.data.schema import ITEM_DETAILS, Column, items_schema
from tastemaker.events.row_faults import id_of, shape_fault, value_fault
from tastemaker.ids import Id
from tastemaker.strict import Strict
from tastemaker.types import MAX_ID_LENGTH

MAX_TEXT: Final = 20_000
MAX_LIST: Final = 300
MAX_VECTORS, MAX_DIM = 8, 4096
MAX_ROW_BYTES: Final = 256 * 2**10
"""Of one item as it is kept."""

Word = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Country = Annotated[str, Field(pattern="^[A-Za-z]{2}$")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]


class Location(Strict):
    """A place on the earth, in degrees."""

    lat: float = Field(ge=-90, le=90, description="north of the equator")
    lon: float = Field(ge=-180, le=180, description="east of Greenwich")


class Item(Strict):
    """One item of the catalogue. What is left out is unknown; a later row replaces the whole earlier one."""

    item_id: Id = Field(description="the customer's own id")
    title: str | None = Field(None, max_length=1000, description="for people; empty takes the id")
    description: str | None = Field(None, max_length=MAX_TEXT, description="text that the item is found by")
    category: str | None = Field(None, max_length=MAX_ID_LENGTH, description="its one category")
    tags: list[Word] = Field([], max_length=MAX_LIST, description="what it is about")
    price: float | None = Field(
        None, ge=0, le=1e12, allow_inf_nan=False, description="in the catalogue's currency"
    )
    created_at_ms: int | None = Field(
        None, ge=-(10**14), le=10**14, description="when it came to be, in ms since 1970 UTC"
    )
    regions: list[Country] = Field(
        [],
        max_length=MAX_LIST,
        description="countries (ISO 3166-1 alpha-2) where it may be shown; empty: all",
    )
    maturity: int | None = Field(None, ge=0, le=99, description="least age in years; empty: for everyone")
    franchise: str | None = Field(None, max_length=MAX_ID_LENGTH, description="series that it belongs to")
    location: Location | None = Field(None, description="where it is")
    vectors: dict[Word, Annotated[list[Number], Field(min_length=1, max_length=MAX_DIM)]] = Field(
        {}, max_length=MAX_VECTORS, description="other models' vectors of it by name (image, audio, …)"
    )

    def encode(self) -> str:
        """The text that is kept: JSON without what is unknown; equal items give equal texts."""
        return json.dumps(
            self.model_dump(exclude_defaults=True), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )


class RejectedItem(NamedTuple):
    """A row that is no item: its position in the batch, its id where it has one, and why."""

    position: int
    item_id: str | None
    reason: str


def parse_items(rows: Iterable[Any]) -> tuple[dict[int, Item], list[RejectedItem]]:
    """The items among `rows` (as read from JSON) by their position, and the rows that are none.

    An `item_id` that stands twice in the batch is rejected at its second place.

    >>> items, rejected = parse_items([{"item_id": "a"}, {"item_id": "b", "price": -1}, {"item_id": "a"}])
    >>> list(items), [(r.position, r.reason) for r in rejected]
    ([0], [(1, 'price is -1: Input should be greater than or equal to 0'), (2, 'item_id stands already at row 0 of this batch')])
    """
    items: dict[int, Item] = {}
    rejected: list[RejectedItem] = []
    first_at: dict[str, int] = {}
    for position, row in enumerate(rows):
        found = _item(row)
        if isinstance(found, Item) and (first := first_at.setdefault(found.item_id, position)) != position:
            found = f"item_id stands already at row {first} of this batch"
        if isinstance(found, Item):
            items[position] = found
        else:
            rejected.append(RejectedItem(position, id_of(row, "item_id"), found))
    return items, rejected


def _item(row: Any) -> Item | str:
    """The item, or why the row is none."""
    if fault := shape_fault(row, Item.model_fields.keys(), "an item"):
        return fault
    try:
        item = Item.model_validate(row)
    except ValidationError as error:
        return value_fault(error)
    size = len(item.encode().encode())
    return (
        item if size <= MAX_ROW_BYTES else f"the item takes {size} bytes, at most {MAX_ROW_BYTES} are allowed"
    )


def table_of(rows: Mapping[str, str | None] | Sequence[tuple[str, str | None]]) -> pa.Table:
    """A table of `items_schema` with all details: what `Item.encode` gave by item id, None giving a bare item."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    return pa.Table.from_pylist([_columns(*pair) for pair in pairs], items_schema(ITEM_DETAILS.names))


def _columns(item_id: str, row: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row) if row else {}
    location = found.pop("location", None) or {}
    return {
        **found,
        Column.ITEM_ID: item_id,
        Column.TITLE: found.get(Column.TITLE) or item_id,
        Column.CATEGORY: found.get(Column.CATEGORY) or "",
        Column.TAGS: found.get(Column.TAGS, []),
        Column.REGIONS: [region.upper() for region in found.get(Column.REGIONS, [])] or None,
        Column.LATITUDE: location.get("lat"),
        Column.LONGITUDE: location.get("lon"),
        Column.VECTORS: list(found[Column.VECTORS].items()) if Column.VECTORS in found else None,
    }
