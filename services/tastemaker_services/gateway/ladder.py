"""What a request gets where not every part answers in time: the stages' answer, or the next rung's.

A stage that fails, is late, or did so too often lately (`breakers`) is replaced by the next rung: no rerank -> retrieval order ->
the long-term vector in place of the session's -> the list answered last, or else the one computed ahead -> what trends in the
context -> what is popular there by the bundle. Under load (`shedding`) and by the kill switch (`forcing`) a request starts at a rung.
Whatever a rung gives passes the hard filter.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.answers import unsourced
from tastemaker_services.gateway.breakers import OWN_LATENESS, Breakers, State
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.lately import Found
from tastemaker_services.gateway.run import Run
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.replicas.through import Through

NO_SHARD: Final = "no-shard"
"""A part of the catalogue was not searched: its retriever did not answer."""
WAIT: Final = "wait"
"""Among a fused gateway's timings: until one of its threads took the request."""
_ORDER: Final = ("retrieve", "rank", "rerank")


class Call(Protocol):
    """One call to a stage: `calls.StageCalls` in practice."""

    def __call__(self, call: Any, timeout_seconds: float) -> Awaitable[Any]:
        """The stage's answer; StageError where there is none in time."""
        ...


async def _absent(call: Any, timeout_seconds: float) -> Any:
    del call, timeout_seconds
    raise StageError("this graph has no such stage")


@dataclass(frozen=True, slots=True)
class Stages:
    """The graph behind the gateway. A call is (manifest hash, query) and, after retrieval, candidates.

    Beside the stages of an answer stand calls for other questions, see `replicas`; a graph without them does not answer those.
    """

    retrieve: Call
    rank: Call
    rerank: Call
    similar: Call
    search: Call = _absent
    say: Call = _absent
    contributions: Call = _absent
    reorder: Call = _absent
    through: Through | None = None
    """Retrieval, ranking and reranking without a way back between them, where the graph can; else each is called."""


