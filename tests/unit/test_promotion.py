"""Promotions in a real MLflow store: what moves the alias, what is kept, and where a promotion that was left goes on."""

import json
import threading

import pytest
from promotable import BASE
from promoted_world import World, watched

from tastemaker.errors import GateRefusedError, RegistryError, UsageError
from tastemaker.promotion.gate import GateResult
from tastemaker.promotion.promoter import PromotionOrder, refusal
from tastemaker.promotion.record import read_gates, read_promotions

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


class Killed(BaseException):
    """What ends a process between two gates."""


@pytest.fixture(scope="module")
def home(tmp_path_factory, make_home):
    return make_home(tmp_path_factory.mktemp("home") / "home")


@pytest.fixture
def world(home, tmp_path, request):
    return World(home, tmp_path / "bundles", f"p-{abs(hash(request.node.name)) % 10**8}")


ALL = [
    "integrity", "contents", "index", "offline", "segments", "exposure", "calibration", "latency", "off-policy",
    "shadow", "canary",
]  # fmt: skip


def test_promotion_moves_the_alias_and_keeps_what_the_gates_said(world):
    number = world.publish(ece=0.01)
    promotion = world.promote(number)
    assert (promotion.state, promotion.forced, world.aliases) == ("promoted", False, {"champion": number})
    assert [gate.name for gate in promotion.gates] == ALL
    assert [gate.name for gate in promotion.of("passed")] == ["integrity", "contents", "index", "calibration"]
    assert all(gate.reason for gate in promotion.gates)
    tags = world.registry.tags(world.settings.catalogue, number)
    assert '"outcome":"passed"' in tags["tastemaker.gate.index"]
    assert '"there is no other champion' in tags["tastemaker.gate.offline"]
    [kept] = read_promotions(world.registry, world.settings.catalogue, number)
    assert kept == promotion
    [move] = world.history
    assert (move.version, move.actor, move.reason, move.kind) == (number, "ann", "because", "set")


def test_the_run_of_a_promotion_has_its_files_and_figures(world):
    promotion = world.promote(world.publish(ece=0.01))
    run = world.registry._client.get_run(promotion.run_id)
    assert run.data.metrics.items() >= {"gate/calibration": 0.01, "gate/index": 1.0}.items()
    [file] = (world.home / "mlflow/artifacts").rglob(f"{promotion.run_id}/**/promotion.json")
    assert json.loads(file.read_text())["state"] == "promoted"
    text = (file.parent / "promotion.md").read_text()
    assert "| calibration | passed | 0.01 | 0.05 | expected calibration error 0.0100 |" in text


def test_a_refused_version_goes_live_only_by_force_with_a_reason(world):
    good, bad = world.publish(), world.publish(ndcg=BASE / 2)
    world.promote(good)
    refused = world.promote(bad)
    assert (refused.state, world.aliases) == ("refused", {"champion": good})
    with pytest.raises(GateRefusedError, match=r"version 2 was refused \(offline: ndcg@10 -.* or force it"):
        raise refusal(refused)
    with pytest.raises(UsageError, match="a forced promotion needs a reason"):
        world.promote(bad, "challenger", " ", force=True)
    forced = world.promote(bad, "challenger", "planted", force=True)
    assert (forced.state, forced.forced, [gate.name for gate in forced.of("refused")]) == (
        "promoted", True, ["offline"],
    )  # fmt: skip
    assert [(m.alias, m.version, m.forced) for m in world.history] == [
        ("champion", good, False), ("challenger", bad, True),
    ]  # fmt: skip


def test_a_damaged_bundle_is_refused_even_by_force(world):
    number = world.publish()
    next(path for path in (world.folder / "blobs").rglob("*") if path.is_file()).write_bytes(b"")
    refused = world.promote(number, force=True)
    with pytest.raises(GateRefusedError, match=r"integrity: .* was changed .*: publish the bundle again"):
        raise refusal(refused)
    assert (world.aliases, [gate.name for gate in refused.gates]) == ({}, ["integrity"])


def test_a_lost_champion_does_not_keep_its_successor_out(world):
    old = world.publish()
    world.promote(old)
    (world.folder / world.registry.version(world.settings.catalogue, old).uri).unlink()
    new = world.publish(ndcg=BASE / 2)
    offline = world.promote(new).gates[ALL.index("offline")]
    assert offline.outcome == "not applicable"
    assert offline.reason.startswith("the champion cannot be read: manifests/")
    assert world.aliases == {"champion": new}


def test_what_was_said_for_one_alias_stays_when_the_version_wants_another(world):
    number = world.publish()
    champion = world.promote(number)
    shadow = world.promote(number, "shadow")
    said = {gate.name: gate.reason for gate in shadow.gates}
    assert said["canary"] == "only a version for alias champion is asked"
    kept = read_promotions(world.registry, world.settings.catalogue, number)
    assert kept == [champion, shadow]
    assert read_gates(world.registry, world.settings.catalogue, number)["canary"] == champion.gates[-1]


def test_a_dry_run_asks_and_moves_nothing(world):
    number = world.publish()
    promotion = world.promote(number, dry_run=True)
    assert (promotion.state, world.aliases, world.history) == ("passed", {}, [])
    assert set(read_gates(world.registry, world.settings.catalogue, number)) == set(ALL)


