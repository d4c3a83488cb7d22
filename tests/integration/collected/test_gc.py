"""`tastemaker gc` on a home of its own, a real Valkey and MLflow's own store: what goes, and that what is in use never does."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from experiment_log import START_MS, decision
from gc_shop import Shop, names

from tastemaker import context
from tastemaker.cli import invoke
from tastemaker.errors import StateError
from tastemaker.events.archive import write_days
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.registry.forgetting import EndedRuns
from tastemaker.retention.days import first_report_day
from tastemaker.retention.gone import DAY_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.mark.usefixtures("later")
def test_what_is_not_in_use_goes_and_what_is_stays_whole(shop: Shop) -> None:
    left_over = shop.store.put(b"of a publish that was cut off")
    versions = {version.number: version for version in shop.registry.versions(shop.keys.catalogue)}
    before = shop.files()
    told = shop.collect(dry_run=True, run_days=30)
    assert shop.files() == before
    assert shop.numbers() == [1, 2, 3, 4, 5, 6, 7]

    told_runs = set(names(told, "run"))
    logged = [path for path in shop.home.root.rglob("offline.json") if path.parts[-3] in told_runs]
    assert len(logged) == 2
    done = shop.collect(run_days=30)
    assert done.as_dict() | {"dry_run": True} == told.as_dict()
    assert names(done, "version") == ["5", "6"]
    assert sorted(names(done, "manifest")) == sorted(versions[number].uri for number in (5, 6))
    assert f"blobs/sha256/{left_over[:2]}/{left_over}" in names(done, "blob")
    assert len(names(done, "blob")) == 3  # and each tower that no other version has
    assert sorted(names(done, "run")) == sorted(str(versions[number].run_id) for number in (5, 6))
    assert {number: done.kept[number] for number in (1, 2, 3, 4, 7)} == {
        1: "a rollback of champion goes back to it",
        2: "alias champion names it",
        3: "alias shadow names it",
        4: "variant other of experiment try",
        7: "among the newest 1",
    }
    assert shop.numbers() == [1, 2, 3, 4, 7]
    shop.check()
    runs = {run.id for run in EndedRuns(shop.settings, shop.home).ended()}
    assert runs == {str(versions[number].run_id) for number in (1, 2, 3, 4, 7)}
    assert not any(path.exists() for path in logged)
    assert shop.registry.rollback(shop.keys.catalogue, "champion", "ann").number == 1

    (receipt,) = shop.receipts()
    assert receipt["removed"] == done.as_dict()["removed"]
    assert shop.collect(run_days=30).gone == []
    assert shop.publish(8) == 8  # a number is never given again


def test_nothing_goes_that_is_young(shop: Shop) -> None:
    shop.store.put(b"of a publish that is under way")
    assert shop.collect(run_days=30).gone == []
    assert shop.numbers() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.usefixtures("later")
def test_what_is_unset_is_kept_for_ever(shop: Shop) -> None:
    shop.store.put_manifest(shop.keys.catalogue, b'{"files": {}}')  # no version names it
    before = shop.files()
    shop.store.put(b"nothing names it")
    done = shop.collect(bundles=None, checkpoint_days=None)
    assert {one.kind for one in done.gone} == {"blob"}
    assert before <= shop.files()


@pytest.mark.usefixtures("later")
def test_days_that_the_report_of_the_holdout_reads_stay(shop: Shop) -> None:
    holdouts, folder = HoldoutStore(shop.client, shop.keys), shop.home / "decisions" / shop.keys.catalogue
    now_ms = time.time_ns() // 1_000_000
    for days_ago in (3, 2, 0):
        at_ms = now_ms - days_ago * DAY_SECONDS * 1000
        write_days(folder, decision_table([decision("r", "u", "a", at_ms - START_MS)]))
    holdouts.put(Holdout(share=0.1))
    first = first_report_day(shop.client, shop.keys)
    assert first == datetime.fromtimestamp(holdouts.since_ms() / 1000 - DAY_SECONDS, UTC).date()
    assert len(shop.collect(decision_days=7).of("decision day")) == 2
    holdouts.put(Holdout(share=0.0))
    assert first_report_day(shop.client, shop.keys) is None
    assert len(shop.collect(decision_days=7).of("decision day")) == 1


@pytest.mark.usefixtures("later")
def test_what_a_training_may_begin_from_stays(shop: Shop) -> None:
    checkpoints = shop.home / "checkpoints"
    for name in ("t1", "ranker-old"):  # t1 is the champion's training
        (checkpoints / name).mkdir()
        (checkpoints / name / "file").write_text("x")
    with shop.home.lock("training"):
        done = shop.collect()
        assert done.skipped == ["checkpoints: a training is under way"]
        assert names(done, "checkpoint") == []
    assert names(shop.collect(), "checkpoint") == ["checkpoints/ranker-old"]
    assert [path.name for path in checkpoints.iterdir()] == ["t1"]


@pytest.mark.usefixtures("later")
def test_nothing_goes_where_nobody_can_tell_what_is_in_use(shop: Shop) -> None:
    shop.client.set(shop.keys.live, "no aliases")
    before = shop.files()
    with pytest.raises(StateError, match="does not hold live aliases"):
        shop.collect()
    assert shop.files() == before


@pytest.fixture
def cli(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(context, "_settings", shop.settings)
    yield shop
    context.lifetime.close()


@pytest.mark.usefixtures("later")
def test_the_command_says_what_goes_and_why(cli: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    cli.store.put(b"nothing names it")
    told = invoke(["gc", "--dry-run"])
    text = capsys.readouterr().out
    assert "version 5: not in use, and not among the newest 1" in text
    assert "version 2 stays: alias champion names it" in text
    done = invoke(["gc", "--json"])
    assert json.loads(capsys.readouterr().out) == done
    assert done["removed"] == told["removed"]
    assert invoke(["gc"])["removed"] == []
    assert "Gone: catalogue" in capsys.readouterr().out