class Ladder:
    """Climbs down for one request at a time. For one event loop.

    Args:
        stages: The graph.
        read_stored: A user's list that was computed ahead; StateError where it cannot be read.
        catalogue: For the counts.
        breakers: Of the parts.
    """

    def __init__(
        self,
        stages: Stages,
        read_stored: Callable[[str], Awaitable[StoredList | None]],
        catalogue: str,
        breakers: Breakers,
    ) -> None:
        self._stages, self._read_stored, self._catalogue = stages, read_stored, catalogue
        self._breakers = breakers

    async def answer(self, run: Run, face: BundleFace, query: Query, until: str, found: Found) -> Candidates:
        """The slate by the stages up to and with `until`, or by the best rung that answers.

        Where the hard rules leave nothing, nothing is the answer, by no rung: nobody is asked.
        """
        if face.nothing_fits(query):
            return Candidates.empty(len(face.source_names))
        best = await self._ladder(run, face, query, until, found)
        if unknown := len(best) - len(face.overlay.known(best)):
            telemetry.UNKNOWN_ROWS.labels(self._catalogue).inc(unknown)
        slate = face.finish(query, best)
        if len(slate) or {"trending", "popular"} & {*run.degraded}:
            return slate
        return self.trending(run, face, query)

    def trending(self, run: Run, face: BundleFace, query: Query) -> Candidates:
        """The lowest rungs, which need no stage: what trends, or where nothing is known of that, what is popular."""
        if face.knows_trends() and not run.starts_at("popular"):
            run.fall_to("trending")
            return face.trending(query)
        run.fall_to("popular")
        return face.popular(query)

    async def ask(self, run: Run, clock: str, part: str, stage: Call, call: Any) -> Any:
        """A stage's answer to `call`.

        Args:
            run: The request.
            clock: Whose share of the deadline it has.
            part: Behind whose breaker it stands.
            stage: What answers.
            call: What is asked.

        Raises:
            StageError: It fails or is late, did so too often lately, or the request may not use stages.
        """
        seconds = run.left_seconds(clock)
        if seconds <= 0:
            raise StageError("no time is left for the stage")
        if run.starts_at("cached"):
            raise StageError("the request may use no stage")
        breaker = self._breakers[part]
        if not breaker.allows():
            raise StageError(f"{part} is not tried for the moment: it did not answer")
        try:
            answer = await stage(call, seconds)
        except StageError:
            if run.left_seconds(clock) > 0 or _is_to_blame(run, clock, seconds):
                breaker.failed()
            raise
        breaker.succeeded()
        return answer

    async def _go_ahead(self, run: Run, face: BundleFace, query: Query, until: str) -> None:
        """Asks all stages up to `until` at once, where the graph can and nothing speaks against any of them.

        What they give lies in `run.ahead` for the ladder.
        """
        part_of = {
            "retrieve": "session" if _has_session(query) else "retrieve",
            "rank": "rank",
            "rerank": "rerank",
        }
        limits = {name: run.left_seconds(name) for name in _ORDER[: _ORDER.index(until) + 1]}
        closed = all(self._breakers[part_of[name]].state is State.CLOSED for name in limits)
        if self._stages.through is None or not run.is_free or run.is_short("retrieve") or not closed:
            return
        way = await self._stages.through(face.sha256, query, limits)
        spent = way.waited_seconds
        run.took(WAIT, spent)
        for name, seconds in limits.items():
            breaker, one = self._breakers[part_of[name]], way.went.get(name)
            if one is not None or way.is_begun:  # else no stage took any time
                run.took(name, max(seconds - spent, 0.0) if one is None else one.seconds)
            if one is None or one.answer is None:
                run.ahead[name] = None
                if one is not None or _is_to_blame(run, name, seconds):
                    breaker.failed()
                return
            spent += one.seconds
            breaker.succeeded()
            run.ahead[name] = run.seen[name] = one.answer

    async def _ladder(self, run: Run, face: BundleFace, query: Query, until: str, found: Found) -> Candidates:
        await self._go_ahead(run, face, query, until)
        retrieved = None if run.starts_at("cached") else await self._retrieved(run, face, query)
        if retrieved is None:
            return await self._without_stages(run, face, query, found)
        if retrieved.missing_sources:
            run.fall_to("no-source")
        if retrieved.missing_shards:
            run.fall_to(NO_SHARD)
        if until == "retrieve":
            return retrieved
        ranked = None
        if not run.starts_at("retrieval-order"):
            ranked = await self._stage(run, "rank", face, query, retrieved)
        if ranked is None:
            run.fall_to("retrieval-order")
            return retrieved
        if until == "rank":
            return ranked
        reranked = None
        if not run.starts_at("no-rerank"):
            reranked = await self._stage(run, "rerank", face, query, ranked)
        if reranked is None:
            run.fall_to("no-rerank")
            return ranked
        return reranked

    async def _retrieved(self, run: Run, face: BundleFace, query: Query) -> Candidates | None:
        """Of the session's vector; where that fails or there is no time for it, of the long-term one."""
        if not _has_session(query):
            return await self._stage(run, "retrieve", face, query)
        if "retrieve" in run.ahead or not (run.starts_at("base-vector") or run.is_short("retrieve")):
            found = await self._stage(run, "retrieve", face, query, part="session")
            if found is not None or run.left_seconds("retrieve") <= 0:
                return found
        plain = await self._stage(run, "retrieve", face, replace(query, long_term_only=True))
        if plain is not None:
            run.fall_to("base-vector")
        return plain

    async def _without_stages(self, run: Run, face: BundleFace, query: Query, found: Found) -> Candidates:
        slate = None
        if not run.starts_at("trending"):
            slate = found.rung(run, face, query)
            if slate is None and found.is_personal:
                slate = await self._stored(run, face, query)
        return self.trending(run, face, query) if slate is None else self._filled(run, face, query, slate)

    async def _stored(self, run: Run, face: BundleFace, query: Query) -> Candidates | None:
        """The list that this very bundle computed ahead for the user; None where the rules leave nothing of it."""
        seconds, fair = run.left_seconds("rank"), run.fair_seconds("history")
        try:
            stored = await self._breakers.read(
                "stored", lambda: self._read_stored(query.user_id), seconds, fair
            )
        except StateError:
            return None
        if stored is None or stored.bundle_id != face.bundle_id:
            return None
        rows_K, _ = face.rows(stored.item_ids)
        score_K = np.linspace(1, 0, len(rows_K), dtype=np.float32)
        slate = face.finish(query, unsourced((rows_K, score_K), len(face.source_names)))
        if not len(slate):
            return None
        run.fall_to("cached")
        return slate

    def _filled(self, run: Run, face: BundleFace, query: Query, slate: Candidates) -> Candidates:
        """A list of an earlier time, and behind it what trends, in place of what the rules have taken from it since."""
        if len(slate) >= query.k:
            return slate
        exclude = np.concatenate([query.exclude, slate.item_index])
        rest = self.trending(run, face, replace(query, exclude=exclude, k=query.k - len(slate)))
        below = slate.score.min() * rest.score / max(rest.score.max(initial=1), 1)
        return slate.and_then(rest.with_score(below))

    async def _stage(
        self, run: Run, name: str, face: BundleFace, query: Query, *candidates: Candidates, part: str = ""
    ) -> Candidates | None:
        """A stage's candidates; None where there are none in time. `part` is another breaker than the stage's."""
        if name in run.ahead:
            return run.ahead.pop(name)
        call = (face.sha256, query, *candidates)
        try:
            with run.stage(name):
                answer: Candidates = await self.ask(
                    run, name, part or name, getattr(self._stages, name), call
                )
                run.seen[name] = answer
                if answer.worked_seconds:
                    run.worked(name, answer.worked_seconds)
                return answer
        except StageError:
            return None


def _has_session(query: Query) -> bool:
    """Whether the session has a part in retrieval, which stands behind a breaker of its own."""
    return bool(query.record or len(query.visit_L))


def _is_to_blame(run: Run, clock: str, seconds: float) -> bool:
    """Whether a stage that is late for its share of the deadline had enough time for it, and was waited for in time."""
    return seconds >= run.fair_seconds(clock) and -run.left_seconds(clock) <= OWN_LATENESS * seconds
