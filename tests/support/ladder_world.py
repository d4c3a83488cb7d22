"""A gateway over parts that fail, are late or hang as a test tells them to."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from gateway_world import World
from virtual_time import virtual_time

from tastemaker.errors import StateError
from tastemaker.experiments.eligibility import Subject
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.users import User
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.replicas.through import Through, Way, Went
from tastemaker_services.web.schema import RecommendationRequest

DEADLINE_MS = 100.0
CLOCKS = (
    "tastemaker_services.gateway.run",
    "tastemaker_services.gateway.breakers",
    "tastemaker_services.gateway.shedding",
)


class Ladder(World):
    """A world whose parts fail, are late or hang as told, with a session and a forced rung."""

    goes_through = False

    def __init__(self, **gateway: Any) -> None:
        super().__init__(**{"deadline_ms": DEADLINE_MS} | gateway)
        self.faults: dict[str, str] = {}
        self.asked: list[str] = []

    def stages(self) -> Stages:
        inner = self.graph.stages()

        async def retrieve(call: Any, timeout_seconds: float) -> Any:
            query: Query = call[1]
            uses_session = len(query.visit_L) > 0 and not query.long_term_only
            await self.misbehave("retrieve", timeout_seconds)
            if uses_session:
                await self.misbehave("session", timeout_seconds)
            return await inner.retrieve(call, timeout_seconds)

        async def rank(call: Any, timeout_seconds: float) -> Any:
            await self.misbehave("rank", timeout_seconds)
            return await inner.rank(call, timeout_seconds)

        async def rerank(call: Any, timeout_seconds: float) -> Any:
            await self.misbehave("rerank", timeout_seconds)
            return await inner.rerank(call, timeout_seconds)

        stages = Stages(retrieve=retrieve, rank=rank, rerank=rerank, similar=inner.similar)
        return replace(stages, through=chained(stages)) if self.goes_through else stages

    async def misbehave(self, part: str, timeout_seconds: float = 1000.0) -> None:
        """As a stage's calls do: whatever the stage does, they end in time."""
        self.asked.append(part)
        match self.faults.get(part):
            case "raises":
                raise StageError(f"{part} failed")
            case "takes a while":
                await asyncio.sleep(0.005)
            case "takes long":
                await asyncio.sleep(0.02)
            case "slow" | "hangs":
                await asyncio.sleep(timeout_seconds)
                raise StageError(f"{part} is late")

    async def read(self, part: str) -> None:
        """As a read of the state does: it may hang for as long as it likes."""
        try:
            await self.misbehave(part)
        except StageError as error:
            raise StateError(str(error)) from error

    async def read_user(self, user_id: str) -> User:
        await self.read("history")
        return await super().read_user(user_id)

    async def assign(self, subject: Subject, now_ms: int, origin: str) -> Any:
        await self.read("experiment")
        return await super().assign(subject, now_ms, origin)

    async def read_stored(self, user_id: str) -> StoredList | None:
        await self.read("stored")
        return await super().read_stored(user_id)

    def ask(self, *asked: dict[str, Any]) -> list[dict[str, Any]]:
        """One gateway's answers to requests one after the other."""

        async def action(gateway: Gateway) -> list[dict[str, Any]]:
            return [await gateway.recommend(request(**fields), "live") for fields in asked]

        answers: list[dict[str, Any]] = self.use(action)
        return answers


def chained(stages: Stages) -> Through:
    """The stages one after the other, as a graph does that goes through them without a way back."""

    async def through(sha256: str, query: Query, limits: Mapping[str, float]) -> Way:
        clock = asyncio.get_running_loop().time
        began, went, candidates = clock(), dict[str, Went](), tuple[Candidates, ...]()
        for name, limit in limits.items():
            before = clock()
            try:
                answer = await getattr(stages, name)((sha256, query, *candidates), began + limit - before)
            except StageError:
                if clock() < began + limit:
                    went[name] = Went(clock() - before, None)
                break
            went[name] = Went(clock() - before, answer)
            candidates = (answer,)
        return Way(0.0, went)

    return through


def request(**fields: Any) -> RecommendationRequest:
    return RecommendationRequest(**{"user_id": "old", "k": 3} | fields)


def ladder_time() -> AbstractContextManager[None]:
    """Virtual time of all that the ladder measures."""
    return virtual_time(*CLOCKS)
