"""What a bundle would have shown to logged requests: queries made of the decision log and of the events known at the time.

Not an exact replay of every answer (`tastemaker replay`): put items, profiles and what trended are as the bundle has them. How
many logged lists come out again under the bundle that made them is told (`parity`).

Shape letters: S lists.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from tastemaker.bundle.reader import Bundle
from tastemaker.errors import ExperimentError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.features.item_store import ItemFacts, ItemSnapshot, ItemStore
from tastemaker.features.known_events import state_events
from tastemaker.features.known_records import KnownRecords
from tastemaker.home import Home
from tastemaker.models.log import each_once
from tastemaker.offpolicy.logged_lists import LoggedLists
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.policy import policy_text
from tastemaker.stages.rerankers.luck import Draw
from tastemaker.terminal import progress
from tastemaker.types import Bool, Query
from tastemaker.users.archive import opted_out
from tastemaker.users.merged import read_merges

BLOCK: Final = 64
NUM_CHECKED: Final = 200


def tellable(home: Home, catalogue: str, logged: LoggedLists) -> LoggedLists:
    """The lists whose query can be made again here: without filters, of users who are themselves and may be known.

    Raises:
        ExperimentError: There is none.
    """
    merged = read_merges(home, catalogue).merges
    apart = merged.keys() | {merge.into_user for merge in merged.values()} | opted_out(home, catalogue)
    asked = [_asked(text) for text in logged.decisions["request"].to_pylist()]
    plain_S: Bool = np.array(
        [bool(one) and one.get("personalise", True) and not one.get("filters") for one in asked], bool
    )
    kept = logged.take(plain_S, "asked with filters or for no personal answer")
    free_S: Bool = np.array([user not in apart for user in kept.decisions["user_id"].to_pylist()], bool)
    kept = kept.take(free_S, "are of merged users or of those who opted out")
    if not len(kept):
        raise ExperimentError(
            "logged lists that can be made again", value=0, limit="at least 1", mend="name other days"
        )
    return kept


class Recomputing:
    """Answers the requests of logged lists anew.

    Args:
        home: Of the archive.
        catalogue: Whose.
        logged: See `tellable`.
        history_length: Newest items of a user that serving reads.
        late_days: See `events.batch.is_late`.
    """

    def __init__(
        self, home: Home, catalogue: str, logged: LoggedLists, history_length: int, late_days: int
    ) -> None:
        self._logged, self._history_length = logged, history_length
        self._rows: list[dict[str, Any]] = logged.decisions.to_pylist()
        until_ms = max(row["timestamp_ms"] for row in self._rows)
        before = pc.field("received_ms") < until_ms
        archived = read_days(home / "events" / catalogue, EVENT_SCHEMA, "event_id", before)
        self._events = state_events(home, catalogue, archived, late_days, before)

    def lists(self, bundle: Bundle, stages: dict[str, Any] | None, description: str) -> list[list[str]]:
        """The list that a bundle shows for each request, by its own stages or changed ones and without any luck."""
        text = policy_text(stages)
        every = range(len(self._rows))
        return self._answered(bundle, every, [text] * len(self._rows), description, explore=False)

    def parity(self, bundles: dict[str, Bundle], num_checked: int = NUM_CHECKED) -> tuple[int, int]:
        """Of how many logged lists, evenly taken, the bundle that made them makes the same again, luck and all.

        Args:
            bundles: By the name that decisions have; lists of others are not looked at.
            num_checked: At most.

        Returns:
            Lists that are the same, and lists that were looked at.
        """
        step = max(1, len(self._rows) // num_checked)
        some = [s for s in range(0, len(self._rows), step) if self._rows[s]["bundle"] in bundles]
        same = 0
        for name, bundle in bundles.items():
            mine = [s for s in some if self._rows[s]["bundle"] == name]
            policies = [self._rows[s]["policy"] or "" for s in mine]
            again = self._answered(bundle, mine, policies, "checking", explore=True)
            pairs = zip(mine, again, strict=True)
            same += sum(found[: len(self._logged.items[s])] == self._logged.items[s] for s, found in pairs)
        return same, len(some)

    def draws(self, bundles: dict[str, Bundle]) -> list[Draw | None]:
        """What luck had to choose from when each list was made; None where its bundle is not among `bundles`."""
        found: list[Draw | None] = [None] * len(self._rows)
        for name, bundle in bundles.items():
            mine = [s for s in range(len(self._rows)) if self._rows[s]["bundle"] == name]
            policies = [self._rows[s]["policy"] or "" for s in mine]
            for pipeline, block, queries in self._blocks(bundle, mine, policies, "drawing", explore=True):
                for s, draw in zip(block, pipeline.draws(queries), strict=True):
                    found[s] = draw
        return found

    def _answered(
        self, bundle: Bundle, rows: Sequence[int], policies: Sequence[str], description: str, *, explore: bool
    ) -> list[list[str]]:
        ids, found = bundle.item_ids, list[list[str]]()
        for pipeline, _, queries in self._blocks(bundle, rows, policies, description, explore=explore):
            found += [[ids[i] for i in answer.item_index] for answer in pipeline.recommend(queries)]
        return found

    def _blocks(
        self, bundle: Bundle, rows: Sequence[int], policies: Sequence[str], description: str, *, explore: bool
    ) -> Iterator[tuple[Pipeline, Sequence[int], list[Query]]]:
        """A bundle's pipeline with the rows and queries of one block after the other."""
        facts = ItemFacts.from_items(bundle.table("items.parquet"))
        known = KnownRecords(self._events, self._events["received_ms"].to_numpy(), facts)
        newest_ms = max((self._rows[s]["timestamp_ms"] for s in rows), default=0)
        pipeline = Pipeline.from_bundle(bundle, store_of=lambda own: _store_at(known, own, newest_ms))
        with progress(description, len(rows)) as advance:
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                queries = [
                    replace(
                        self._query(bundle, known, s), policy=policy,
                        explore=explore and self._rows[s]["origin"] == "live",
                    )
                    for policy, s in zip(policies[start : start + BLOCK], block, strict=True)
                ]  # fmt: skip
                yield pipeline, block, queries
                advance(len(block))

    def _query(self, bundle: Bundle, known: KnownRecords, s: int) -> Query:
        row = self._rows[s]
        asked, user_id, now_ms = _asked(row["request"]), row["user_id"], row["timestamp_ms"]

        def rows_of(ids: Sequence[str]) -> Any:
            found = [index for item in ids if (index := bundle.index_of(item)) is not None]
            return np.asarray(found, np.int32)

        past = known.history(user_id, now_ms, self._history_length)
        state = known.user(user_id, now_ms)
        session_L = each_once(rows_of(asked.get("session", ())))
        seen_L = each_once(np.concatenate([rows_of(past), session_L]))
        refused = [*asked.get("exclude", ()), *state.refused()]
        return Query(
            history_L=seen_L[-self._history_length :],
            k=row["k"] or len(row["item_ids"]),
            user_id=user_id,
            context=dict(row["context"] or ()),
            exclude=np.concatenate([rows_of(refused), seen_L[: -self._history_length]]),
            seed=row["seed"] or 0,
            now_ms=now_ms,
            visit_L=session_L,
            record=state.encode() if past else None,
        )


def _store_at(known: KnownRecords, facts: ItemFacts, moment_ms: int) -> ItemStore:
    """Items' counters as of the end of the log; within a day they move little."""
    rows = known.candidates(np.arange(len(facts), dtype=np.int32), moment_ms)
    store = ItemStore(facts)
    store.snapshot = ItemSnapshot(1, facts, rows.counters, rows.popularity)
    return store


def _asked(text: str | None) -> dict[str, Any]:
    """What a request asked; empty where it was not logged or is no JSON object."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
