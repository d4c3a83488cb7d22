"""What was answered lately, seen from one request: may it be answered again, and what is kept of this answer."""

from dataclasses import dataclass
from functools import partial

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.types import Candidates, Origin, Query
from tastemaker_services.gateway.breakers import Breakers
from tastemaker_services.gateway.cache import Kept, Lists, question_of, version_of
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.queries import Question
from tastemaker_services.gateway.run import Run
from tastemaker_services.web.schema import RecommendationRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer is kept under; `version` is None where the user could not be read."""

    question: bytes
    version: bytes | None


@dataclass(frozen=True, slots=True)
class Found:
    """A request as asked, and the list that was kept for it; both None where nothing is to be kept.

    Without `is_personal` no list that was made before, by whomever, may answer: the user opted out.
    """

    asked: Asked | None = None
    kept: Kept | None = None
    is_personal: bool = True

    def again(self, run: Run, face: BundleFace, query: Query) -> Candidates | None:
        """The kept list, where it is of this very version of the user and the hard rules still leave all of it.

        An empty one says nothing of now: an item that fits may have been put since.
        """
        if self.kept is None or self.asked is None or self.kept.version != self.asked.version:
            return None
        slate = face.finish(query, self.kept.slate)
        if not len(slate) or len(slate) < len(self.kept.slate):  # an item of it was deleted since
            return None
        run.cached_from = self.kept.request_id
        return slate

    def rung(self, run: Run, face: BundleFace, query: Query) -> Candidates | None:
        """The kept list of any version, in place of stages that do not answer; None where the rules leave nothing."""
        if self.kept is None or not len(slate := face.finish(query, self.kept.slate)):
            return None
        run.fall_to("cached")
        run.cached_from = self.kept.request_id
        return slate


class Lately:
    """Reads and keeps lists, where there is anywhere to keep them.

    Args:
        lists: Where; None where nothing is kept.
        catalogue: For the counts.
        breakers: Of the parts; a cache that does not answer is not waited for by every request.
    """

    def __init__(self, lists: Lists | None, catalogue: str, breakers: Breakers) -> None:
        self._lists, self._catalogue, self._breakers = lists, catalogue, breakers

    async def find(
        self,
        run: Run,
        request: RecommendationRequest,
        question: Question,
        origin: Origin,
    ) -> Found:
        """What was kept for a request.

        Nothing is for users who opted out, for simulated and replayed requests, which are there to measure the stages, nor for explained ones,
        whose sources' scores are not kept.
        """
        user, query = question.user, question.query
        if user is not None and not user.profile.personalise:
            return Found(is_personal=False)
        if self._lists is None or origin != "live" or request.explain:
            return Found()
        version = version_of(user.version, request) if user else None
        asked = Asked(question_of(request, question), version)
        num_sources = len(question.pin.face.source_names)
        read = partial(self._lists.get, query.user_id, asked.question, num_sources, query.now_ms)
        try:
            seconds, fair = run.left_seconds("history"), run.fair_seconds("history")
            kept = await self._breakers.read("cache", read, seconds, fair)
        except StateError:
            self._count("unread")
            return Found(asked)
        self._count("miss" if kept is None else "hit" if kept.version == asked.version else "outdated")
        return Found(asked, kept)

    def keep(self, run: Run, query: Query, asked: Asked | None, slate: Candidates) -> None:
        """Keeps an answer that has items, unless a fallback had a part in it."""
        if self._lists is None or asked is None or asked.version is None:
            return
        if len(slate) and not run.degraded:
            kept = Kept(asked.version, run.request_id, query.now_ms, slate)
            self._lists.keep(query.user_id, asked.question, kept)

    def _count(self, outcome: str) -> None:
        telemetry.CACHE.labels(self._catalogue, outcome).inc()
