"""What is live: registry, aliases, bundles, the processes that hold them, the gateway, and the disk under the home."""

import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import redis

from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.doctor.finding import Finding, Outcome
from tastemaker.errors import MissingExtraError
from tastemaker.home import Home
from tastemaker.registry.live import CHAMPION, read_live
from tastemaker.registry.overview import overview
from tastemaker.registry.reports import read_reports, stage_of
from tastemaker.state.keys import Keys

if TYPE_CHECKING:
    from tastemaker.registry.versions import Version

LEAST_FREE_RATIO: Final = 0.1
LEAST_FREE_BYTES: Final = 2 * 2**30
_SOUND: Final = frozenset({"answers", "held"})
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})
_UNDER_WAY: Final = frozenset({"loading", "warming up"})


def check_registry(client: redis.Redis, keys: Keys, settings: Settings, home: Home) -> Iterator[Finding]:
    """Whether MLflow answers, and whether what it names is what replicas see."""
    from tastemaker.registry.client import Registry

    try:
        named = Registry(settings, home).named(keys.catalogue)
    except MissingExtraError as error:
        yield Finding("registry", "skipped", error.what, error.mend or "")
        return
    yield Finding("registry", "ok", ", ".join(f"{a} {_number(v)}" for a, v in named.items()) or "no aliases")
    live = read_live(client, keys)
    seen = {alias: version.version for alias, version in live.aliases.items()} if live else {}
    wanted = {alias: version.number for alias, version in named.items() if version is not None}
    if seen == wanted:
        yield Finding("registry watcher", "ok", f"generation {live.generation if live else 0}")
    else:
        mend = "see that `tastemaker serve`, or the cluster's admin, runs: it copies the aliases every 2 s"
        yield Finding("registry watcher", "failed", f"replicas see {seen}, the registry has {wanted}", mend)


def check_live(client: redis.Redis, keys: Keys, store: BundleStore) -> Iterator[Finding]:
    """Whether there is a champion, and whether each live version's manifest can be read."""
    live = read_live(client, keys)
    if live is None or CHAMPION not in live.aliases:
        mend = "publish a version, then `tastemaker promote <version> --to champion`"
        yield Finding("champion", "failed", f"catalogue {keys.catalogue} has none", mend)
        return
    for alias, version in live.aliases.items():
        store.get_manifest(version.uri, version.sha256)
        yield Finding(alias, "ok", f"version {version.version}, bundle {version.ref.bundle_id}")


def check_readiness(client: redis.Redis, keys: Keys) -> Iterator[Finding]:
    """Whether every process holds what is live, by alias, and has seen the newest generation."""
    live, reports = read_live(client, keys), read_reports(client, keys)
    if not reports:
        yield Finding(
            "replicas", "failed", "none tells of itself", "start `tastemaker serve` or the RayService"
        )
        return
    generation = live.generation if live else 0
    behind = [name for name, report in reports.items() if report.generation < generation]
    stages = ", ".join(f"{stage} {num}" for stage, num in _by_stage(reports).items())
    if behind:
        detail = (
            f"{len(behind)} of {len(reports)} have not seen generation {generation}: {', '.join(behind[:3])}"
        )
        yield Finding("replicas", "warning", detail, "wait a moment; if it stays, see their logs")
    else:
        yield Finding("replicas", "ok", f"{stages}; all at generation {generation}")
    for state in overview(live, reports):
        outcome = _outcome(state.outcome)
        refused = "; ".join(f"{stage} refused: {reason}" for stage, reason in state.refused.items())
        detail = f"{state.outcome}, {state.answering} of {state.gateways} gateways{f' ({refused})' if refused else ''}"
        mend = "" if outcome == "ok" else "`tastemaker versions` shows what is lacking where"
        yield Finding(f"readiness {state.alias}", outcome, detail, mend)


def check_gateway(url: str) -> Iterator[Finding]:
    """Whether the gateway says that the whole graph answers."""
    import httpx

    if httpx.URL(url).host in _EVERYWHERE:
        mend = "name the gateway's service by TASTEMAKER_GATEWAY__HOST"
        yield Finding("gateway", "skipped", "gateway.host is where it listens, not where it is", mend)
        return
    try:
        reply = httpx.get(f"{url}/readyz", timeout=10.0, trust_env=False)
    except httpx.HTTPError as error:
        mend = "start it, or name it by gateway.host and gateway.port"
        yield Finding("gateway", "failed", f"{url} does not answer: {type(error).__name__}", mend)
        return
    if reply.status_code == 200:
        yield Finding("gateway", "ok", f"{url} is ready")
    else:
        yield Finding("gateway", "failed", f"{url}: {reply.text[:200]}", "wait for what it names")


def check_disk(home: Home) -> Iterator[Finding]:
    """Whether the home's disk has room."""
    usage = shutil.disk_usage(home.root)
    detail = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GB free under {home.root}"
    if usage.free >= min(LEAST_FREE_BYTES, LEAST_FREE_RATIO * usage.total):
        yield Finding("disk", "ok", detail)
    else:
        yield Finding("disk", "warning", detail, "free some, or give it a larger volume")


def check_exposure(settings: Settings) -> Iterator[Finding]:
    """Whether the way to the state is encrypted where it leaves the machine."""
    url = settings.state.url
    if url is None or url.startswith("rediss") or _is_local(url):
        yield Finding("transport", "ok", "to the state: embedded, local or TLS")
    else:
        mend = "use rediss://, or let a network policy keep everybody else away"
        yield Finding("transport", "warning", "state.url is not encrypted", mend)


def _outcome(state: str) -> Outcome:
    return "ok" if state in _SOUND else "warning" if state in _UNDER_WAY else "failed"


def _is_local(url: str) -> bool:
    host = url.rpartition("//")[2].rpartition("@")[2]
    return host.startswith(("127.", "localhost", "[::1]"))


def _number(version: "Version | None") -> str:
    return "none" if version is None else str(version.number)


def _by_stage(names: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for name in names:
        counted[stage_of(name)] = counted.get(stage_of(name), 0) + 1
    return counted