FAST = {"integrity", "exposure", "canary"}
"""Kills that every run of the tests tries; the others are of the slow ones."""


@pytest.mark.parametrize(
    "gate", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ALL]
)
def test_a_promotion_that_is_killed_goes_on_at_the_gate_where_it_was(world, gate):
    # A champion, so that all gates that compare have something to look at.
    number = world.publish(ece=0.01, marker="2", lists=[20] * 50, columns={"interactions": [5] * len(BASE)})
    champion = world.publish(ece=0.01, lists=[20] * 50)
    world.registry.set_alias(world.settings.catalogue, "champion", champion, "ann", "first")

    def kill(name):
        if name == gate:
            raise Killed

    with pytest.raises(Killed):
        watched(world.promoter(), kill).promote(PromotionOrder(number, actor="ann", reason="better"))
    assert world.aliases == {"champion": champion}
    [left] = read_promotions(world.registry, world.settings.catalogue, number)
    assert left.state == "running"
    done = ALL[: ALL.index(gate)]
    assert {one.name for one in left.gates} == set(done)
    passed = {"integrity", "contents", "index", "offline", "segments", "exposure", "calibration"} & set(done)
    assert world.asked(number) == [name for name in ALL if name not in passed]
    assert world.aliases == {"champion": number}
    [ended] = read_promotions(world.registry, world.settings.catalogue, number)
    assert (ended.state, ended.started_ms) == ("promoted", left.started_ms)


def test_what_passed_stands_until_bundle_champion_or_limits_are_others(world):
    first, second = world.publish(ece=0.01), world.publish(ece=0.01, marker="2")
    world.promote(first)
    world.promote(second, dry_run=True)
    standing = ["integrity", "contents", "index", "offline", "calibration"]
    rest = [name for name in ALL if name not in standing]
    assert world.asked(second, dry_run=True) == rest
    assert world.asked(second, world.promoter(calibration_error=0.04), dry_run=True) == [
        name for name in ALL if name in rest or name == "calibration"
    ]
    assert world.asked(second, dry_run=True, again=True) == ALL
    assert world.asked(second, world.promoter(valid_hours=0), dry_run=True) == ALL
    third = world.publish(marker="3")
    world.registry.set_alias(world.settings.catalogue, "champion", third, "bob", "meanwhile")
    assert world.asked(second, dry_run=True) == [name for name in ALL if name in rest or name == "offline"]


def test_what_was_refused_is_asked_again_and_goes_on_where_it_was_mended(world):
    world.promote(world.publish())
    bad = world.publish(ndcg=BASE / 2)
    refused = world.promote(bad)
    mended = world.promoter(loss=0.9).promote(PromotionOrder(bad, actor="ann", reason="it is meant so"))
    assert (mended.state, mended.started_ms, mended.run_id) == (
        "promoted", refused.started_ms, refused.run_id,
    )  # fmt: skip


def test_a_champion_that_moves_while_gates_are_asked_stops_the_promotion(world):
    first, second, third = (world.publish(marker=marker) for marker in "123")
    world.promote(first)

    def meddle(name):
        if name == "shadow":
            world.registry.set_alias(world.settings.catalogue, "champion", third, "bob", "meanwhile")

    promoter = watched(world.promoter(), meddle)
    with pytest.raises(
        RegistryError, match="version of alias champion, is 3, must be 1: it was moved meanwhile"
    ):
        promoter.promote(PromotionOrder(second, actor="ann", reason="better"))
    assert world.aliases == {"champion": third}


def test_of_two_promotions_at_once_one_is_told_to_wait(world):
    first, second = world.publish(), world.publish(marker="2")
    inside, go_on = threading.Event(), threading.Event()

    def hold(name):
        inside.set()
        assert go_on.wait(60)

    done = []
    promoter = watched(world.promoter(), hold)
    thread = threading.Thread(target=lambda: done.append(promoter.promote(PromotionOrder(first))))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(UsageError, match=r"promotion-.*-champion .* is in use by another process: wait"):
        world.promote(second)
    assert world.promote(second, "shadow").state == "promoted"
    go_on.set()
    thread.join(60)
    assert (done[0].state, world.aliases) == ("promoted", {"champion": first, "shadow": second})


def test_answers_of_an_earlier_release_are_read_and_asked_again(world):
    number = world.publish()
    old = {"name": "index", "outcome": "passed", "value": 1.0, "limit": 1.0, "reason": "flat"}
    odd = {"tastemaker.gate.odd": '{"name": 3}', "tastemaker.gate.index": json.dumps(old)}
    world.registry.tag(world.settings.catalogue, number, odd | {"tastemaker.promotion.champion": "{}"})
    assert read_promotions(world.registry, world.settings.catalogue, number) == []
    assert read_gates(world.registry, world.settings.catalogue, number) == {"index": GateResult(**old)}
    assert "index" in world.asked(number)


def test_promoting_what_was_not_published_is_refused(world):
    with pytest.raises(RegistryError, match="has no version or alias 5"):
        world.promote(5)
    with pytest.raises(RegistryError, match="has no version or alias 5"):
        read_promotions(world.registry, world.settings.catalogue, 5)
