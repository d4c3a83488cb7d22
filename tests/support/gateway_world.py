"""A gateway whose surroundings a test controls: a fake graph, so that each of its faults can be called up.

Items are i0 … i9, i0 the most popular.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tastemaker.config import Settings, StateSettings
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import StateError
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.assignment import Assignment
from tastemaker.experiments.decision_log import Decision
from tastemaker.experiments.eligibility import Subject
from tastemaker.features.trending import Trending
from tastemaker.features.user_state import UserState
from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.stages.business_rules import Hard
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Float32, Int32, Query
from tastemaker.users.profile import Profile
from tastemaker_services.gateway.cache import Lists
from tastemaker_services.gateway.decisions import DecisionLog
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.pages import Pages
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.rules import ItemRules
from tastemaker_services.gateway.shadow import Answered
from tastemaker_services.gateway.users import User
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.tracing import Tracer
from tastemaker_services.web.schema import RecommendationRequest

NUM_ITEMS = 10
COUNTS = np.arange(NUM_ITEMS, 0, -1).astype(np.float32)
SHA = {"champion": "a" * 64, "challenger": "b" * 64}


def make_face(
    alias: str = "champion",
    trending: Callable[[], Trending | None] | None = None,
    hard_rules: tuple[Hard, ...] = (),
) -> BundleFace:
    config = PopularityConfig(num_items=NUM_ITEMS, segments=("tag=odd",))
    odd = np.array([[i % 2 for i in range(NUM_ITEMS)]], np.uint8)
    return BundleFace(
        bundle_id=SHA[alias][:12],
        sha256=SHA[alias],
        item_ids=[f"i{i}" for i in range(NUM_ITEMS)],
        source_names=["two_tower", "popular"],
        popularity=Popularity(config, COUNTS, COUNTS, odd),
        rules=ItemRules.of(
            ["even" if i % 2 == 0 else "odd" for i in range(NUM_ITEMS)],
            [["small"] if i < 5 else ["large", "grand"] for i in range(NUM_ITEMS)],
        ),
        trending=trending,
        feature_names=("row", "minus_row"),
        hard_rules=hard_rules,
    )


def candidates(rows: Sequence[int], mask: int = 1) -> Candidates:
    scores = np.linspace(1.0, 0.5, len(rows)).astype(np.float32)
    source_score = np.full((len(rows), 2), np.nan, np.float32)
    source_score[:, 0] = scores
    return Candidates(np.array(rows, np.int32), scores, np.full(len(rows), mask, np.uint32), source_score)


def features(rows: Sequence[int]) -> Float32:
    """What the ranker read of some items, two numbers of each."""
    return np.array([[row, -row] for row in rows], np.float32)


class Graph:
    """Stages that answer: retrieval all items from i9 down, ranking from i0 up, reranking i5 first."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.queries: list[tuple[str, str, Query]] = []
        self.timeouts: dict[str, float] = {}
        self.missing_sources = 0
        self.worked_seconds: dict[str, float] = {}

    def stages(self) -> Stages:
        return Stages(
            retrieve=self._stage("retrieve", range(9, -1, -1)),
            rank=self._stage("rank", range(NUM_ITEMS)),
            rerank=self._stage("rerank", [5, 0, 1, 2, 3, 4, 6, 7, 8, 9]),
            similar=self._similar,
        )

    def _stage(self, name: str, rows: Sequence[int]) -> Callable[..., Awaitable[Candidates]]:
        async def answer(call: Any, timeout_seconds: float) -> Candidates:
            sha256, query, *_ = call
            self.queries.append((name, sha256, query))
            self.timeouts[name] = timeout_seconds
            await self._misbehave(name, timeout_seconds)
            found = replace(candidates(rows), worked_seconds=self.worked_seconds.get(name, 0.0))
            if name == "retrieve":
                found = replace(found, missing_sources=self.missing_sources)
            kept = query.keep_features and name != "retrieve"
            return replace(found, features_KF=features(rows)) if kept else found

        return answer

    async def _similar(self, call: Any, timeout_seconds: float) -> tuple[Int32, Float32]:
        await self._misbehave("similar", timeout_seconds)
        _, query, row = call
        rows = np.array([row, *(r for r in range(NUM_ITEMS) if r != row)][: query.k], np.int32)
        return rows, np.linspace(1, 0, len(rows)).astype(np.float32)

    async def _misbehave(self, name: str, timeout_seconds: float) -> None:
        if timeout_seconds <= 0:
            raise StageError("no time is left for the stage")
        if self.faults.get(name) == "slow":
            await asyncio.sleep(timeout_seconds)
            raise StageError("the stage is late")
        if self.faults.get(name) == "raises":
            raise StageError("the stage failed")


