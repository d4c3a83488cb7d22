"""Mirrored requests: the shadow's answers are logged and compared, and change nothing whatever the shadow does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from gateway_world import World, candidates, items, make_face

from tastemaker import telemetry
from tastemaker.config_serving import ServingSettings
from tastemaker.errors import ExperimentError
from tastemaker.events.archive import write_days
from tastemaker.events.attribution import Logged, Rule, attribute
from tastemaker.events.log import Entry
from tastemaker.experiments.decision_log import DECISION_SCHEMA, Decision, decision_table, encode_decision
from tastemaker.experiments.shadow import shadow_report
from tastemaker.home import Home
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.shadow import Shadow
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.web.schema import Filters, RecommendationRequest

DEADLINE_MS = 300.0


class Mirrored:
    """A world whose gateway has a shadow."""

    def __init__(
        self, stages: Sequence[Any], busy: Callable[[], bool] = lambda: False, **settings: Any
    ) -> None:
        self.world = World()
        self.world.pins["shadow"] = Pin(3, make_face("challenger"))
        self.stages, self.busy = stages, busy
        self.settings = ServingSettings(**settings)

    def ask(
        self, times: int = 1, origin: Any = "live", shadowed: bool = True, **fields: Any
    ) -> list[dict[str, Any]]:
        async def run(gateway: Gateway) -> list[dict[str, Any]]:
            shadow = Shadow(
                self.settings, "default", DEADLINE_MS, pin=self.world.pins.get, stages=self.stages,
                is_busy=self.busy, keep=self.world.decisions.append,
            )  # fmt: skip
            self.world.answered = shadow.offer if shadowed else lambda _: None
            request = RecommendationRequest(user_id="old", k=3, **fields)
            answers = [await gateway.recommend(request, origin) for _ in range(times)]
            await asyncio.gather(*shadow._under_way)
            return answers

        found: list[dict[str, Any]] = self.world.use(run)
        return found

    @property
    def shadows(self) -> list[Decision]:
        return [decision for decision in self.world.decisions if decision.shadow_of is not None]


def other_stages(*rows: int) -> list[Callable[..., Awaitable[Any]]]:
    async def answer(call: Any, timeout_seconds: float) -> Any:
        return candidates(rows)

    return [answer, answer, answer]


async def hang(call: Any, timeout_seconds: float) -> Any:
    await asyncio.sleep(timeout_seconds)
    raise StageError("the stage is late")


async def broken(call: Any, timeout_seconds: float) -> Any:
    raise ValueError("a fault of the shadow's code")


def counted(outcome: str) -> float:
    return float(telemetry.SHADOW.labels("default", outcome)._value.get())


def test_a_shadows_answer_is_logged_under_a_request_of_its_own_that_nobody_saw() -> None:
    mirrored = Mirrored(other_stages(9, 5, 2, 3))
    [answer] = mirrored.ask()
    assert items(answer) == ["i5", "i2", "i3"]
    [shadow] = mirrored.shadows
    assert list(shadow.item_ids) == ["i9", "i5", "i2"]
    assert shadow.shadow_of == answer["request_id"] != shadow.request_id
    assert (shadow.bundle, shadow.origin, shadow.experiment) == ("b" * 12, "live", None)
    [shown] = [decision for decision in mirrored.world.decisions if decision.shadow_of is None]
    assert list(shown.item_ids) == items(answer)


def test_no_reward_and_no_window_ever_opens_for_a_shadows_answer() -> None:
    mirrored = Mirrored(other_stages(9))
    mirrored.ask()
    [shadow] = mirrored.shadows
    record = {"request_id": shadow.request_id, "origin": shadow.origin, "experiment": shadow.experiment}
    found = attribute([Logged(0, record)], [], {}, [], {("front", "live"): Rule(1000)})
    assert (found.open, found.outcomes) == ({}, [])


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("fault", [hang, broken])
def test_whatever_the_shadow_does_real_answers_are_the_same_and_as_soon(fault: Any, stage: int) -> None:
    stages = other_stages(9, 8)
    stages[stage] = fault
    mirrored, before = Mirrored(stages), counted("failed")
    plain = items(Mirrored(stages).ask(shadowed=False)[0])
    started = time.monotonic()
    answers = mirrored.ask(times=3)
    assert [items(answer) for answer in answers] == [plain] * 3
    assert all(answer["degraded"] == [] for answer in answers)
    if fault is hang:  # one of three was mirrored, and waited for after all were answered
        assert time.monotonic() - started < DEADLINE_MS / 1000 + 2
    assert counted("failed") == before + 1
    assert [list(shadow.rungs) for shadow in mirrored.shadows] == [["failed"]]


def test_a_shadow_waits_for_a_quiet_moment_and_is_dropped_where_none_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tastemaker_services.gateway.shadow.PATIENCE_SECONDS", 0.05)
    looks = iter([True, True, False])
    Mirrored(other_stages(9), busy=lambda: next(looks, False)).ask()
    assert next(looks, None) is None
    before = counted("dropped")
    busy = Mirrored(other_stages(9), busy=lambda: True)
    busy.ask()
    assert busy.shadows == []
    assert counted("dropped") == before + 1


def test_only_so_many_are_mirrored_at_once_and_only_a_share_of_all() -> None:
    slow = [hang, *other_stages(9)[1:]]
    one = Mirrored(slow, shadow_in_flight=1)
    one.ask(times=4)
    assert len(one.shadows) == 1
    none = Mirrored(other_stages(9), shadow_share=0.0)
    none.ask(times=4)
    assert none.shadows == []
    replayed = Mirrored(other_stages(9))
    replayed.ask(origin="replay")
    assert replayed.shadows == []


def archived(home: Home, *decisions: Decision) -> None:
    entries = [Entry(f"{n}-0", encode_decision(decision)) for n, decision in enumerate(decisions, 1)]
    write_days(home / "decisions" / "default", decision_table(entries))


def decision(request_id: str, items: str, shadow_of: str | None = None, **fields: Any) -> Decision:
    return Decision(
        decision_id=request_id, request_id=request_id, timestamp_ms=1000, catalogue="default",
        origin=fields.pop("origin", "live"), unit=fields.pop("unit", "u1"), user_id="u1",
        bundle=fields.pop("bundle", "new" if shadow_of else "old"), item_ids=list(items),
        shadow_of=shadow_of, timings_ms={"total": fields.pop("took", 10.0)}, **fields,
    )  # fmt: skip


def test_the_report_by_hand(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    archived(
        home,
        decision("r1", "abcd"), decision("s1", "bcxy", "r1", took=30.0),  # 2 of 4
        decision("r2", "abcd", unit="u2"), decision("s2", "abcd", "r2", unit="u2", took=10.0),  # 4 of 4
        decision("r7", "abcd", cached_from="r2", took=1.0), decision("s7", "abxy", "r7", took=28.0),  # 2 of 4
        decision("r3", "abcd", rungs=["no-rerank"]), decision("s3", "wxyz", "r3"),  # a fallback: not compared
        decision("r4", "abcd"), decision("s4", "", "r4", rungs=["failed"]),
        decision("r5", "abcd"),
        decision("r6", "abcd", origin="simulator"), decision("s6", "wxyz", "r6", origin="simulator"),
    )  # fmt: skip
    report = shadow_report(home, "default", 0, 2000)
    assert (report.bundle, report.shown_by) == ("new", ("old",))
    assert (report.num_shown, report.num_pairs) == (6, 3)
    assert report.mirrored == 5 / 6
    assert report.failed == pytest.approx(1 / 5)
    assert report.overlap == 8 / 12
    assert report.overlap_low is not None
    assert report.overlap_low < 8 / 12
    assert report.same_first == 2 / 3
    # r7 was answered again: 10 and 10 beside 30 and 10
    assert (report.shown_p50_ms, report.shadow_p50_ms) == (10.0, 20.0)
    assert report.shadow_p99_ms == pytest.approx(10 + 0.99 * 20)
    assert report.shadow_all_p99_ms == pytest.approx(28 + 0.98 * 2)  # of 10, 28, 30
    assert (report.items_shown, report.items_shadow) == (4, 6)


def test_what_showed_nothing_is_no_agreement(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    compared = [decision("r1", "ab"), decision("s1", "bx", "r1")]
    archived(home, *compared)
    report = shadow_report(home, "default", 0, 2000)
    assert (report.num_shown, report.mirrored, report.same_first, report.overlap) == (1, 1.0, 0.0, 0.5)
    other = Home.make(tmp_path / "other")
    nothing = [
        decision("r2", ""),
        decision("s2", "", "r2"),
        decision("r3", ""),
        decision("s3", "", "r3", rungs=["failed"]),
    ]
    archived(other, *compared, *nothing)
    assert shadow_report(other, "default", 0, 2000) == report


def test_what_showed_nothing_is_not_mirrored() -> None:
    mirrored = Mirrored(other_stages(9))
    mirrored.ask(filters=Filters(categories=("none",)))
    assert mirrored.shadows == []
    assert len(mirrored.world.decisions) == 1


def test_days_of_before_there_were_shadows_are_read(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    old = decision_table([Entry("1-0", encode_decision(decision("r1", "ab")))]).drop_columns(["shadow_of"])
    write_days(home / "decisions" / "default", old)
    with pytest.raises(
        ExperimentError, match="no live request of the time was mirrored: point the alias shadow"
    ):
        shadow_report(home, "default", 0, 2000)
    assert pa.types.is_string(DECISION_SCHEMA.field("shadow_of").type)
