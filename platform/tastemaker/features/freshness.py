"""How old the rows of each view are."""

from typing import NamedTuple

from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.views import ENTITIES, VIEWS, Entity, views_of


class ViewAge(NamedTuple):
    """A view's number of rows, and the time since the newest event of the freshest and of the stalest of them."""

    view: str
    rows: int
    newest_seconds: float | None
    oldest_seconds: float | None


def view_ages(rows: FeastRows, now_ns: int) -> list[ViewAge]:
    """The age of each view's rows, by a scan of the whole server.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    times: dict[str, list[int]] = {view.name: [] for view in VIEWS}
    for entity in ENTITIES:
        for name, found in _times(rows, entity).items():
            times[name] = found
    return [
        ViewAge(
            name, len(found), _age(max(found, default=None), now_ns), _age(min(found, default=None), now_ns)
        )
        for name, found in times.items()
    ]


def _times(rows: FeastRows, entity: Entity) -> dict[str, list[int]]:
    """The times of all rows of an entity's views, those of none left out: it has seen no event."""
    views = views_of(entity)
    times: dict[str, list[int]] = {view.name: [] for view in views}
    for ids in rows.ids(entity):
        for found in rows.times_ns(entity, views, ids):
            for view, time in zip(views, found, strict=True):
                if time is not None:
                    times[view.name].append(time)
    return times


def _age(time_ns: int | None, now_ns: int) -> float | None:
    return None if time_ns is None else round((now_ns - time_ns) / 1e9, 3)
