"""From which version a gateway answers, through a real Valkey: ready everywhere, tried, then flipped; and who is told."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from gateway_world import SHA, make_face

from tastemaker import telemetry
from tastemaker.events.erasure import erase_online
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.registry.overview import overview, read_overview, wait_until_answered
from tastemaker.registry.reports import Report
from tastemaker.stages.recorded import MOST, read_recorded
from tastemaker.state.connection import connect_async
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.types import Query
from tastemaker_services.gateway import pins as pins_module
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.gateway.pins import STAGES, Pins
from tastemaker_services.gateway.recorded import LIVES_SECONDS, Recorder
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.versions.keeping import Keeper, Turn
from tastemaker_services.versions.rehearsal import EmptyAnswersError

OLD, NEW = SHA["champion"], SHA["challenger"]
ALIAS_OF = {sha256: alias for alias, sha256 in SHA.items()}
WAIT_SECONDS = 20.0


class Tried:
    """Warm-ups as a test has them."""

    def __init__(self) -> None:
        self.faults: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.asked: list[tuple[str, bool]] = []

    async def __call__(self, face: BundleFace, *, may_be_slow: bool) -> None:
        self.asked.append((face.sha256, may_be_slow))
        if face.sha256 in self.hanging:
            await asyncio.Event().wait()
        if face.sha256 in self.faults:
            raise self.faults[face.sha256]


class Gateway:
    """A gateway's pins over the test's Valkey, in one event loop."""

    def __init__(self, state: Any) -> None:
        self.state, self.tried = state, Tried()

    def make_live(self, **aliases: str) -> None:
        named = {
            alias: LiveVersion(
                version=1 if sha256 == OLD else 2, uri="manifests/default/0123456789ab.json", sha256=sha256
            )
            for alias, sha256 in aliases.items()
        }
        live = LiveAliases(generation=1, aliases=named)
        self.state.client.set(self.state.keys.live, live.model_dump_json())

    def tell(self, stage: str, *held: str) -> None:
        report = Report(1, held, time.time_ns() // 1_000_000)
        self.state.client.hset(self.state.keys.ready, f"{stage}/1", report.encode())

    def use(self, action: Callable[[Pins, Any], Any]) -> Any:
        state = self.state

        def load(version: LiveVersion, everything: ItemChanges) -> LiveFace:
            return LiveFace(make_face(ALIAS_OF[version.sha256]))

        async def run() -> Any:
            client = connect_async(state.url)
            turn = Turn(state.client, state.keys)
            faces = Keeper(load, PutItems(state.client, state.keys), turn, state.keys.catalogue, 0.0)
            pins = Pins(client, state.keys, faces, self.tried)

            async def poll_until(condition: Callable[[], Any]) -> None:
                deadline = time.monotonic() + WAIT_SECONDS
                while not condition():
                    assert time.monotonic() < deadline
                    await pins.poll()
                    await asyncio.sleep(0.01)

            try:
                return await action(pins, poll_until)
            finally:
                await client.aclose()

        return asyncio.run(run())

    def all_tell(self, *held: str) -> None:
        for stage in STAGES:
            self.tell(stage, *held)


@pytest.fixture
def gateway(state: Any) -> Gateway:
    return Gateway(state)


def answering(pins: Pins, alias: str = "champion") -> int | None:
    pin = pins.get(alias)
    return None if pin is None else pin.version


def test_it_flips_once_every_stage_holds_the_version_and_it_was_tried(gateway: Gateway) -> None:
    gateway.make_live(champion=OLD)

    async def run(pins: Pins, poll_until: Any) -> None:
        gateway.tell("ranker", OLD)
        for _ in range(5):
            await pins.poll()
        assert (answering(pins), pins.waiting_for) == (None, "every stage to load the champion")
        gateway.all_tell(OLD)
        await poll_until(lambda: answering(pins) == 1)
        assert pins.waiting_for is None
        assert gateway.tried.asked == [(OLD, True)]  # a slow one is better than none
        gateway.make_live(champion=NEW)
        gateway.all_tell(OLD, NEW)
        await poll_until(lambda: answering(pins) == 2)
        assert gateway.tried.asked[-1] == (NEW, False)
        gateway.make_live(champion=OLD)
        await pins.poll()  # held and tried: a rollback needs one look
        assert answering(pins) == 1
        labels = (pins._catalogue, "champion")
        assert telemetry.BUNDLE_VERSION.labels(*labels)._value.get() == 1
        assert (
            telemetry.REPLICAS.labels(pins._catalogue, "ranker")._value.get() == pins.num_replicas["ranker"]
        )

    gateway.use(run)


def test_a_version_that_fails_its_trial_is_refused_and_the_old_one_answers_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = gateway.state.keys
    gateway.make_live(champion=OLD)
    gateway.all_tell(OLD, NEW)
    refusals = telemetry.BUNDLE_REFUSED.labels(keys.catalogue, "empty")._value

    async def run(pins: Pins, poll_until: Any) -> None:
        await poll_until(lambda: answering(pins) == 1)
        gateway.tried.faults[NEW] = EmptyAnswersError("all of 4 first answers are empty")
        gateway.make_live(champion=NEW)
        await poll_until(lambda: refusals.get() == 1)
        for _ in range(3):
            await pins.poll()
        assert (answering(pins), refusals.get(), pins.waiting_for) == (1, 1, None)
        [state] = await asyncio.to_thread(read_overview, gateway.state.client, keys)
        assert (state.version, state.outcome, state.answering) == (2, "refused", 0)
        assert state.refused == {"gateway": "EmptyAnswersError: all of 4 first answers are empty"}
        monkeypatch.setattr(pins_module.time, "monotonic", lambda: 1e12)  # past the wait for another try
        gateway.tried.faults.clear()
        await pins.poll()
        await asyncio.sleep(0)
        await pins.poll()
        assert answering(pins) == 2

    gateway.use(run)


def test_a_trial_that_hangs_keeps_no_other_alias_from_flipping(gateway: Gateway) -> None:
    gateway.make_live(champion=OLD, challenger=NEW)
    gateway.all_tell(OLD, NEW)
    gateway.tried.hanging = {NEW}

    async def run(pins: Pins, poll_until: Any) -> None:
        await poll_until(lambda: answering(pins) == 1)
        assert answering(pins, "challenger") is None

    gateway.use(run)


def test_a_stage_that_does_not_answer_yet_is_tried_again_at_once(gateway: Gateway) -> None:
    gateway.make_live(champion=OLD)
    gateway.all_tell(OLD)
    gateway.tried.faults[OLD] = StageError("the stage is late")

    async def run(pins: Pins, poll_until: Any) -> None:
        await poll_until(
            lambda: pins.waiting_for == "a champion that can be opened: StageError: the stage is late"
        )
        gateway.tried.faults.clear()
        await poll_until(lambda: answering(pins) == 1)

    gateway.use(run)


def test_who_asks_is_told_once_all_gateways_answer(gateway: Gateway) -> None:
    client, keys = gateway.state.client, gateway.state.keys
    gateway.make_live(champion=OLD)
    gateway.all_tell(OLD)
    assert wait_until_answered(client, keys, "champion", 1, 0.0) is None

    async def run(pins: Pins, poll_until: Any) -> None:
        await poll_until(lambda: answering(pins) == 1)
        await pins.poll()  # tells
        assert wait_until_answered(client, keys, "champion", 1, 0.0) is True
        assert wait_until_answered(client, keys, "champion", 2, 0.0) is False
        [state] = read_overview(client, keys)
        assert (state.outcome, state.answering, state.gateways) == ("answers", 1, 1)
        await pins.leave()
        assert wait_until_answered(client, keys, "champion", 1, 0.0) is None

    gateway.use(run)


def test_the_overview_says_what_is_loading_and_what_is_kept() -> None:
    new, old = (
        LiveVersion(version=v, uri="manifests/d/0123456789ab.json", sha256=s) for v, s in ((2, NEW), (1, OLD))
    )
    live = LiveAliases(generation=2, aliases={"champion": new}, previous=old)
    reports = {
        "gateway/1": Report(2, (OLD, NEW), 0, answers={"champion": 1}),
        "ranker/1": Report(2, (OLD,), 0),
    }
    states = overview(live, reports)
    assert [(state.alias, state.version, state.outcome) for state in states] == [
        ("champion", 2, "loading"), ("(before)", 1, "held"),
    ]  # fmt: skip
    reports["ranker/1"] = Report(2, (OLD, NEW), 0)
    assert overview(live, reports)[0].outcome == "warming up"
    assert [state.outcome for state in overview(live, {})] == ["nothing serves"] * 2
    assert overview(None, reports) == []


def test_recorded_requests_are_few_and_go_after_an_hour_or_with_any_erasure(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tastemaker_services.gateway.recorded.time.monotonic", lambda: now[0])
    ids = [f"i{i}" for i in range(10)]

    async def run() -> None:
        client = connect_async(state.url)
        recorder = Recorder(client, state.keys)
        for _ in range(10 * MOST):
            now[0] += 0.5
            recorder.note(Query(history_L=make_face().rows(["i3", "i4"])[0], user_id="alice", k=4), ids)
        assert len(await recorder.read()) == MOST
        now[0] += 60
        await recorder.share()
        assert [one.history for one in await recorder.read()] == [["i3", "i4"]] * MOST
        await client.aclose()

    asyncio.run(run())
    found = read_recorded(state.client, state.keys)
    assert (len(found), found[0].k, found[0].visit) == (MOST, 4, [])
    assert 0 < state.client.ttl(state.keys.recorded) <= LIVES_SECONDS
    assert "alice" not in str(state.client.lrange(state.keys.recorded, 0, -1))
    erase_online(state.client, state.client, state.keys, "somebody", 1)
    assert read_recorded(state.client, state.keys) == []
