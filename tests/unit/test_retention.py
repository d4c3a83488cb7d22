"""What may go and what may not: versions, runs, checkpoints, days, rows that were refused. Without a server."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tastemaker.config_retention import RetentionSettings
from tastemaker.experiments.definition import Experiment
from tastemaker.home import Home
from tastemaker.registry.forgetting import EndedRun
from tastemaker.registry.history import AliasMove
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.registry.reports import Report
from tastemaker.registry.versions import Version
from tastemaker.retention.checkpoints import doomed_checkpoints, remove_checkpoint, remove_leavings
from tastemaker.retention.gone import DAY_SECONDS, Limits
from tastemaker.retention.runs import doomed_runs
from tastemaker.retention.versions import Uses, doomed_versions, kept_versions

NOW = 1_800_000_000.0
OLD = datetime.fromtimestamp(NOW - 90 * DAY_SECONDS, UTC).isoformat()


def limits(**told: Any) -> Limits:
    return Limits(RetentionSettings(**told), NOW)


def version(number: int, created: str = OLD, run_id: str | None = None) -> Version:
    return Version(number, f"manifests/shop/{number:012x}.json", f"{number:064x}", created, run_id)


def move(days_ago: float, alias: str, number: int | None, previous: int | None = None) -> AliasMove:
    return AliasMove(round((NOW - days_ago * DAY_SECONDS) * 1000), alias, number, previous, "ann", "")


def experiment(state: str, alias: str, stopped_days_ago: float = 0) -> Experiment:
    stopped_ms = round((NOW - stopped_days_ago * DAY_SECONDS) * 1000) if state == "stopped" else 0
    return Experiment.parse(
        {
            "name": f"try-{alias.replace(':', '-')}", "hypothesis": "h", "salt": "s", "state": state,
            "variants": [{"name": "control", "alias": "champion"}, {"name": "other", "alias": alias}],
            "allocation": {"kind": "fixed", "weights": [0.5, 0.5]}, "course": {"stopped_ms": stopped_ms},
        },
        "test",
    )  # fmt: skip


def doomed(uses: Uses, **told: Any) -> list[int]:
    return [int(one.name) for one in doomed_versions(uses, limits(**told))]


VERSIONS = [version(number) for number in range(1, 10)]


def test_all_versions_stay_unless_a_number_is_set() -> None:
    assert doomed(Uses(VERSIONS, {})) == []
    assert set(kept_versions(Uses(VERSIONS, {}), limits()).values()) == {"all are kept"}
    assert doomed(Uses(VERSIONS, {}), bundles=2) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"aliases": {"canary": 3}}, "alias canary names it"),
        ({"live": LiveAliases(generation=1, aliases={"shadow": LiveVersion(version=3, uri="", sha256="")})}, "live as shadow"),
        (
            {"live": LiveAliases(generation=1, aliases={}, previous=LiveVersion(version=3, uri="", sha256=""))},
            "the champion before, held for a rollback",
        ),
        ({"reports": {"ranker/3f": Report(1, (f"{3:064x}",), 0)}}, "ranker/3f holds it"),
        ({"experiments": [experiment("running", "version:3")]}, "variant other of experiment try-version-3"),
        ({"experiments": [experiment("draft", "version:3")]}, "variant other of experiment try-version-3"),
        ({"experiments": [experiment("stopped", "version:3", 29)]}, "variant other of experiment try-version-3"),
        ({"waiting": {3: "its promotion to champion is waiting"}}, "its promotion to champion is waiting"),
        ({"moves": [move(80, "champion", 3), move(70, "champion", 9, 3)]}, "a rollback of champion goes back to it"),
        ({"moves": [move(29, "shadow", 3), move(28, "shadow", None, 3), move(20, "shadow", 9)]}, "a rollback of shadow goes back to it"),
        ({"moves": [move(29, "canary", 3), move(28, "canary", 8, 3), move(27, "canary", 9, 8)]}, "canary named it within 30 days"),
    ],
)  # fmt: skip
def test_what_is_in_use_stays(more: dict[str, Any], why: str) -> None:
    uses = Uses(VERSIONS, more.pop("aliases", {}), **more)
    assert kept_versions(uses, limits(bundles=2))[3] == why
    assert doomed(uses, bundles=2) == [1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "more",
    [
        {"experiments": [experiment("stopped", "version:3", 31)]},
        {"experiments": [experiment("running", "challenger")]},  # an alias that names nothing
        {"moves": [move(80, "champion", 3), move(70, "champion", 8, 3), move(60, "champion", 9, 8)]},
        {"reports": {"ranker/3f": Report(1, ("another",), 0)}},
    ],
)
def test_what_was_in_use_long_ago_goes(more: dict[str, Any]) -> None:
    assert doomed(Uses(VERSIONS, {}, **more), bundles=2) == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_younger_than_the_grace_period_stays() -> None:
    hour_ago = datetime.fromtimestamp(NOW - 3601, UTC).isoformat()
    uses = Uses([version(1), version(2, hour_ago), version(3)], {})
    assert doomed(uses, bundles=1) == [1]
    assert kept_versions(uses, limits(bundles=1))[2] == "younger than 24 hours"
    assert doomed(uses, bundles=1, grace_hours=1) == [1, 2]


def test_a_run_stays_with_its_version_its_promotion_and_its_family() -> None:
    long_ago = NOW - 50 * DAY_SECONDS
    runs = [
        EndedRun("of-version-9", "train", long_ago, None, None),
        EndedRun("of-version-1", "train", long_ago, None, None),
        EndedRun("promotion-9", "promote", long_ago, None, 9),
        EndedRun("promotion-1", "promote", long_ago + 1, None, 1),
        EndedRun("study", "tune", long_ago + 9, None, None),
        EndedRun("trial-kept", "trial", long_ago, "study", None),
        EndedRun("trial", "trial", long_ago, "study", None),
        EndedRun("of-running-study", "trial", long_ago, "under-way", None),
        EndedRun("old-study", "tune", long_ago + 3, None, None),
        EndedRun("old-trial", "trial", long_ago + 2, "old-study", None),
        EndedRun("grandchild-kept", "trial", long_ago, "trial", None),
        EndedRun("of-running-grandparent", "trial", long_ago, "of-running-study", None),
        EndedRun("old-grandchild", "trial", long_ago + 4, "old-trial", None),
        EndedRun("young", "train", NOW - 39 * DAY_SECONDS, None, None),
        EndedRun("in-the-home", "train", long_ago, None, None),
    ]
    left = [version(9, run_id="of-version-9"), version(8, run_id="trial-kept")]
    found = doomed_runs(runs, left, frozenset({"in-the-home"}), limits(run_days=40))
    assert [one.name for one in found] == [
        "of-version-1", "promotion-1", "old-trial", "old-study", "old-grandchild",
    ]  # fmt: skip
    assert doomed_runs(runs, left, frozenset(), limits()) == []


def aged(path: Path, days: float, **files: str) -> Path:
    """A folder with files, all of them as old before NOW."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    for one in (*path.rglob("*"), path):
        os.utime(one, (NOW - days * DAY_SECONDS,) * 2)
    return path


