"""Two variants' lists for one request, made side by side and drawn into one. The draft itself is `experiments.interleaving`'s.

Where one of them comes by a fallback or not at all, the other is shown alone and the answer is outside of the experiment: it says
nothing about the two. An item's place is credited to the variant that picked it, but for items that people pinned to a place
and those that are shown to learn of them: they are nobody's. Where bundles differ, the list is in the rows of one that knows
all of its items.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from tastemaker import telemetry
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.interleaving import NOBODYS, draft_salt, team_draft
from tastemaker.registry.live import CHAMPION
from tastemaker.stages.because import NOTHING
from tastemaker.stages.overlay import FRESH, PINNED
from tastemaker.stages.policy import policy_of
from tastemaker.types import Candidates, Int32, Query
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.ladder import Ladder
from tastemaker_services.gateway.lately import Found
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.policies import policy_for
from tastemaker_services.gateway.queries import Question, Side
from tastemaker_services.gateway.run import Run

NOT_INTERLEAVED: Final = "not-interleaved"
"""Rung: the list of one of two variants alone."""


def sides_of(
    run: Run,
    catalogue: str,
    assigned: Assigned,
    pin_of: Callable[[str], Pin | None],
    ask: Callable[[Pin, str], Query],
) -> tuple[Side, ...]:
    """What both variants of an interleaving answer from.

    Empty where a bundle is not ready or the request may not use all stages: its answer is then outside of the experiment.

    Args:
        run: The request.
        catalogue: For the counts.
        assigned: With an interleaving.
        pin_of: The bundle of an alias.
        ask: The request's query for a bundle and the text of a policy.
    """
    teams = [assigned.of_team(team) for team in (0, 1)]
    pins = [pin for one in teams if (pin := pin_of(one.alias or CHAMPION)) is not None]
    if not run.is_free or len(pins) < len(teams):
        _note_failed(run, catalogue)
        return ()
    common, found = policy_for(run, assigned.without_interleaving()), []
    for one, pin in zip(teams, pins, strict=True):
        plain, policy = ask(pin, common), policy_for(run, one)
        found.append(Side(pin, plain if policy == common else ask(pin, policy), plain))
    return tuple(found)


def _note_failed(run: Run, catalogue: str) -> None:
    run.fall_to(NOT_INTERLEAVED)
    telemetry.NOT_COUNTED.labels(catalogue, "interleaving").inc()


async def interleaved(
    ladder: Ladder, catalogue: str, run: Run, question: Question, found: Found
) -> tuple[Question, Candidates]:
    """The slate of both sides' picks, or of one alone, and the question that it answers.

    Both lists have the request's deadline. Neither looks at what was answered lately, which was both's.
    """
    alone = Found(is_personal=found.is_personal)
    runs = [run.beside() for _ in question.sides]
    slates = await asyncio.gather(
        *(
            ladder.answer(own, side.pin.face, side.query, policy_of(side.query.policy).until, alone)
            for own, side in zip(runs, question.sides, strict=True)
        )
    )
    if not any(own.degraded for own in runs):
        found_both = _drafted(question, slates, run.request_id)
        if found_both is not None:
            for own in runs:
                run.take(own)
            sides = [
                side._replace(slate=slate, seen=own.seen)
                for side, slate, own in zip(question.sides, slates, runs, strict=True)
            ]
            return found_both[0]._replace(sides=tuple(sides)), found_both[1]
    whole = next((team for team, own in enumerate(runs) if not own.degraded), 0)
    run.take(runs[whole])
    _note_failed(run, catalogue)
    return _alone(question, whole), slates[whole]


def _alone(question: Question, team: int) -> Question:
    side = question.sides[team]
    outside = question.assigned.without_interleaving()
    return question._replace(assigned=outside, pin=side.pin, query=side.query, sides=())


def _drafted(
    question: Question, slates: list[Candidates], request_id: str
) -> tuple[Question, Candidates] | None:
    """Both slates in one, and the question in the rows of a bundle that knows all of its items; None where neither does."""
    assignment = question.assigned.interleaved
    assert assignment is not None
    lists = [(side.pin.face, slate) for side, slate in zip(question.sides, slates, strict=True)]
    salt = draft_salt(assignment.experiment, assignment.generation)
    found = drawn_into_one(lists, question.sides[0].plain.k, salt, request_id)
    if found is None:
        return None
    place, slate = found
    side = question.sides[place]
    return question._replace(pin=side.pin, query=side.plain), side.pin.face.finish(side.plain, slate)


def drawn_into_one(
    lists: Sequence[tuple[BundleFace, Candidates]], k: int, salt: str, request_id: str
) -> tuple[int, Candidates] | None:
    """The draft of two variants' own lists, and the place of the one whose bundle's rows it is in; None where neither knows all items.

    Args:
        lists: Of each team its bundle and its slate.
        k: Length of the draft.
        salt: See `draft_salt`.
        request_id: Decides the coins.
    """
    for place, (face, _) in enumerate(lists):
        first, second = (in_rows_of(face, own, slate) for own, slate in lists)
        if first is not None and second is not None:
            return place, drafted(face, first, second, k, salt, request_id)
    return None


def drafted(
    face: BundleFace, first: Candidates, second: Candidates, k: int, salt: str, request_id: str
) -> Candidates:
    """Two slates in one bundle's rows as one, with the team of each place; every item has the score that its own ranker gave it."""
    names = face.source_names
    fresh_bit, pinned_bit = (np.uint32(1 << names_with(names).index(name)) for name in (FRESH, PINNED))
    both = _together(first, second)
    pinned = set(both.item_index[(both.source_mask & pinned_bit) > 0].tolist())
    fresh = set(both.item_index[both.source_mask == fresh_bit].tolist())
    rows = first.item_index.tolist(), second.item_index.tolist()
    fixed = {
        place: a
        for place, (a, b) in enumerate(zip(*rows, strict=False))
        if a == b and a in pinned and place < k
    }
    draft = team_draft(*rows, k, salt, request_id, nobodys=fresh, fixed=fixed)
    own_place = (
        {row: n for n, row in enumerate(rows[0])},
        {row: n + len(first) for n, row in enumerate(rows[1])},
    )
    places = [
        own_place[team][row] if team is not None else own_place[0].get(row, own_place[1].get(row, 0))
        for row, team in zip(draft.items, draft.team, strict=True)
    ]
    team_K = np.array([NOBODYS if team is None else team for team in draft.team], np.int8)
    return replace(both.take(places), team=team_K)


