"""Answers a logged request again, by the bundle, user and luck of its time, and compares slot by slot.

The query is made of the decision's record and of the log of events as it was known then; the stages are those of the bundle
that answered, and the rungs those that were used. What cannot be made again is said: where answers differ, one of the
reasons that are listed is why.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import pyarrow.compute as pc
import redis

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import BundleError, DataError, IntegrityError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA, Decision, decisions_in
from tastemaker.features.categories import Categories
from tastemaker.features.item_store import ItemFacts, ItemSnapshot, ItemStore
from tastemaker.features.known_events import state_events
from tastemaker.features.known_records import KnownRecords
from tastemaker.features.trending import TRENDING
from tastemaker.features.user_state import Category
from tastemaker.home import Home
from tastemaker.stages.exploring import explores
from tastemaker.stages.live import LiveStages
from tastemaker.stages.policy import policy_of
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates, Query
from tastemaker.users.profile import Profile
from tastemaker.users.profiles import read_parts
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.gateway.gateway import NOT_PERSONALISED
from tastemaker_services.gateway.pages import NOBODY
from tastemaker_services.gateway.queries import query_of
from tastemaker_services.gateway.users import User, past_hash
from tastemaker_services.web.schema import RecommendationRequest

SCORE_TOLERANCE: Final = 1e-4
"""Of a score, as a share of it: what is closer is the same."""
_MOST_MOMENTS: Final = 200
_LOWEST: Final = frozenset({"trending", "popular"})


class Slot(NamedTuple):
    """One place of the list, as logged and as replayed; None where a list is shorter."""

    rank: int
    logged: str | None
    replayed: str | None
    logged_score: float | None
    replayed_score: float | None
    logged_sources: tuple[str, ...]
    replayed_sources: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether item, sources and, but for rounding, the score are those that were logged."""
        if self.logged != self.replayed or self.logged_score is None or self.replayed_score is None:
            return False
        close = np.isclose(self.logged_score, self.replayed_score, rtol=SCORE_TOLERANCE, atol=1e-6)
        return bool(close) and self.logged_sources == self.replayed_sources


@dataclass(frozen=True, slots=True)
class Replay:
    """A logged answer and the same made again. `notes` say what could not be made as it was."""

    request_id: str
    bundle: str
    user_id: str
    rungs: tuple[str, ...]
    slots: list[Slot]
    notes: list[str] = field(default_factory=list)

    @property
    def differing(self) -> list[Slot]:
        """Places that are not as logged."""
        return [slot for slot in self.slots if not slot.is_same]


class Replayer:
    """Replays decisions of one catalogue.

    Args:
        settings: Catalogue, bundles, length of histories.
        home: Of the archive.
        client: Of the role `state.url`: put items and profiles are read as they are now.
        keys: Of the catalogue.
    """

    def __init__(self, settings: Settings, home: Home, client: redis.Redis, keys: Keys) -> None:
        self._settings, self._home, self._client, self._keys = settings, home, client, keys

    def replay(self, request_id: str) -> Replay:
        """The answer to a request, made again.

        Raises:
            DataError: The request is not in the decision log, or was logged by a release that did not log enough.
            BundleError: The bundle that answered is not there any more.
        """
        shown = self._decision(request_id)
        notes: list[str] = []
        made = shown
        while made.cached_from is not None:
            notes = [f"the list was made for request {made.cached_from}, which is what is replayed"]
            made = self._decision(made.cached_from)
        if not made.request:
            raise DataError(f"what request {made.request_id} asked was not logged", mend="replay a newer one")
        bundle = self._bundle(made)
        again = _Again(self._settings, bundle, made, notes)
        again.know(self._home, self._profile(made), self._put_items(made, notes), self._categories())
        slate = again.slate()
        if shown is not made:  # what was left out since is left out of the comparison
            slate = slate.take(
                np.isin([again.face.item_ids[row] for row in slate.item_index], shown.item_ids)
            )
        num_shown = len(shown.item_ids) if shown is made else max(len(shown.item_ids), len(slate))
        slots = list(_compared(again.face, shown, slate.take(range(min(num_shown, len(slate))))))
        if any(not slot.is_same for slot in slots):
            notes += again.reasons()
        return Replay(request_id, made.bundle, made.user_id, tuple(made.rungs), slots, notes)

    def _decision(self, request_id: str) -> Decision:
        where = pc.field("request_id") == request_id
        found = read_days(
            self._home / "decisions" / self._keys.catalogue, DECISION_SCHEMA, "decision_id", where
        )
        if not len(found):
            raise DataError(
                f"request {request_id} is not in the decision log of catalogue {self._keys.catalogue}",
                mend="give the request_id of an answer; the stream consumer writes it within seconds",
            )
        return decisions_in(found)[0]

    def _bundle(self, made: Decision) -> Bundle:
        uri = f"manifests/{self._keys.catalogue}/{made.bundle}.json"
        try:
            return Bundle.open(BundleStore.of(self._settings, self._home), uri)
        except IntegrityError as error:
            raise BundleError(
                f"bundle {made.bundle}, which answered request {made.request_id}, cannot be opened: {error}",
                mend="bring its files back into the bundle store",
            ) from error

    def _categories(self) -> Category:
        """As the stream consumer has them."""
        found = Categories(self._home, self._client, self._keys)
        found.refresh()
        return found

    def _profile(self, made: Decision) -> Profile:
        return Profile.decode(read_parts(self._client, self._keys, [made.user_id])[made.user_id])

    def _put_items(self, made: Decision, notes: list[str]) -> ItemChanges:
        changes = PutItems(self._client, self._keys).poll()
        now = f"{changes.lineage}:{changes.epoch}" if changes.lineage else ""
        if now != made.catalogue_epoch:
            notes.append("items were put or deleted since: they are as they are now")
        return changes


