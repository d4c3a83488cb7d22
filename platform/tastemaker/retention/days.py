"""Old days of events and decisions, and the rows that an import refused."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, Literal

import pyarrow.parquet as pq

from tastemaker.data.schema import REJECTS_SCHEMA, imported_folder
from tastemaker.errors import DataError
from tastemaker.events.archive import encode_part
from tastemaker.events.expiry import expired_parts
from tastemaker.experiments.holdout import HoldoutStore
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home, write_bytes
from tastemaker.retention.gone import DAY_SECONDS, Gone, Limits

if TYPE_CHECKING:
    import redis

    from tastemaker.state.keys import Keys

DayKind = Literal["event day", "decision day"]
FOLDERS: Final[Mapping[DayKind, str]] = {"event day": "events", "decision day": "decisions"}
_REJECTS: Final = "rejects.parquet"


def first_report_day(client: "redis.Redis", keys: "Keys") -> date | None:
    """The UTC day from which on reports read: what they read stays. None where there is nothing to report of.

    That is the day before the first change of any experiment that runs now, and before the holdout became what it is, where somebody
    is held out.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    store = ExperimentStore(client, keys)
    begun = [
        min([one.course.started_ms, *(change.at_ms for change in store.history(one.name))])
        for one in store.list()
        if one.state == "running"
    ]
    holdout = HoldoutStore(client, keys)
    if holdout.get().share > 0:
        begun.append(holdout.since_ms())
    return _day(max(0.0, min(begun) / 1000 - DAY_SECONDS)) if begun else None


def doomed_days(
    home: Home, catalogue: str, kind: DayKind, limits: Limits, first_of_reports: date | None
) -> list[Gone]:
    """Whole UTC days that are too old, oldest first; none unless `retention.event_days` or `decision_days` is set.

    Args:
        home: Of the archive.
        catalogue: Whose.
        kind: Which of both.
        limits: How many days are kept.
        first_of_reports: Days from then on stay.

    Raises:
        DataError: The archive's manifest cannot be read.
    """
    settings = limits.settings
    days = settings.event_days if kind == "event day" else settings.decision_days
    if days is None:
        return []
    first = min(_day(limits.since(days)), first_of_reports or date.max)
    sizes: dict[str, int] = {}
    for path in expired_parts(home / FOLDERS[kind] / catalogue, first):
        day = path.parent.name.removeprefix("day=")
        sizes[day] = sizes.get(day, 0) + (path.stat().st_size if path.exists() else 0)
    return [Gone(kind, day, f"over {days} days old", size) for day, size in sorted(sizes.items())]


def doomed_rejects(home: Home, catalogue: str, limits: Limits) -> Iterator[Gone]:
    """The rows that the newest import refused, where they are old; none unless `retention.reject_days` is set.

    Raises:
        DataError: Their file cannot be read.
    """
    days = limits.settings.reject_days
    path = imported_folder(home, catalogue) / _REJECTS
    if days is None or not path.is_file() or path.stat().st_mtime >= limits.since(days):
        return
    try:
        num_rows = pq.read_metadata(path).num_rows
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", value=str(error), mend="import again") from error
    if num_rows:
        why = f"{num_rows} rows, refused over {days} days ago"
        yield Gone("refused rows", str(path.relative_to(home.root)), why, path.stat().st_size)


def remove_rejects(home: Home, catalogue: str) -> bool:
    """Leaves a table without rows in their place; the import's summary goes on saying how many there were.

    Raises:
        UsageError: An import is under way.
    """
    with home.lock("import"):
        write_bytes(imported_folder(home, catalogue) / _REJECTS, encode_part(REJECTS_SCHEMA.empty_table()))
    return True


def _day(moment: float) -> date:
    return datetime.fromtimestamp(moment, UTC).date()
