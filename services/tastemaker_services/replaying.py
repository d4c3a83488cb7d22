"""Answers a logged request again, by the bundle, user and luck of its time, and compares slot by slot.

A list of two variants' picks is drawn again from both variants' own lists. The query is made of the decision's record and of the log of events as it was known then; the stages are those of the bundle
that answered, and the rungs those that were used. What cannot be made again is said: where answers differ, one of the
reasons that are listed is why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import pyarrow.compute as pc
import redis

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import BundleError, DataError, IntegrityError
from tastemaker.events.archive import read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA, Decision, decisions_in
from tastemaker.experiments.interleaving import NOBODYS, LoggedSide
from tastemaker.features.categories import Categories
from tastemaker.features.user_state import Category
from tastemaker.home import Home
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.keys import Keys
from tastemaker.types import Candidates
from tastemaker.users.profile import Profile
from tastemaker.users.profiles import read_parts
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.remade import Answer, OwnList, Remade, events_before
from tastemaker_services.remade_draft import RemadeDraft

SCORE_TOLERANCE: Final = 1e-4
"""Of a score, as a share of it: what is closer is the same."""


class Slot(NamedTuple):
    """One place of the list, as logged and as replayed; None where a list is shorter."""

    rank: int
    logged: str | None
    replayed: str | None
    logged_score: float | None
    replayed_score: float | None
    logged_sources: tuple[str, ...]
    replayed_sources: tuple[str, ...]
    logged_team: str | None = None
    """The variant whose pick it is, of a list of two variants' picks; None for nobody's."""
    replayed_team: str | None = None

    @property
    def is_same(self) -> bool:
        """Whether item, sources, team and, but for rounding, the score are those that were logged."""
        if (self.logged, self.logged_team) != (self.replayed, self.replayed_team):
            return False
        if self.logged_score is None or self.replayed_score is None:
            return False
        close = np.isclose(self.logged_score, self.replayed_score, rtol=SCORE_TOLERANCE, atol=1e-6)
        return bool(close) and self.logged_sources == self.replayed_sources


@dataclass(frozen=True, slots=True)
class Replay:
    """A logged answer and the same made again. `notes` say what could not be made as it was.

    Of an answer of two variants' picks `lists` are both variants' own lists, made again.
    """

    request_id: str
    bundle: str
    user_id: str
    rungs: tuple[str, ...]
    slots: list[Slot]
    notes: list[str] = field(default_factory=list)
    lists: tuple[OwnList, ...] = ()

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
        if made.slot_team and not made.sides:
            raise DataError(
                f"the log does not say what made the two variants' lists of request {made.request_id}",
                mend="replay one of this release or a newer one",
            )
        again = self._remade(made, notes)
        events = events_before(self._settings, self._home, made)
        again.know(events, self._profile(made), self._put_items(made, notes), self._categories())
        answer = again.answer()
        slots = _slots(answer, shown, made)
        if again.reads_trends and not _are_same(slots):
            again.trend_as_read_early()
            earlier = again.answer()
            if _are_same(found := _slots(earlier, shown, made)):
                answer, slots = earlier, found
        if not _are_same(slots):
            notes += again.reasons()
        notes = list(dict.fromkeys(notes))  # of two lists, both may have the same
        return Replay(request_id, made.bundle, made.user_id, tuple(made.rungs), slots, notes, answer.lists)

    def _remade(self, made: Decision, notes: list[str]) -> Remade | RemadeDraft:
        if not made.sides:
            return Remade(self._settings, self._bundle(made, made.bundle), made, notes)
        bundles = [self._bundle(made, LoggedSide.of_logged(text).bundle) for text in made.sides]
        return RemadeDraft(self._settings, bundles, made, notes)

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

    def _bundle(self, made: Decision, bundle_id: str) -> Bundle:
        uri = f"manifests/{self._keys.catalogue}/{bundle_id}.json"
        try:
            return Bundle.open(BundleStore.of(self._settings, self._home), uri)
        except IntegrityError as error:
            raise BundleError(
                f"bundle {bundle_id}, which answered request {made.request_id}, cannot be opened: {error}",
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


def _slots(answer: Answer, shown: Decision, made: Decision) -> list[Slot]:
    """What was shown beside what the stages give again."""
    face, slate = answer.face, answer.slate
    if shown is not made:  # what was left out since is left out of the comparison
        slate = slate.take(np.isin([face.item_ids[row] for row in slate.item_index], shown.item_ids))
    num_shown = len(shown.item_ids) if shown is made else max(len(shown.item_ids), len(slate))
    teams = tuple(one.variant for one in answer.lists)
    return list(_compared(face, shown, slate.take(range(min(num_shown, len(slate)))), teams))


def _are_same(slots: Sequence[Slot]) -> bool:
    return all(slot.is_same for slot in slots)


def _compared(face: BundleFace, shown: Decision, slate: Candidates, teams: Sequence[str]) -> Iterator[Slot]:
    replayed = [face.item_ids[row] for row in slate.item_index.tolist()]
    scores = np.nan_to_num(slate.score).tolist()
    logged_team = _named(shown.slot_team, teams, len(shown.item_ids))
    replayed_team = _named(() if slate.team is None else slate.team.tolist(), teams, len(replayed))
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
            logged_team[n] if was else None,
            replayed_team[n] if now else None,
        )


def _named(team_K: Sequence[int], teams: Sequence[str], length: int) -> list[str | None]:
    """The variant of each place; None for nobody's, and all along a list of one variant."""
    if not teams or not team_K:
        return [None] * length
    return [None if team == NOBODYS else teams[team] for team in team_K]