def test_checkpoints_go_that_no_training_has_used_for_long(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    root = home / "checkpoints"
    aged(root / "ranker-1", 20, weights="12345")
    aged(root / "ranker-2", 20, weights="1")
    (root / "ranker-2" / "complete.json").write_text("{}")  # was taken up again just now
    os.utime(root / "ranker-2" / "complete.json", (NOW - DAY_SECONDS,) * 2)
    for name in (
        "two-tower-1",
        "runs/shop/old",
        "runs/shop/kept",
        "runs/other/old",
        "tune/shop/study",
        "indexes/one",
    ):
        aged(root / name, 20, file="12")
    kept = {"two-tower-1", "kept"}
    assert list(doomed_checkpoints(home, "shop", kept, limits())) == []
    found = list(doomed_checkpoints(home, "shop", kept, limits(checkpoint_days=14)))
    assert [one.name for one in found] == [
        f"checkpoints/{name}" for name in ("indexes/one", "ranker-1", "runs/shop/old", "tune/shop/study")
    ]
    assert found[1].num_bytes == 5
    assert list(doomed_checkpoints(home, "shop", kept, limits(checkpoint_days=21))) == []


def test_a_checkpoint_is_gone_at_once_and_a_removal_that_was_killed_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path / "home")
    aged(home / "checkpoints" / "ranker-1", 20, a="1", complete="{}")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tastemaker.retention.checkpoints.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_checkpoint(home, "checkpoints/ranker-1")
    monkeypatch.undo()
    assert not (home / "checkpoints" / "ranker-1").exists()
    assert list(doomed_checkpoints(home, "shop", set(), limits(checkpoint_days=1))) == []
    remove_leavings(home)
    assert list((home / "checkpoints").iterdir()) == []
    assert not remove_checkpoint(home, "checkpoints/ranker-1")


def test_the_limits_are_of_one_moment() -> None:
    before = time.time()
    assert before <= Limits.of(RetentionSettings()).now <= time.time()
    assert limits(grace_hours=48).since(1) == NOW - 2 * DAY_SECONDS
    assert limits().since(2) == NOW - 2 * DAY_SECONDS