class World:
    """A gateway with everything around it under a test's control."""

    def __init__(self, **gateway: Any) -> None:
        self.graph = Graph()
        self.histories: dict[str, list[str]] = {"old": ["i0", "i1"]}
        self.refused: dict[str, list[str]] = {}
        self.profiles: dict[str, Profile] = {}
        self.lists: Lists | None = None
        self.pages: Pages | None = None
        self.users_read: list[str] = []
        self.answered: Callable[[Answered], None] = lambda _: None
        self.stored: dict[str, StoredList] = {}
        self.assignment: Assignment | None = None
        self.assigned: Assigned | None = None
        self.subjects: list[Subject] = []
        self.state_is_down = False
        self.forced: str | None = None
        self.standing = ""
        self.tracer: Tracer | None = None
        self.pins = {alias: Pin(version, make_face(alias)) for version, alias in enumerate(SHA, 1)}
        self.decisions: list[Decision] = []
        self.asked_assignment: list[tuple[str, str]] = []
        self.settings = Settings(
            state=StateSettings(history_length=4),
            gateway=GatewaySettings(**{"deadline_ms": 5000.0} | gateway),
        )

    def stages(self) -> Stages:
        return self.graph.stages()

    async def read_user(self, user_id: str) -> User:
        self.users_read.append(user_id)
        if self.state_is_down:
            raise StateError("cannot read a user")
        history, refused = self.histories.get(user_id, []), self.refused.get(user_id, [])
        state = UserState(opinions=dict.fromkeys(refused, (1, True)))
        profile = self.profiles.get(user_id, Profile())
        if not profile.personalise:  # as `users.read_user` does
            history, state = [], UserState()
        return User(history, state, repr((history, refused, profile)).encode(), profile=profile)

    async def read_stored(self, user_id: str) -> StoredList | None:
        if self.state_is_down:
            raise StateError("cannot read a list")
        return self.stored.get(user_id)

    async def assign(self, subject: Subject, now_ms: int, origin: str) -> Assigned:
        if self.state_is_down:
            raise StateError("cannot read experiments")
        self.subjects.append(subject)
        self.asked_assignment.append((subject.user_id, origin))
        if self.assigned is not None:
            return self.assigned
        return Assigned(() if self.assignment is None else (self.assignment,))

    async def append(self, decisions: Sequence[Decision]) -> int:
        self.decisions += decisions
        return len(decisions)

    def _answered(self, one: Answered) -> None:
        self.answered(one)

    def use(self, action: Callable[[Gateway], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            log = DecisionLog(self.append, "default")
            gateway = Gateway(
                self.settings, read_user=self.read_user, assign=self.assign, pin=self.pins.get,
                stages=self.stages(), decisions=log, lists=self.lists,
                read_stored=self.read_stored, forced=lambda: self.forced, standing=lambda: self.standing,
                answered=self._answered, pages=self.pages, tracer=self.tracer,
            )  # fmt: skip
            log.start()
            try:
                return await action(gateway)
            finally:
                await log.stop()

        return asyncio.run(run())

    def recommend(self, user_id: str = "old", origin: Any = "live", **fields: Any) -> dict[str, Any]:
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        request = RecommendationRequest(user_id=user_id, **{"k": 3} | tuples)
        answer: dict[str, Any] = self.use(lambda gateway: gateway.recommend(request, origin))
        return answer


def items(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def variant(alias: str = "challenger", policy: dict[str, Any] | None = None) -> Assignment:
    return Assignment(
        experiment="exp", variant="B", alias=alias, propensity=0.25, propensities=(0.75, 0.25),
        policy_version="fixed", policy_hash="h", policy=policy,
    )  # fmt: skip