def names_with(source_names: Sequence[str]) -> tuple[str, ...]:
    """What the bits of a source mask stand for, in order."""
    return (*source_names, FRESH, PINNED)


def in_rows_of(face: BundleFace, own: BundleFace, slate: Candidates) -> Candidates | None:
    """A slate of the bundle of `own` in the rows and by the sources of `face`, without features; None where that lacks an item."""
    if face is own:
        return slate
    rows = [face.row_of(own.item_ids[row]) for row in slate.item_index.tolist()]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return None
    theirs, ours = names_with(own.source_names), names_with(face.source_names)
    mask_K = np.zeros(len(slate), np.uint32)
    score_KS = np.full((len(slate), len(face.source_names)), np.nan, np.float32)
    for bit, name in enumerate(theirs):
        if name in ours:
            to = ours.index(name)
            mask_K |= (slate.source_mask >> np.uint32(bit) & np.uint32(1)) << np.uint32(to)
            if bit < len(own.source_names) and to < len(face.source_names):
                score_KS[:, to] = slate.source_score_KS[:, bit]
    return Candidates(
        np.array(known, np.int32), slate.score, mask_K, score_KS, because=_named(face, own, slate)
    )


def _named(face: BundleFace, own: BundleFace, slate: Candidates) -> Int32 | None:
    if slate.because is None:
        return None
    named = [None if row == NOTHING else face.row_of(own.item_ids[row]) for row in slate.because.tolist()]
    return np.array([NOTHING if row is None else row for row in named], np.int32)


def _together(first: Candidates, second: Candidates) -> Candidates:
    """Both one behind the other, without features and propensities: no one draw made the list that they end up in."""
    named = [
        np.full(len(one), NOTHING, np.int32) if one.because is None else one.because
        for one in (first, second)
    ]
    return replace(first.and_then(second), because=np.concatenate(named))
