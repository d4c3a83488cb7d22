"""The pages of a long list: the first with the list itself, the others by cursor. See `pages` for what is kept.

Every page is an answer and a decision of its own, with a request_id that its events name; its record says where in the list
it begins and, as `cached_from`, which request the list was made for.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from tastemaker.errors import StateError
from tastemaker.types import Candidates, Origin
from tastemaker_services.gateway.answers import fits_of, items_of
from tastemaker_services.gateway.assigning import OUTSIDE
from tastemaker_services.gateway.pages import PagedList, Pages, Place, rules_of
from tastemaker_services.gateway.queries import Question
from tastemaker_services.gateway.questions import Questions
from tastemaker_services.gateway.records import Records, body_of
from tastemaker_services.gateway.run import Run
from tastemaker_services.web.problems import Problem, invalid
from tastemaker_services.web.schema import RecommendationRequest

_WITH_A_CURSOR: Final = frozenset({"user_id", "k", "cursor", "deadline_ms", "priority"})
ANEW: Final = "ask anew with paged and without cursor"


@dataclass(frozen=True, slots=True)
class Paging:
    """Makes pages. For one event loop.

    Args:
        pages: Where lists are kept; None where paging is off.
        most_items: Of a list.
        questions: Reads who asks for a page, and pins what answers.
        records: Gets a record of every page.
    """

    pages: Pages | None
    most_items: int
    questions: Questions
    records: Records

    def whole(self, request: RecommendationRequest) -> RecommendationRequest:
        """The request for the whole list whose first page is asked for; any other as it is.

        Raises:
            Problem: 422 where it contradicts itself, or paging is off.
        """
        if (request.paged or request.cursor is not None) and self.pages is None:
            field = "paged" if request.cursor is None else "cursor"
            raise invalid(field, f"{field} is given, and paging is off (cache.page_seconds): leave it out")
        if request.cursor is not None and (more := request.model_fields_set - _WITH_A_CURSOR):
            field = sorted(more)[0]
            raise invalid(field, f"{field} is given, and a cursor says it already: leave it out")
        return request.model_copy(update={"k": max(request.k, self.most_items)}) if request.paged else request

    async def first(
        self,
        run: Run,
        question: Question,
        request: RecommendationRequest,
        num_shown: int,
        slate: Candidates,
        reason: str,
    ) -> str | None:
        """Keeps a list; gives the cursor to what comes after the first `num_shown`, None where it could not be kept."""
        assert self.pages is not None, "refused before"
        face, is_personal = question.pin.face, question.user is None or question.user.profile.personalise
        paged = PagedList(
            run.request_id,
            question.query.now_ms,
            (face.bundle_id, question.pin.version),
            rules_of(request),
            is_personal,
            items_of(
                face, slate, reason, is_personal=is_personal, fits=fits_of(question.query, question.user)
            ),
            slate.source_mask.tolist(),
            question.assigned,
            () if slate.team is None else slate.team.tolist(),
        )
        try:
            name = await run.within("rerank", self.pages.keep(request.user_id, paged))
        except StateError:
            run.fall_to("no-cursor")
            return None
        return Place(name, num_shown).cursor()

    async def next(self, run: Run, request: RecommendationRequest, origin: Origin) -> dict[str, Any]:
        """The body with the items from the request's cursor on.

        Raises:
            Problem: 422 for what is no cursor, 410 for one whose list is gone or another user's, 409 where it cannot be read.
        """
        now_ms = time.time_ns() // 1_000_000
        place, paged = await self._found(run, request, now_ms)
        pin, _ = self.questions.pinned(run, OUTSIDE)
        user = await self.questions.reader(run, request.user_id, paged.is_personal)
        asked = paged.asked(request.user_id, request.k)
        query = self.questions.query(run, asked, user, pin.face, now_ms=now_ms, origin=origin)
        question = Question(user, paged.assigned, pin, query)
        page = paged.page(pin.face, query, place.offset)
        run.cached_from = paged.request_id
        run.end()
        bundle_id, version = paged.bundle
        self.records.put(
            run, question, asked, page.slate, origin, bundle=bundle_id, first_position=place.offset
        )
        more = None if page.next_offset is None else place._replace(offset=page.next_offset).cursor()
        body = body_of(run, pin, page.items, paged.assigned)
        return body | {"bundle": bundle_id, "bundle_version": version, "next_cursor": more}

    async def _found(self, run: Run, request: RecommendationRequest, now_ms: int) -> tuple[Place, PagedList]:
        assert self.pages is not None, "refused before"
        place = Place.of(request.cursor or "")
        if place is None:
            shown = (request.cursor or "")[:60]
            raise invalid("cursor", f"cursor is {shown!r}, which no answer gave: send next_cursor as it came")
        try:
            paged = await run.within("history", self.pages.get(request.user_id, place.name, now_ms))
        except StateError as error:
            detail = "the cursor's list cannot be read now: send the request again"
            raise Problem(409, "page-unread", detail, field="cursor", headers={"retry-after": "1"}) from error
        if paged is None or place.offset > len(paged.items):
            detail = f"the cursor's list is over, or was made for another user: {ANEW}"
            raise Problem(410, "cursor-expired", detail, field="cursor")
        return place, paged
