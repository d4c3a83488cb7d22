"""A list of two variants' picks of a moment of the past: both variants' own lists made again, and drawn into one by the coins of then.

Each list is `remade`'s, by its bundle and policy; the draft is `gateway.interleaving`'s, as for an answer.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tastemaker.bundle.reader import Bundle
from tastemaker.config import Settings
from tastemaker.errors import DataError
from tastemaker.experiments.decision_log import Decision, logged_assignments
from tastemaker.experiments.interleaving import LoggedSide, draft_salt
from tastemaker.features.user_state import Category
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates
from tastemaker.users.profile import Profile
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.interleaving import drawn_into_one
from tastemaker_services.remade import Answer, OwnList, Remade


class RemadeDraft:
    """One decision's two queries and stages.

    Args:
        settings: Catalogue, length of histories.
        bundles: Of each team, in order.
        made: With `sides`.
        notes: Get what cannot be made as it was.
    """

    def __init__(
        self, settings: Settings, bundles: Sequence[Bundle], made: Decision, notes: list[str]
    ) -> None:
        self._made = made
        self._assignment = next(one for one in logged_assignments(made) if "teams" in one)
        self.teams: tuple[str, ...] = tuple(self._assignment["teams"])
        sides = [LoggedSide.of_logged(text) for text in made.sides]
        self._lists = [
            Remade(settings, bundle, replace(made, bundle=side.bundle, policy=side.policy), notes)
            for bundle, side in zip(bundles, sides, strict=True)
        ]

    def know(self, events: pa.Table, profile: Profile, changes: ItemChanges, category: Category) -> None:
        """See `Remade.know`."""
        for one in self._lists:
            one.know(events, profile, changes, category)

    @property
    def reads_trends(self) -> bool:
        """See `Remade.reads_trends`; of either."""
        return any(one.reads_trends for one in self._lists)

    def trend_as_read_early(self) -> None:
        """See `Remade.trend_as_read_early`."""
        for one in self._lists:
            one.trend_as_read_early()

    def answer(self) -> Answer:
        """Both lists, and the draft of them.

        Raises:
            DataError: Neither bundle knows all items of both lists any more.
        """
        made, own = self._made, [(one.face, one.slate()) for one in self._lists]
        salt = draft_salt(self._assignment["experiment"], self._assignment["generation"])
        found = drawn_into_one(own, made.k, salt, made.request_id)
        if found is None:
            raise DataError(
                f"the two lists of request {made.request_id} cannot be drawn into one: neither bundle knows all of their items now",
                mend="replay it where the items that were put since then are still there",
            )
        place, slate = found
        one = self._lists[place]
        named = (_named(team, *each) for team, each in zip(self.teams, own, strict=True))
        return Answer(one.face, one.allowed_under(made.policy, slate), tuple(named))

    def reasons(self) -> list[str]:
        """See `Remade.reasons`; of both."""
        return list(dict.fromkeys(reason for one in self._lists for reason in one.reasons()))


def _named(variant: str, face: BundleFace, slate: Candidates) -> OwnList:
    item_ids = tuple(face.item_ids[row] for row in slate.item_index.tolist())
    return OwnList(variant, face.bundle_id, item_ids, tuple(np.nan_to_num(slate.score).tolist()))