class _Again:
    """One decision's query and stages."""

    def __init__(self, settings: Settings, bundle: Bundle, made: Decision, notes: list[str]) -> None:
        self._settings, self._bundle, self._made, self._notes = settings, bundle, made, notes
        self._published = BundleFace.of(bundle)
        self.face = self._published

    def know(self, home: Home, profile: Profile, changes: ItemChanges, category: Category) -> None:
        """Makes user, items and stages of what was known at the moment of the decision."""
        made, state = self._made, self._settings.state
        catalogue, moment = made.catalogue, made.timestamp_ms
        facts = ItemFacts.from_items(self._bundle.table("items.parquet"))
        before = pc.field("received_ms") < moment
        archived = read_days(home / "events" / catalogue, EVENT_SCHEMA, "event_id", before)
        events = state_events(home, catalogue, archived, state.late_days, before)
        known = KnownRecords(events, events["received_ms"].to_numpy(), facts, category=category)
        self._live = LiveStages(self._bundle, store_of=lambda own: _store_at(known, own, moment))
        face = LiveFace(self._published)
        if changes:
            self._live.take(changes)
            face.take(changes)
        self.face = face.face
        self._query = self._query_of(self._user(known, profile))

    def _user(self, known: KnownRecords, profile: Profile) -> User:
        """The user whose past is the one that was read: as of the answer, or of a moment before it that has the hash."""
        made, length = self._made, self._settings.state.history_length
        if not made.past_hash:
            return User([], known.user("", 0), b"", b"", profile)
        ends = made.timestamp_ms
        moments = [ends, *reversed(known.changes(made.user_id, 0, ends)[-_MOST_MOMENTS:])]
        newest: User | None = None
        for moment in moments:
            state = known.user(made.user_id, moment)
            history = known.history(made.user_id, moment, length)
            user = User(history, state, b"", state.encode(), profile)
            if past_hash(user) == made.past_hash:
                return user
            newest = newest or user
        assert newest is not None, "there is one moment at least"
        self._notes.append(
            "the user's past is not exactly the one that was read: it is made of the log as it was known then"
        )
        return newest

    def _query_of(self, user: User) -> Query:
        made = self._made
        asked = RecommendationRequest.model_validate_json(made.request)
        request = asked.model_copy(update={"user_id": made.user_id, "k": made.k})
        reader: User | None = user if request.personalise else NOT_PERSONALISED
        if "no-history" in made.rungs:
            reader = None
        elif "no-record" in made.rungs:
            reader = user._replace(state=None, record=b"")
        query = query_of(
            request, reader, self.face, made.catalogue, history_length=self._settings.state.history_length,
            now_ms=made.timestamp_ms, policy=made.policy,
        )  # fmt: skip
        assert request.user_id != NOBODY or made.user_id == NOBODY, "the request is its user's"
        luck = replace(query, seed=made.seed, explore=made.origin == "live")
        return replace(luck, long_term_only="base-vector" in made.rungs)

    def slate(self) -> Candidates:
        """The list by the rungs that were used."""
        rungs, query, pipeline = {*self._made.rungs}, self._query, self._live.pipeline
        if rungs & _LOWEST:
            return self.face.trending(query) if "trending" in rungs else self.face.popular(query)
        until = policy_of(query.policy).until
        (found,) = pipeline.retrieve([query])
        if "retrieval-order" not in rungs and until != "retrieve":
            (found,) = pipeline.rank([query], [found])
            if "no-rerank" not in rungs and until != "rank":
                (found,) = pipeline.rerank([query], [found])
        return self.face.finish(query, found)

    def reasons(self) -> list[str]:
        """Why the answers may differ."""
        found = []
        config = self._live.pipeline.config
        if TRENDING in self._live.pipeline.source_names or {*self._made.rungs} & _LOWEST:
            found.append("what trended at that moment is not kept: what the bundle knows stands for it")
        if config.hydration.request_features:
            found.append("items' counters were read from totals that may be some seconds older than the log")
        if self._made.cached_from is not None or "cached" in self._made.rungs:
            found.append("the list was kept, or computed ahead")
        if explores(self._query, config.exploration):
            found.append("which new item got its slot went by how often those had been shown and clicked")
        if "no-source" in self._made.rungs:
            found.append("a source did not answer in time")
        return [*found, "stages of another release of Tastemaker may answer otherwise"]


def _store_at(known: KnownRecords, facts: ItemFacts, moment_ms: int) -> ItemStore:
    """The items' rows by what was known of them at a moment."""
    rows = known.candidates(np.arange(len(facts), dtype=np.int32), moment_ms)
    store = ItemStore(facts)
    store.snapshot = ItemSnapshot(1, facts, rows.counters, rows.popularity)
    return store


def _compared(face: BundleFace, shown: Decision, slate: Candidates) -> Iterator[Slot]:
    replayed = [face.item_ids[row] for row in slate.item_index.tolist()]
    scores = np.nan_to_num(slate.score).tolist()
    for n in range(max(len(shown.item_ids), len(replayed))):
        was, now = n < len(shown.item_ids), n < len(replayed)
        yield Slot(
            shown.first_position + n + 1,
            shown.item_ids[n] if was else None,
            replayed[n] if now else None,
            shown.scores[n] if was else None,
            scores[n] if now else None,
            tuple(face.sources_of(shown.source_masks[n])) if was else (),
            tuple(face.sources_of(int(slate.source_mask[n]))) if now else (),
        )
