"""`tastemaker doctor` on a real Valkey: what it finds, and that what it packs for support holds no secret."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tastemaker import cli, context
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings, StateSettings
from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.doctor import serving_checks, state_checks
from tastemaker.doctor.examination import examine
from tastemaker.doctor.finding import Finding, found_by, worst
from tastemaker.doctor.support_bundle import known_secrets, write_support_bundle
from tastemaker.errors import StateError
from tastemaker.home import Home
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.registry.reports import Report

NOBODY = "redis://127.0.0.1:1"
PASSWORD, URL_PASSWORD, KEY, ENV_TOKEN, HOME_TOKEN = (
    "pass-word-1",
    "u rl/pass",
    "ab" * 32,
    "env-token-9",
    "home-token-77",
)


def named(findings: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_sound_server_passes(state: Any) -> None:
    found = named(state_checks.check_server(state.client, state.settings))
    assert {name: one.outcome for name, one in found.items()} == dict.fromkeys(
        ("state version", "persistence", "eviction", "state memory"), "ok"
    )
    assert found["state version"].detail.startswith("Valkey ")
    assert named(state_checks.check_clock(state.client))["clock"].outcome == "ok"


@pytest.mark.parametrize(
    ("info", "outcome", "words"),
    [
        ({"aof_enabled": 0}, "failed", "append-only file is off"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "failed", "last write"),
        ({"aof_enabled": 1, "aof_last_write_status": "ok"}, "ok", "waitaof"),
    ],
)
def test_a_server_that_keeps_nothing_fails(info: dict[str, Any], outcome: str, words: str) -> None:
    found = state_checks._persistence(info, Settings())
    assert found.outcome == outcome
    assert words in found.detail


@pytest.mark.parametrize(
    ("version", "outcome"), [("7.0.15", "failed"), ("7.2.0", "ok"), ("8.0.1", "ok"), ("6.2", "failed")]
)
def test_waitaof_needs_a_new_redis(version: str, outcome: str) -> None:
    assert state_checks._version({"redis_version": version}).outcome == outcome


def test_memory_that_fills_is_told_before_it_is_full() -> None:
    outcomes = [
        state_checks._memory({"used_memory": used, "maxmemory": 100}).outcome for used in (79, 80, 99)
    ]
    assert outcomes == ["ok", "warning", "warning"]


def test_events_that_nobody_applies_and_entries_that_nobody_can(state: Any) -> None:
    quiet = named(state_checks.check_streams(state.client, state.keys))
    assert (quiet["consumers"].outcome, quiet["stream lag"].outcome) == ("warning", "ok")
    assert quiet["dead letters"].outcome == "ok"
    an_hour_ago = state_checks.now_ms() - 3_600_000
    state.client.xadd(state.keys.events(2), {"event": "{}"}, id=f"{an_hour_ago}-0")
    state.client.xadd(state.keys.dead_letters(1), {"stream": "events", "reason": "no JSON"})
    behind = named(state_checks.check_streams(state.client, state.keys))
    assert (behind["consumers"].outcome, behind["stream lag"].outcome) == ("failed", "failed")
    assert "3600 s" in behind["stream lag"].detail
    assert behind["dead letters"] == Finding(
        "dead letters", "warning", "1 entries of the log could not be applied", behind["dead letters"].mend
    )
    state.client.hset(state.keys.offsets(2), "progress", f"{an_hour_ago}-0 0-0 0-0 0-0")
    state.client.xadd(state.keys.decisions(3), {"decision": "{}"}, id=f"{an_hour_ago}-0")
    undecided = named(state_checks.check_streams(state.client, state.keys))
    assert undecided["stream lag"].outcome == "failed"
    state.client.hset(state.keys.offsets(3), "progress", f"0-0 {an_hour_ago}-0 0-0 0-0")
    state.client.zadd(state.keys.consumers, {"one": state_checks.now_ms() + 60_000})
    caught_up = named(state_checks.check_streams(state.client, state.keys))
    assert (caught_up["consumers"].outcome, caught_up["stream lag"].outcome) == ("ok", "ok")


def test_readiness_is_told_per_alias_and_generation(state: Any) -> None:
    assert named(serving_checks.check_readiness(state.client, state.keys))["replicas"].outcome == "failed"
    version = LiveVersion(version=3, uri="manifests/a.json", sha256="a" * 64)
    live = LiveAliases(generation=7, aliases={"champion": version})
    state.client.set(state.keys.live, live.model_dump_json())
    now = state_checks.now_ms()

    def tell(name: str, **report: Any) -> None:
        state.client.hset(state.keys.ready, name, Report(at_ms=now, **report).encode())

    tell("gateway/1", generation=7, held=("a" * 64,), answers={"champion": 3})
    tell("ranker/1", generation=6, held=())
    found = named(serving_checks.check_readiness(state.client, state.keys))
    assert (found["replicas"].outcome, found["readiness champion"].outcome) == ("warning", "ok")
    assert "1 of 2 have not seen generation 7: ranker/1" in found["replicas"].detail
    tell("gateway/1", generation=7, held=("a" * 64,))
    tell("ranker/1", generation=7, held=(), refused={"a" * 64: "corrupt"})
    refused = named(serving_checks.check_readiness(state.client, state.keys))
    assert refused["readiness champion"].outcome == "failed"
    assert "ranker refused: corrupt" in refused["readiness champion"].detail


def test_a_live_version_whose_manifest_is_gone_is_found(state: Any, tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    assert named(serving_checks.check_live(state.client, state.keys, store))["champion"].outcome == "failed"
    version = LiveVersion(version=1, uri="manifests/gone.json", sha256="a" * 64)
    state.client.set(
        state.keys.live, LiveAliases(generation=1, aliases={"champion": version}).model_dump_json()
    )
    [missing] = found_by("live", lambda: serving_checks.check_live(state.client, state.keys, store))
    assert (missing.check, missing.outcome) == ("live", "failed")
    assert "gone.json" in missing.detail


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        (None, "ok"),
        ("redis://127.0.0.1:6379", "ok"),
        ("redis://:secret@localhost:6379/0", "ok"),
        ("rediss://cache.example:6379", "ok"),
        ("rediss+cluster://a:1,b:2", "ok"),
        ("redis://cache.example:6379", "warning"),
        ("redis+cluster://a.example:1,b.example:2", "warning"),
    ],
)
def test_state_that_is_reached_in_the_clear_is_told(url: str | None, outcome: str) -> None:
    [found] = serving_checks.check_exposure(Settings(state=StateSettings(url=url)))
    assert found.outcome == outcome


def test_a_gateway_is_looked_for_where_it_is() -> None:
    [elsewhere] = serving_checks.check_gateway("http://0.0.0.0:8700")
    assert (elsewhere.outcome, "TASTEMAKER_GATEWAY__HOST" in elsewhere.mend) == ("skipped", True)
    [silent] = serving_checks.check_gateway("http://127.0.0.1:1")
    assert (silent.outcome, "ConnectError" in silent.detail) == ("failed", True)


def test_where_nothing_runs_it_says_so_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(context, "_settings", None)
    monkeypatch.setenv("TASTEMAKER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TASTEMAKER_STATE__URL", NOBODY)
    archive = tmp_path / "support.tar.gz"
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--json", "--bundle", str(archive)])
    assert ended.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert report["outcome"] == "failed"
    assert report["findings"][-1]["check"] == "state"
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "findings.json" in report["bundle"]


def test_the_gravest_finding_decides() -> None:
    of: Callable[..., str] = lambda *outcomes: worst([Finding("x", one, "") for one in outcomes])  # noqa: E731
    assert of("ok", "skipped") == "ok"
    assert of("ok", "failed", "warning") == "failed"

    def broken() -> list[Finding]:
        raise StateError("cannot do it", mend="mend it")

    assert list(found_by("a check", broken)) == [Finding("a check", "failed", "cannot do it", "mend it")]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_the_support_bundle_holds_no_secret(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path / "home")
    (home / "secrets" / "ray_token").write_text(HOME_TOKEN)
    (home / "logs" / "serve.log").write_text(
        f"cannot reach redis://app:{PASSWORD}@db\ntoken {HOME_TOKEN} and {ENV_TOKEN}\nkey {KEY}\nkept line\n"
    )
    monkeypatch.setenv("SOME_SERVICE_TOKEN", ENV_TOKEN)
    settings = Settings.parse(
        {
            "catalogue": state.settings.catalogue,
            "home": str(home.root),
            "state": {"url": state.url, "cache_url": "redis://app:u%20rl%2Fpass@db:1/0", "password": PASSWORD, "partitions": 4},
            "gateway": {"keys": [{"sha256": KEY, "scopes": ["read", "admin"]}]},
        },
        "test",
    )  # fmt: skip
    state_password = state.url.split("@")[0].rpartition(":")[2]
    findings = list(examine(settings, home, "http://127.0.0.1:1"))
    archive = tmp_path / "support.tar.gz"
    names = write_support_bundle(
        archive, settings, home, findings, {"state.password": "TASTEMAKER_X"}, "metric 1\n"
    )
    with tarfile.open(archive) as opened:
        texts = {
            member.name.partition("/")[2]: opened.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in opened.getmembers()
        }
    assert sorted(texts) == sorted(names)
    assert "logs/serve.log" in texts
    assert texts["metrics.txt"] == "metric 1\n"
    everything = "\n".join(texts.values())
    for secret in (PASSWORD, URL_PASSWORD, "u%20rl%2Fpass", KEY, ENV_TOKEN, HOME_TOKEN, state_password):
        assert secret not in everything, secret
    assert "kept line" in texts["logs/serve.log"]
    told = json.loads(texts["settings.json"])
    assert told["settings"]["gateway"]["keys"] == [{"sha256": "***", "scopes": ["read", "admin"]}]
    assert told["origins"] == ["state.password from TASTEMAKER_X"]
    assert "redis_version" in texts["state.txt"]
    assert {KEY, PASSWORD, HOME_TOKEN, ENV_TOKEN, URL_PASSWORD} <= set(known_secrets(settings, home))


def test_an_admin_listener_beyond_loopback_needs_a_key_for_it() -> None:
    from tastemaker.errors import ConfigError
    from tastemaker_services.web.access import check_exposure

    reader = ApiKey(sha256=KEY, scopes=("read",))
    with pytest.raises(ConfigError, match=r"gateway\.admin_host"):
        check_exposure(GatewaySettings(admin_host="0.0.0.0", keys=(reader,)))
    check_exposure(
        GatewaySettings(admin_host="0.0.0.0", keys=(reader, ApiKey(sha256=KEY, scopes=("admin",))))
    )
