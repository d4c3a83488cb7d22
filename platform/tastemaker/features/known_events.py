"""The events of which users' records and items' counters are made: imported ones, and archived ones that came in time."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.imported_events import imported_events
from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.features.replay import touching
from tastemaker.home import Home


def state_events(
    home: Home, catalogue: str, archived: pa.Table, late_days: int, some: pc.Expression | None = None
) -> pa.Table:
    """The events that touch state, with `EVENT_SCHEMA`, each once.

    Args:
        home: Of the imported rows.
        catalogue: Whose they are.
        archived: Rows of the archive, each once.
        late_days: See `events.batch.is_late`.
        some: Keeps only events for which this holds.

    Raises:
        DataError: The imported rows cannot be read.
    """
    parts = [
        EVENT_SCHEMA.empty_table(),
        *imported_events(home, catalogue),
        archived.filter(touching(late_days)),
    ]
    return pa.concat_tables([part if some is None else part.filter(some) for part in parts])


def concerning(user_ids: Sequence[str], item_ids: Sequence[str]) -> pc.Expression:
    """Events of some users, and those of some items."""
    users: Any = pc.field("user_id").isin(list(user_ids))
    found: pc.Expression = users | pc.field("item_id").isin(list(item_ids))
    return found
